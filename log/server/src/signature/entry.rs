//! From a request to the entry that is logged: checked, and in its canonical form, to the byte.

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::{Digest, Error, HashAlgorithm, Input, Result};
use signer_log_engine::MAX_ENTRY;

use super::{
    Options,
    pb::rekor::v2::{
        CreateEntryRequest, DsseRequestV002, HashedRekordRequestV002, create_entry_request::Spec,
    },
    verifier::{Verifier, hash_name},
};

/// The most signatures of one envelope.
const MAX_SIGNATURES: usize = 16;

/// What is logged.
#[derive(Debug)]
pub(crate) struct LogEntry {
    /// `hashedrekord` or `dsse`.
    pub(crate) kind: &'static str,
    /// The leaf: the JSON form of `Entry`, canonical as RFC 8785 says. Its strings are base64 and fixed names, so that
    /// nothing in them has to be escaped.
    pub(crate) body: Vec<u8>,
}

/// The version of both kinds.
pub(crate) const VERSION: &str = "0.0.2";

impl LogEntry {
    /// Checks all that the request says, and writes the entry.
    pub(super) fn from_request(request: CreateEntryRequest, options: &Options) -> Result<Self> {
        let (kind, spec) = match request.spec {
            Some(Spec::HashedRekordRequestV002(request)) => {
                ("hashedrekord", hashed_rekord(request, options)?)
            }
            Some(Spec::DsseRequestV002(request)) if options.dsse => ("dsse", dsse(request, options)?),
            Some(Spec::DsseRequestV002(_)) => {
                return Err(Error::bad_request("this log takes on no dsse requests")
                    .next("send a hashedRekordRequestV002 with the digest of the envelope's PAE"));
            }
            None => {
                return Err(
                    Error::bad_request("the request has no entry").next("send a hashedRekordRequestV002")
                );
            }
        };
        let body = format!(r#"{{"apiVersion":"{VERSION}","kind":"{kind}","spec":{{{spec}}}}}"#).into_bytes();
        if body.len() > MAX_ENTRY {
            return Err(Error::bad_request(format!(
                "the entry has {} bytes; a log entry has at most {MAX_ENTRY}",
                body.len()
            )));
        }
        Ok(Self { kind, body })
    }
}

fn hashed_rekord(request: HashedRekordRequestV002, options: &Options) -> Result<String> {
    let signature = request.signature.ok_or_else(|| Error::bad_request("the request has no signature"))?;
    if signature.content.is_empty() {
        return Err(Error::bad_request("the signature is empty"));
    }
    if request.digest.is_empty() {
        return Err(Error::bad_request("the digest is empty"));
    }
    let verifier = Verifier::read(signature.verifier, &options.algorithms, false)?;
    let hash = verifier
        .algorithm
        .prehash()
        .ok_or_else(|| Error::bad_request("this kind of key signs no digest").next("use PKIX_ED25519_PH"))?;
    let digest = Digest::new(hash, &request.digest)?;
    verifier.verify(&Input::Digest(digest), &signature.content)?;
    Ok(format!(
        r#""hashedRekordV002":{{"data":{},"signature":{}}}"#,
        data(hash, digest.as_bytes()),
        signed(&signature.content, &verifier)
    ))
}

fn dsse(request: DsseRequestV002, options: &Options) -> Result<String> {
    let envelope = request.envelope.ok_or_else(|| Error::bad_request("the request has no envelope"))?;
    if envelope.signatures.is_empty() {
        return Err(Error::bad_request("the envelope has no signature"));
    }
    if request.verifiers.is_empty() {
        return Err(Error::bad_request("the request has no verifier"));
    }
    if envelope.signatures.len() > MAX_SIGNATURES || request.verifiers.len() > MAX_SIGNATURES {
        return Err(Error::bad_request(format!(
            "the envelope has more than {MAX_SIGNATURES} signatures or verifiers"
        )));
    }
    let verifiers = request.verifiers.into_iter().map(|v| Verifier::read(Some(v), &options.algorithms, true));
    let verifiers = verifiers.collect::<Result<Vec<_>>>()?;
    let message = Input::Message(pae(&envelope.payload_type, &envelope.payload).into());
    let mut signatures = Vec::new();
    for signature in &envelope.signatures {
        let verifier =
            verifiers.iter().find(|v| v.verify(&message, &signature.sig).is_ok()).ok_or_else(|| {
                Error::bad_request("a signature of the envelope verifies with none of the verifiers")
            })?;
        signatures.push(signed(&signature.sig, verifier));
    }
    let payload = Digest::of(HashAlgorithm::Sha256, &envelope.payload);
    Ok(format!(
        r#""dsseV002":{{"payloadHash":{},"signatures":[{}]}}"#,
        data(HashAlgorithm::Sha256, payload.as_bytes()),
        signatures.join(",")
    ))
}

fn data(hash: HashAlgorithm, digest: &[u8]) -> String {
    format!(r#"{{"algorithm":"{}","digest":"{}"}}"#, hash_name(hash), STANDARD.encode(digest))
}

fn signed(signature: &[u8], verifier: &Verifier) -> String {
    format!(r#"{{"content":"{}","verifier":{}}}"#, STANDARD.encode(signature), verifier.to_json())
}

/// DSSE's pre-authentication encoding.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend(payload);
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use signer_core::PublicKey;
    use signer_log_engine::{Checkpoint, Hash, NoteKey, leaf_hash, verify_inclusion};

    use super::*;
    use crate::signature::{Algorithms, json};

    /// Entries of Rekor's own logs: their requests, put together again, give the same bytes, and the log's proof is of them.
    #[test]
    fn entries_are_those_of_rekor_to_the_byte() {
        let options = Options {
            algorithms: Algorithms::default(),
            dsse: false,
            answer_duplicates: false,
            patience: Duration::ZERO,
        };
        let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let hash = |value: &Value| Hash::try_from(bytes(value)).unwrap();
        let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let mut seen = 0;
        for file in std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .filter(|f| f.path().extension().is_some_and(|e| e == "json"))
        {
            let vector: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let (entry, proof) = (&vector["entry"], &vector["entry"]["inclusionProof"]);
            let canonical = bytes(&entry["canonicalizedBody"]);
            let body: Value = serde_json::from_slice(&canonical).unwrap();
            let spec = &body["spec"]["hashedRekordV002"];
            let request = json!({"hashedRekordRequestV002": {"digest": spec["data"]["digest"], "signature": spec["signature"]}});
            let ours = LogEntry::from_request(json::read(request.to_string().as_bytes()).unwrap(), &options)
                .unwrap();
            assert_eq!(String::from_utf8(ours.body.clone()).unwrap(), String::from_utf8(canonical).unwrap());
            let note = proof["checkpoint"]["envelope"].as_str().unwrap();
            let key = PublicKey::from_der(&bytes(&vector["publicKey"])).unwrap();
            let key = NoteKey::of_log(note.lines().next().unwrap(), key).unwrap();
            assert_eq!(*key.id(), hash(&entry["logId"]["keyId"]), "the log's ID");
            let checkpoint = Checkpoint::verified(note.as_bytes(), &key).unwrap();
            let hashes: Vec<_> = proof["hashes"].as_array().unwrap().iter().map(hash).collect();
            let index = number(&proof["logIndex"]);
            verify_inclusion(&leaf_hash(&ours.body), index, checkpoint.size, &hashes, &checkpoint.root)
                .unwrap();
            seen += 1;
        }
        assert!(seen >= 2, "only {seen} entries were found");
    }
}
