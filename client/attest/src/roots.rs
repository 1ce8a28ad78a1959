//! The roots: those that came with this program, and those that the caller gives. Where each one is from stands in
//! `roots/README.md`, and a test holds them against the fingerprints there.

use std::sync::OnceLock;

use crate::{Certificate, chain::Anchor};

/// Whom a root vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Yubico, for YubiKeys.
    Yubico,
    /// The makers of TPMs, for endorsement keys.
    Tpm,
    /// Marvell, for its HSM cards.
    Hsm,
    /// Google, for the HSM cards that it runs.
    HsmOwner,
}

/// What is trusted.
#[derive(Clone, Debug)]
pub struct Roots {
    built_in: bool,
    given: Vec<Certificate>,
}

impl Roots {
    /// The makers' roots that came with this program.
    pub fn built_in() -> Self {
        Self { built_in: true, given: Vec::new() }
    }

    /// No roots.
    pub fn none() -> Self {
        Self { built_in: false, given: Vec::new() }
    }

    /// These too, for every kind of device.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = Certificate>) -> Self {
        self.given.extend(more);
        self
    }

    pub(crate) fn anchors(&self, maker: Maker) -> Vec<Anchor> {
        let anchor = |built_in| move |c: &Certificate| Anchor { certificate: c.clone(), built_in };
        let built_in = maker.roots().iter().filter(|_| self.built_in).map(anchor(true));
        built_in.chain(self.given.iter().map(anchor(false))).collect()
    }

    /// Certificates between a maker's root and its devices that are not in the devices' statements.
    pub(crate) fn intermediates(&self, maker: Maker) -> &'static [Certificate] {
        if maker == Maker::Yubico && self.built_in {
            static THEM: OnceLock<Vec<Certificate>> = OnceLock::new();
            return THEM.get_or_init(|| read(include_str!("../roots/yubico-intermediates.pem")));
        }
        &[]
    }
}

impl Maker {
    fn roots(self) -> &'static [Certificate] {
        static YUBICO: OnceLock<Vec<Certificate>> = OnceLock::new();
        static TPM: OnceLock<Vec<Certificate>> = OnceLock::new();
        static HSM: OnceLock<Vec<Certificate>> = OnceLock::new();
        static OWNER: OnceLock<Vec<Certificate>> = OnceLock::new();
        match self {
            Self::Yubico => YUBICO.get_or_init(|| read(include_str!("../roots/yubico.pem"))),
            Self::Tpm => TPM.get_or_init(|| read(include_str!("../roots/tpm.pem"))),
            Self::Hsm => HSM.get_or_init(|| read(include_str!("../roots/hsm-makers.pem"))),
            Self::HsmOwner => OWNER.get_or_init(|| read(include_str!("../roots/hsm-owners.pem"))),
        }
    }
}

/// A file that does not parse gives no root; the test sees to it that all do.
fn read(pem: &str) -> Vec<Certificate> {
    Certificate::all_from_pem(pem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `roots/README.md` and the files say the same, and every root that names itself as its issuer has signed itself.
    #[test]
    fn the_roots_are_those_that_are_documented() {
        let readme = include_str!("../roots/README.md");
        let lists = [
            Maker::Yubico.roots(),
            Roots::built_in().intermediates(Maker::Yubico),
            Maker::Tpm.roots(),
            Maker::Hsm.roots(),
            Maker::HsmOwner.roots(),
        ];
        let mut seen = 0;
        for certificate in lists.into_iter().flatten() {
            let fingerprint = hex::encode(certificate.fingerprint().as_bytes());
            let line = readme.lines().find(|l| l.contains(&fingerprint));
            let line = line.unwrap_or_else(|| panic!("{certificate:?} ({fingerprint}) is not documented"));
            assert!(line.contains(&certificate.subject_name()), "{line}");
            if certificate.subject() == certificate.issuer() {
                certificate.verify_signature(certificate).unwrap();
            }
            seen += 1;
        }
        let documented = readme.lines().filter(|l| l.starts_with("| `")).count();
        assert_eq!(seen, documented, "every documented certificate is there");
    }

    #[test]
    fn nothing_is_trusted_unasked() {
        assert!(Roots::none().anchors(Maker::Yubico).is_empty());
        assert!(Roots::none().intermediates(Maker::Yubico).is_empty());
        assert_eq!(Roots::built_in().anchors(Maker::Yubico).len(), 2);
    }
}
