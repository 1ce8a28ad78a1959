//! Chains of certificates: from a device's to a root that is trusted.

use std::{fmt::Display, time::SystemTime};

use const_oid::{ObjectIdentifier, db};
use signer_core::{Error, ErrorKind, Result};

use crate::{Certificate, refused, report::Root};

/// The longest chain: the makers' have at most five.
const MAX_LEN: usize = 8;
/// The most signatures that are checked for one chain.
const MAX_CHECKS: u32 = 100;

/// Critical extensions that are understood, or that say nothing which matters to a device's statement.
const KNOWN: [ObjectIdentifier; 7] = [
    db::rfc5280::ID_CE_BASIC_CONSTRAINTS,
    db::rfc5280::ID_CE_KEY_USAGE,
    db::rfc5280::ID_CE_EXT_KEY_USAGE,
    db::rfc5280::ID_CE_SUBJECT_ALT_NAME,
    db::rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
    db::rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    db::rfc5280::ID_CE_CERTIFICATE_POLICIES,
];

/// A root.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) certificate: Certificate,
    pub(crate) built_in: bool,
}

/// A chain that holds.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// From the device's certificate up, without the root.
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) anchor: Anchor,
}

/// Who may issue without the basic constraints of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Nobody.
    Strict,
    /// The certificate of a YubiKey itself, directly under the root: those of firmware 4 have no constraints. A statement on
    /// a key (it has Yubico's policy extension) never issues.
    Yubico,
    /// The card of an HSM: its maker's certificates say nothing about issuing, and Google's own check does not ask.
    Hsm,
}

impl Chain {
    /// Builds the chain of `leaf` out of `pool` to one of `anchors`, and checks it: signatures, validity at a time, and who
    /// may issue (RFC 5280 section 6.1, without policies, name constraints and revocation, which devices' makers do not use).
    pub(crate) fn build(
        leaf: &Certificate,
        pool: &[Certificate],
        anchors: &[Anchor],
        at: SystemTime,
        rules: Rules,
    ) -> Result<Self> {
        // 1. Up by names and signatures, until a root has signed.
        let chain = Self::climb(leaf, pool, anchors, at)?;
        // 2. Every certificate is valid at that time.
        for certificate in chain.all() {
            certificate.check_validity(at).map_err(|e| about(certificate, e))?;
        }
        // 3. Who issued was allowed to.
        chain.check_issuers(rules)?;
        // 4. Nothing critical that is not understood.
        for certificate in &chain.certificates {
            if let Some(unknown) =
                certificate.extensions().iter().find(|e| e.critical && !KNOWN.contains(&e.extn_id))
            {
                let what =
                    format!("it has a critical extension that is not known here ({})", unknown.extn_id);
                return Err(about(certificate, what));
            }
        }
        Ok(chain)
    }

    fn climb(leaf: &Certificate, pool: &[Certificate], anchors: &[Anchor], at: SystemTime) -> Result<Self> {
        let mut certificates = vec![leaf.clone()];
        let mut search = Search { pool, anchors, at, checks: MAX_CHECKS };
        let anchor = search.above(&mut certificates)?;
        Ok(Self { certificates, anchor })
    }

    fn check_issuers(&self, rules: Rules) -> Result<()> {
        for (below, issuer) in self.all().skip(1).enumerate() {
            let is_root = below + 1 == self.certificates.len();
            match issuer.constraints()? {
                Some(constraints) if !constraints.ca => {
                    return Err(about(issuer, "it is not the certificate of an authority, and issued one"));
                }
                // Certificates between this one and the device's own, which is not counted.
                Some(constraints)
                    if constraints.path_len_constraint.is_some_and(|max| below > usize::from(max)) =>
                {
                    return Err(about(issuer, "the chain below it is longer than it allows"));
                }
                Some(_) => {}
                None if is_root || self.may_lack_constraints(below + 1, rules) => {}
                None => return Err(about(issuer, "it does not say that it may issue, and issued one")),
            }
            if !issuer.may_sign_certificates() {
                return Err(about(issuer, "its key is not for signing certificates, and signed one"));
            }
        }
        Ok(())
    }

    fn may_lack_constraints(&self, index: usize, rules: Rules) -> bool {
        match rules {
            Rules::Strict => false,
            Rules::Hsm => true,
            Rules::Yubico => {
                let statement = self.certificates[index].extension(crate::piv::POLICIES).is_some();
                index == 1 && self.certificates.len() == 2 && !statement
            }
        }
    }

    /// Every certificate, the device's first and the root last.
    fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().chain([&self.anchor.certificate])
    }

    /// The names of all certificates, the device's first and the root last.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().map(Certificate::subject_name).collect()
    }

    pub(crate) fn root(&self) -> Root {
        Root {
            name: self.anchor.certificate.subject_name(),
            fingerprint: self.anchor.certificate.fingerprint(),
            built_in: self.anchor.built_in,
        }
    }
}

/// A search for the way to a root. A key can be certified twice under one name, so that there are several ways.
struct Search<'a> {
    pool: &'a [Certificate],
    anchors: &'a [Anchor],
    at: SystemTime,
    /// How many signatures may be checked yet: whoever makes a statement must not keep us busy with it.
    checks: u32,
}

impl Search<'_> {
    /// Goes up from the last of these certificates, and says at which root it ended.
    fn above(&mut self, way: &mut Vec<Certificate>) -> Result<Anchor> {
        let Some(current) = way.last().cloned() else { return Err(refused("there is no certificate")) };
        let mut why_not = None;
        // A root that was renewed with the same key is there twice: the one that is valid goes first.
        let mut by: Vec<&Anchor> = Vec::new();
        for anchor in self.anchors {
            if self.signed(&current, &anchor.certificate, &mut why_not)? {
                by.push(anchor);
            }
        }
        let valid = by.iter().find(|a| a.certificate.check_validity(self.at).is_ok());
        if let Some(anchor) = valid.or(by.first()) {
            return Ok((*anchor).clone());
        }
        if way.len() >= MAX_LEN {
            return Err(refused("the chain of certificates is too long"));
        }
        let mut dead_end = None;
        for next in self.pool {
            if way.contains(next) || !self.signed(&current, next, &mut why_not)? {
                continue;
            }
            way.push(next.clone());
            match self.above(way) {
                Ok(anchor) => return Ok(anchor),
                Err(e) => dead_end = dead_end.or(Some(e)),
            }
            way.pop();
        }
        Err(dead_end.unwrap_or_else(|| broken(&current, why_not)))
    }

    /// Whether `issuer` has signed it; why not, if the names fit and the signature does not.
    fn signed(
        &mut self,
        certificate: &Certificate,
        issuer: &Certificate,
        why_not: &mut Option<Error>,
    ) -> Result<bool> {
        if issuer.subject() != certificate.issuer() {
            return Ok(false);
        }
        self.checks = self
            .checks
            .checked_sub(1)
            .ok_or_else(|| refused("there are too many certificates of the same name"))?;
        Ok(certificate.verify_signature(issuer).map_err(|e| *why_not = Some(e)).is_ok())
    }
}

fn about(certificate: &Certificate, what: impl Display) -> Error {
    refused(format_args!("the certificate of {:?} does not count: {what}", certificate.subject_name()))
}

/// Why the chain ends at `last`: the most telling reason.
fn broken(last: &Certificate, why_not: Option<Error>) -> Error {
    let issuer = last.issuer_name();
    match why_not {
        Some(e) if e.kind() == ErrorKind::Denied => refused(format_args!(
            "the certificate of {:?} is not signed by {issuer:?}, whom it names",
            last.subject_name()
        )),
        Some(e) => about(last, e.what()),
        None => refused(format_args!(
            "the chain ends at {:?}, whose issuer {issuer:?} is neither a root nor in the statement",
            last.subject_name()
        ))
        .next("give the missing certificate with the statement, or the root if you trust it"),
    }
}
