//! Which chains are logged: those of certificate authorities for code signing, up to an accepted root.
//!
//! A log keeps what was issued, good or bad: it checks that an accepted authority has signed it, not whether it is valid now.
//! Certificates of ten minutes may come late, and nothing is assumed of servers' names.

use signer_core::{Error, Result};

use super::entry::{Submission, sha256};
use crate::x509::{Certificate, oid};

/// The most certificates of a chain.
pub(super) const MAX_LENGTH: usize = 10;

/// Extended key usages, one of which a leaf must have. Empty: any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usages(Vec<(&'static str, &'static [u8])>);

const KNOWN: [(&str, &[u8]); 6] = [
    ("CodeSigning", &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    ("ServerAuth", &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    ("ClientAuth", &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    ("EmailProtection", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("TimeStamping", &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    ("OCSPSigning", &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
];

impl Usages {
    /// Those of these names; `Any` for no demand.
    pub(crate) fn named(names: &[String]) -> Result<Self> {
        if names.iter().any(|n| n.eq_ignore_ascii_case("any")) {
            return Ok(Self::default());
        }
        let named = |name: &String| {
            KNOWN.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
                Error::bad_request(format!("no extended key usage is called {name:?}"))
                    .next(format!("use some of {}, Any", KNOWN.map(|(n, _)| n).join(", ")))
            })
        };
        Ok(Self(names.iter().map(named).collect::<Result<_>>()?))
    }

    fn check(&self, leaf: &Certificate<'_>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let usages = leaf.extended_key_usages().unwrap_or_default();
        let fits = |usage: &&[u8]| {
            *usage == oid::ANY_EXTENDED_KEY_USAGE || self.0.iter().any(|(_, oid)| oid == usage)
        };
        if usages.iter().any(fits) {
            return Ok(());
        }
        let wanted: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        Err(Error::bad_request("the certificate has none of the extended key usages that this log takes on")
            .next(format!("wanted: {}", wanted.join(", "))))
    }
}

/// A chain that was checked.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    leaf: Certificate<'a>,
    precertificate: bool,
    issuer_key_hash: [u8; 32],
    /// The certificates above the leaf, up to the root, DER.
    pub(super) issuers: Vec<Vec<u8>>,
}

impl<'a> Chain<'a> {
    /// Checks a chain, leaf first. The root may be left out (RFC 6962 section 3.1).
    pub(super) fn check(
        certificates: &'a [Vec<u8>],
        precertificate: bool,
        roots: &[Vec<u8>],
        usages: &Usages,
    ) -> Result<Self> {
        let parsed = certificates.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>>>()?;
        let Some((leaf, above)) = parsed.split_first() else {
            return Err(Error::bad_request("the chain is empty"));
        };
        check_poison(leaf, precertificate)?;
        usages.check(leaf)?;
        let mut below = leaf;
        for (depth, issuer) in above.iter().enumerate() {
            issued(below, issuer, depth as u64)?;
            below = issuer;
        }
        let mut issuers: Vec<Vec<u8>> = above.iter().map(|c| c.der.to_vec()).collect();
        // The last one is a root, or was issued by one.
        let root_der;
        let mut issuer_spki = above.first().map(|c| c.spki);
        if !roots.iter().any(|root| root == below.der) {
            let depth = above.len() as u64;
            let fits = |root: &&Vec<u8>| {
                Certificate::parse(root).and_then(|root| issued(below, &root, depth)).is_ok()
            };
            root_der = roots.iter().find(fits).ok_or_else(|| {
                Error::bad_request("the chain does not lead to a root that this log accepts")
                    .next("get-roots lists those that it accepts")
            })?;
            issuers.push(root_der.clone());
            if issuer_spki.is_none() {
                issuer_spki = Some(Certificate::parse(root_der)?.spki);
            }
        } else if issuer_spki.is_none() {
            // A root on its own: its own issuer.
            issuer_spki = Some(leaf.spki);
        }
        let issuer_key_hash = sha256(issuer_spki.unwrap_or_default());
        if precertificate
            && above
                .first()
                .and_then(Certificate::extended_key_usages)
                .is_some_and(|u| u.contains(&oid::PRECERTIFICATE_SIGNING))
        {
            return Err(Error::bad_request(
                "precertificates by a special signing certificate are not taken on",
            )
            .next("sign the precertificate with the key that signs the certificate"));
        }
        Ok(Self { leaf: leaf.clone(), precertificate, issuer_key_hash, issuers })
    }

    /// What goes into the log.
    pub(super) fn submission(&self) -> Result<Submission> {
        let fingerprints: Vec<_> = self.issuers.iter().map(|der| sha256(der)).collect();
        if self.precertificate {
            let tbs = self.leaf.tbs_without(oid::POISON);
            Submission::precertificate(self.issuer_key_hash, &tbs, self.leaf.der, &fingerprints)
        } else {
            Submission::certificate(self.leaf.der, &fingerprints)
        }
    }
}

/// RFC 6962 section 3.1: a precertificate has the poison, critical and with nothing in it; a certificate has not.
fn check_poison(leaf: &Certificate<'_>, precertificate: bool) -> Result<()> {
    match (leaf.extension(oid::POISON), precertificate) {
        (Some(poison), true) if poison.critical && poison.value == [5, 0] => {}
        (Some(_), true) => {
            return Err(Error::bad_request("the poison extension is not critical, or has something in it"));
        }
        (None, true) => {
            return Err(Error::bad_request("this is not a precertificate: it has no poison extension")
                .next("use add-chain"));
        }
        (Some(_), false) => {
            return Err(Error::bad_request("this is a precertificate").next("use add-pre-chain"));
        }
        (None, false) => return Ok(()),
    }
    if leaf.extension(oid::SCT_LIST).is_some() {
        return Err(Error::bad_request("a precertificate has no timestamps embedded yet"));
    }
    Ok(())
}

/// Whether `issuer` has issued `below`, with `depth` authorities between it and the leaf.
fn issued(below: &Certificate<'_>, issuer: &Certificate<'_>, depth: u64) -> Result<()> {
    if below.issuer != issuer.subject {
        return Err(Error::bad_request("a certificate of the chain names another issuer than the next one"));
    }
    match issuer.authority() {
        Some(limit) if depth <= limit => {}
        Some(_) => {
            return Err(Error::bad_request(
                "the chain is longer than one of its authorities allows (pathlen)",
            ));
        }
        None => return Err(Error::bad_request("an issuer of the chain is not a certificate authority")),
    }
    let key = issuer
        .public_key()
        .map_err(|e| Error::bad_request("the key of an issuer is not supported").vendor(e.what()))?;
    below.verify(&key)
}
