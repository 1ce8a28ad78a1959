//! Entries as people and rules want them: who has signed, with which key, what. Used by the monitor and by the page.
//!
//! Only what the leaf's hash covers is read: what lies beside it in a tile (a precertificate, the chain) is the log's word alone.

mod certificate;
mod oids;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use signer_core::{Digest, HashAlgorithm};
use signer_log_engine::{EntryRef, Format, Hash, timestamped_entry};

#[cfg(test)]
pub(crate) use certificate::ExtensionView;
pub(crate) use certificate::San;
pub(crate) use certificate::{CertificateView, SanKind};
pub(crate) use oids::{FULCIO, oid_from_text};

/// An entry, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    /// The hash of its leaf.
    pub(crate) leaf_hash: Hash,
    /// `hashedrekord`, `dsse`, `certificate`, `precertificate`, or what the entry calls itself.
    pub(crate) kind: String,
    /// The version of the kind, if it has one.
    pub(crate) version: String,
    /// Milliseconds since 1970, if the entry states its time.
    pub(crate) time: Option<u64>,
    /// What was signed.
    pub(crate) digests: Vec<Hashed>,
    /// Who has signed, or whose certificate it is.
    pub(crate) signers: Vec<Signed>,
    /// The hash of the issuer's key, which a precertificate's entry has.
    pub(crate) issuer_key_hash: Option<Hash>,
    /// What could not be read, a sentence each.
    pub(crate) unreadable: Vec<String>,
}

/// A digest of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// `sha256`, `sha384`, `sha512`.
    pub(crate) algorithm: String,
    pub(crate) digest: Vec<u8>,
}

/// A key that has signed, or that a certificate is for.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub(crate) fingerprint: Hash,
    /// The `SubjectPublicKeyInfo`, DER.
    pub(crate) spki: Vec<u8>,
    /// The certificate, when the key came with one.
    pub(crate) certificate: Option<CertificateView>,
    /// How it signs, by sigstore's names: `PKIX_ECDSA_P256_SHA_256`.
    pub(crate) details: String,
    /// The signature, where the entry has one.
    pub(crate) signature: Vec<u8>,
}

impl Decoded {
    /// Takes an entry apart as far as it can be read.
    pub(crate) fn new(entry: &EntryRef<'_>, format: Format) -> Self {
        let mut this = Self {
            leaf_hash: entry.leaf_hash(),
            kind: "unknown".into(),
            version: String::new(),
            time: None,
            digests: Vec::new(),
            signers: Vec::new(),
            issuer_key_hash: None,
            unreadable: Vec::new(),
        };
        match format {
            Format::Entries => this.read_json(entry.body()),
            Format::Certificates => this.read_timestamped(entry.body()),
        }
        this
    }

    /// The canonical JSON of Rekor v2 (`rekor.v2.Entry`).
    fn read_json(&mut self, body: &[u8]) {
        let Ok(entry) = serde_json::from_slice::<Value>(body) else {
            self.unreadable.push("the entry is not JSON".into());
            return;
        };
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        (self.kind, self.version) = (text("kind"), text("apiVersion"));
        let Value::Object(spec) = &entry["spec"] else {
            self.unreadable.push("the entry has no spec".into());
            return;
        };
        // One field, named after kind and version: hashedRekordV002, dsseV002.
        let Some(spec) = spec.values().next().filter(|_| spec.len() == 1) else {
            self.unreadable.push("the entry's spec is not of one kind".into());
            return;
        };
        for data in [&spec["data"], &spec["payloadHash"]] {
            if data.is_null() {
                continue;
            }
            match bytes(&data["digest"]) {
                Some(digest) => {
                    let algorithm = data["algorithm"].as_str().unwrap_or_default();
                    let algorithm = algorithm.to_ascii_lowercase().replace("sha2_", "sha");
                    self.digests.push(Hashed { algorithm, digest });
                }
                None => self.unreadable.push("a digest cannot be read".into()),
            }
        }
        match (&spec["signature"], &spec["signatures"]) {
            (Value::Object(_), _) => self.read_signature(&spec["signature"]),
            (_, Value::Array(all)) => all.iter().for_each(|one| self.read_signature(one)),
            _ => self.unreadable.push("the entry has no signature".into()),
        }
    }

    fn read_signature(&mut self, signature: &Value) {
        let verifier = &signature["verifier"];
        let details = verifier["keyDetails"].as_str().unwrap_or_default().to_owned();
        let content = bytes(&signature["content"]).unwrap_or_default();
        if let Some(der) = bytes(&verifier["x509Certificate"]["rawBytes"]) {
            match CertificateView::from_certificate(&der) {
                Some(view) => self.signers.push(Signed::of(view, details, content)),
                None => self.unreadable.push("a certificate cannot be read".into()),
            }
        } else if let Some(spki) = bytes(&verifier["publicKey"]["rawBytes"]) {
            self.signers.push(Signed {
                fingerprint: sha256(&spki),
                spki,
                certificate: None,
                details,
                signature: content,
            });
        } else {
            self.unreadable.push("a signature has neither key nor certificate".into());
        }
    }

    /// A `TimestampedEntry` (RFC 6962 section 3.4).
    fn read_timestamped(&mut self, body: &[u8]) {
        let Some(parts) = timestamped_entry(body) else {
            self.unreadable.push("the entry is no TimestampedEntry".into());
            return;
        };
        self.time = Some(parts.timestamp);
        self.kind = if parts.precertificate { "precertificate" } else { "certificate" }.into();
        self.issuer_key_hash = parts.issuer_key_hash.copied();
        let view = if parts.precertificate {
            CertificateView::from_tbs(parts.signed)
        } else {
            CertificateView::from_certificate(parts.signed)
        };
        match view {
            Some(view) => self.signers.push(Signed::of(view, String::new(), Vec::new())),
            None => self.unreadable.push("the certificate cannot be read".into()),
        }
    }

    /// All names that are known of who has signed.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &San> {
        self.signers.iter().filter_map(|s| s.certificate.as_ref()).flat_map(|c| &c.sans)
    }
}

impl Signed {
    fn of(view: CertificateView, details: String, signature: Vec<u8>) -> Self {
        Self {
            fingerprint: sha256(&view.spki),
            spki: view.spki.clone(),
            certificate: Some(view),
            details,
            signature,
        }
    }
}

/// Base64 as protobuf's JSON form writes it.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(Digest::of(HashAlgorithm::Sha256, bytes).as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The entries of Rekor's own logs that `signature/entry.rs` tests with.
    #[test]
    fn entries_of_rekor_are_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let mut certificates = 0;
        for file in std::fs::read_dir(folder).unwrap().flatten() {
            if file.path().extension().is_none_or(|e| e != "json") {
                continue;
            }
            let vector: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let body = bytes(&vector["entry"]["canonicalizedBody"]).unwrap();
            let tile = [&(body.len() as u16).to_be_bytes()[..], &body].concat();
            let (entry, _) = Format::Entries.split(&tile).unwrap();
            let decoded = Decoded::new(&entry, Format::Entries);
            assert!(decoded.unreadable.is_empty(), "{decoded:?}");
            assert_eq!((&*decoded.kind, &*decoded.version), ("hashedrekord", "0.0.2"));
            assert_eq!((&*decoded.digests[0].algorithm, decoded.digests[0].digest.len()), ("sha256", 32));
            assert_eq!(decoded.signers.len(), 1);
            if let Some(certificate) = &decoded.signers[0].certificate {
                certificates += 1;
                assert!(
                    !certificate.sans.is_empty() && !certificate.not_before.is_empty(),
                    "{certificate:?}"
                );
                let issuer =
                    certificate.extensions.iter().find(|e| e.oid == "1.3.6.1.4.1.57264.1.8").unwrap();
                assert!(issuer.text.as_deref().unwrap().starts_with("https://"), "{issuer:?}");
                assert_eq!(certificate.issuer_v2().unwrap(), issuer.text.as_deref().unwrap());
            }
        }
        assert!(certificates > 0, "no entry with a certificate was found");
    }

    proptest! {
        #[test]
        fn foreign_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..2) {
            let tile = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
            let _ = Decoded::new(&Format::Entries.split(&tile).unwrap().0, Format::Entries);
            let length = &(bytes.len() as u32).to_be_bytes()[1..];
            let issuer: &[u8] = if kind == 1 { &[7; 32] } else { &[] };
            let leaf = [&[0; 8][..], &[0, kind], issuer, length, &bytes, &[0, 0]].concat();
            let tail: &[u8] = if kind == 1 { &[0, 0, 0, 0, 0] } else { &[0, 0] };
            let leaf = [&leaf[..], tail].concat();
            let (entry, _) = Format::Certificates.split(&leaf).unwrap();
            let _ = Decoded::new(&entry, Format::Certificates);
        }
    }
}
