//! What somebody wants to be told of.

use serde::Serialize;
use signer_core::{Error, Result};
use signer_log_engine::Hash;

use super::pattern::Pattern;
use crate::decode::{CertificateView, Decoded, SanKind, Signed, oid_from_text};

/// One rule: all of its conditions must hold, each by any of its values. Conditions on who has signed must hold for one and
/// the same signature.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Names in the certificate.
    pub(super) identities: Vec<Pattern>,
    /// Who has said who it is: Fulcio's issuer extension.
    pub(super) issuers: Vec<Pattern>,
    /// The certificate's subject.
    pub(super) subjects: Vec<Pattern>,
    /// SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub(super) fingerprints: Vec<Hash>,
    /// Digests of what was signed, of any kind.
    pub(super) digests: Vec<Vec<u8>>,
    /// Extensions of the certificate and what must be in them.
    pub(super) extensions: Vec<(String, Content)>,
    /// Every entry matches.
    pub(super) everything: bool,
}

/// What must be in an extension.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Its text.
    Text(Pattern),
    /// Its bytes.
    Bytes(Vec<u8>),
}

/// What of an entry has matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Found {
    pub(super) field: String,
    pub(super) value: String,
}

impl Found {
    fn new(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.into() }
    }
}

impl Rule {
    /// A rule without conditions, which matches nothing.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            identities: Vec::new(),
            issuers: Vec::new(),
            subjects: Vec::new(),
            fingerprints: Vec::new(),
            digests: Vec::new(),
            extensions: Vec::new(),
            everything: false,
        }
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.everything && self.digests.is_empty() && !self.asks_for_a_signer()
    }

    fn asks_for_a_certificate(&self) -> bool {
        !self.identities.is_empty()
            || !self.issuers.is_empty()
            || !self.subjects.is_empty()
            || !self.extensions.is_empty()
    }

    fn asks_for_a_signer(&self) -> bool {
        !self.fingerprints.is_empty() || self.asks_for_a_certificate()
    }

    /// What matches, if all that it asks for does.
    pub(super) fn matches(&self, entry: &Decoded) -> Option<Vec<Found>> {
        let mut found = Vec::new();
        if self.is_empty() {
            return None;
        }
        if !self.digests.is_empty() {
            let hit = entry.digests.iter().find(|d| self.digests.contains(&d.digest))?;
            found.push(Found::new("digest", format!("{}:{}", hit.algorithm, hex::encode(&hit.digest))));
        }
        if self.asks_for_a_signer() {
            found.extend(entry.signers.iter().find_map(|signer| self.signer(signer))?);
        }
        Some(found)
    }

    fn signer(&self, signer: &Signed) -> Option<Vec<Found>> {
        let mut found = Vec::new();
        if !self.fingerprints.is_empty() {
            self.fingerprints.iter().find(|f| **f == signer.fingerprint)?;
            found.push(Found::new("fingerprint", hex::encode(signer.fingerprint)));
        }
        if self.asks_for_a_certificate() {
            found.extend(self.certificate(signer.certificate.as_ref()?)?);
        }
        Some(found)
    }

    fn certificate(&self, certificate: &CertificateView) -> Option<Vec<Found>> {
        let mut found = Vec::new();
        if !self.identities.is_empty() {
            let hit = certificate.sans.iter().find(|san| {
                let any_case = matches!(san.kind, SanKind::Email | SanKind::Dns);
                self.identities
                    .iter()
                    .any(|p| if any_case { p.matches_any_case(&san.value) } else { p.matches(&san.value) })
            })?;
            found.push(Found::new("identity", &*hit.value));
        }
        if !self.issuers.is_empty() {
            let issuer = certificate.issuer_v2()?;
            self.issuers.iter().find(|p| p.matches(issuer))?;
            found.push(Found::new("issuer", issuer));
        }
        if !self.subjects.is_empty() {
            self.subjects.iter().find(|p| p.matches(&certificate.subject))?;
            found.push(Found::new("subject", &*certificate.subject));
        }
        for (oid, _) in &self.extensions {
            let extension = certificate.extensions.iter().find(|e| e.oid == *oid)?;
            let wanted = self.extensions.iter().filter(|(other, _)| other == oid);
            let fits = |content: &Content| match content {
                Content::Text(pattern) => extension.text.as_deref().is_some_and(|t| pattern.matches(t)),
                Content::Bytes(bytes) => extension.value == *bytes,
            };
            wanted.map(|(_, content)| content).find(|content| fits(content))?;
            let value = extension.text.clone().unwrap_or_else(|| hex::encode(&extension.value));
            let hit = Found::new(format!("extension {oid}"), value);
            if !found.contains(&hit) {
                found.push(hit);
            }
        }
        Some(found)
    }
}

/// Reads a fingerprint: SHA-256 in hexadecimal, with or without `sha256:` and colons.
pub(super) fn fingerprint(text: &str) -> Result<Hash> {
    let wrong = || {
        Error::bad_request(format!("{text:?} is no fingerprint"))
            .next("write the SHA-256 of the public key (SubjectPublicKeyInfo) in 64 hexadecimal digits")
    };
    hash(text)
        .filter(|(algorithm, _)| *algorithm == "sha256")
        .map(|(_, h)| h)
        .and_then(|h| h.try_into().ok())
        .ok_or_else(wrong)
}

/// Reads a digest: `sha256:HEX`, or the digits alone.
pub(super) fn digest(text: &str) -> Result<Vec<u8>> {
    hash(text).map(|(_, digest)| digest).ok_or_else(|| {
        Error::bad_request(format!("{text:?} is no digest"))
            .next("write sha256:…, sha384:… or sha512:… with hexadecimal digits")
    })
}

fn hash(text: &str) -> Option<(&'static str, Vec<u8>)> {
    const KNOWN: [(&str, usize); 3] = [("sha256", 32), ("sha384", 48), ("sha512", 64)];
    let lower = text.trim().to_ascii_lowercase();
    let (algorithm, digits) = match lower.split_once(':') {
        Some((name, digits)) if name.starts_with("sha") => (Some(name), digits),
        _ => (None, &*lower),
    };
    let bytes = hex::decode(digits.replace(':', "")).ok()?;
    let known =
        KNOWN.iter().find(|(name, length)| bytes.len() == *length && algorithm.is_none_or(|a| a == *name))?;
    Some((known.0, bytes))
}

/// Reads `OID=VALUE` as it is written on a command line; `OID=hex:…` for bytes.
pub(super) fn extension(text: &str) -> Result<(String, Content)> {
    let (oid, value) = text.split_once('=').ok_or_else(|| {
        Error::bad_request(format!("{text:?} is no extension"))
            .next("write OID=VALUE, or NAME=VALUE for Fulcio's")
    })?;
    Ok((oid_of(oid)?, content(value)?))
}

pub(super) fn content(value: &str) -> Result<Content> {
    match value.strip_prefix("hex:") {
        Some(digits) => hex::decode(digits)
            .map(Content::Bytes)
            .map_err(|_| Error::bad_request(format!("{value:?} is not hexadecimal"))),
        None => Pattern::glob(value).map(Content::Text),
    }
}

pub(super) fn oid_of(text: &str) -> Result<String> {
    oid_from_text(text).ok_or_else(|| {
        let names: Vec<_> = crate::decode::FULCIO.iter().map(|(_, name)| *name).collect();
        Error::bad_request(format!("{text:?} is no object identifier"))
            .next(format!("write it with dots, or one of Fulcio's names: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{ExtensionView, Hashed, San};

    fn entry() -> Decoded {
        let extension = |oid: &str, text: &str| ExtensionView {
            oid: oid.into(),
            name: None,
            critical: false,
            text: Some(text.into()),
            value: text.into(),
        };
        let certificate = CertificateView {
            serial: "01".into(),
            subject: "CN=build".into(),
            issuer: "CN=ca".into(),
            not_before: String::new(),
            not_after: String::new(),
            sans: vec![San { kind: SanKind::Email, value: "Dev@example.com".into() }],
            extensions: vec![
                extension("1.3.6.1.4.1.57264.1.8", "https://issuer.example"),
                extension("1.2.3", "value"),
            ],
            spki: vec![1],
        };
        let signed = |fingerprint, certificate| Signed {
            fingerprint,
            spki: vec![1],
            certificate,
            details: String::new(),
            signature: Vec::new(),
        };
        Decoded {
            leaf_hash: [0; 32],
            kind: "dsse".into(),
            version: String::new(),
            time: None,
            digests: vec![Hashed { algorithm: "sha256".into(), digest: vec![9; 32] }],
            signers: vec![signed([7; 32], None), signed([8; 32], Some(certificate))],
            issuer_key_hash: None,
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn all_conditions_hold_for_one_signature() {
        let glob = |text: &str| vec![Pattern::glob(text).unwrap()];
        let base = Rule::named("rule");
        let matches = |rule: &Rule| rule.matches(&entry()).is_some();
        assert!(!matches(&base), "a rule without conditions matches nothing");
        assert!(matches(&Rule { everything: true, ..base.clone() }));
        let identity = Rule { identities: glob("dev@*"), ..base.clone() };
        assert_eq!(identity.matches(&entry()).unwrap(), [Found::new("identity", "Dev@example.com")]);
        assert!(matches(&Rule { issuers: glob("https://issuer.example"), ..identity.clone() }));
        assert!(!matches(&Rule { issuers: glob("https://other.example"), ..identity.clone() }));
        assert!(matches(&Rule { fingerprints: vec![[8; 32]], ..identity.clone() }));
        // The key of the other signature.
        assert!(!matches(&Rule { fingerprints: vec![[7; 32]], ..identity.clone() }));
        assert!(matches(&Rule { fingerprints: vec![[7; 32]], ..base.clone() }));
        assert!(matches(&Rule { digests: vec![vec![9; 32]], ..identity.clone() }));
        assert!(!matches(&Rule { digests: vec![vec![1; 32]], ..identity.clone() }));
        let with = |texts: &[&str]| Rule {
            extensions: texts.iter().map(|t| extension(t).unwrap()).collect(),
            ..base.clone()
        };
        assert!(matches(&with(&["1.2.3=value"])));
        assert!(matches(&with(&["1.2.3=no", "1.2.3=v*"])), "one of the values of an extension");
        assert!(!matches(&with(&["1.2.3=value", "1.2.4=x"])), "all of the extensions");
        assert!(matches(&with(&["1.2.3=hex:76616c7565", "issuer-v2=https://*"])));
        assert!(matches(&Rule { subjects: glob("CN=build"), ..base }));
    }

    #[test]
    fn hashes_are_read_as_people_write_them() {
        let digits = "ab".repeat(32);
        assert_eq!(fingerprint(&digits).unwrap(), [0xab; 32]);
        assert_eq!(fingerprint(&format!("SHA256:{}", vec!["AB"; 32].join(":"))).unwrap(), [0xab; 32]);
        assert_eq!(digest(&format!("sha512:{}", "00".repeat(64))).unwrap().len(), 64);
        for bad in ["", "xy", "sha512:00", "sha1:00", &"ab".repeat(31)] {
            assert!(digest(bad).is_err() && fingerprint(bad).is_err(), "{bad}");
        }
        assert!(fingerprint(&"00".repeat(64)).is_err());
        assert!(extension("issuer=x").is_ok() && extension("nothing").is_err() && extension("a=b").is_err());
    }
}
