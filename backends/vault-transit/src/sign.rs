//! What is sent to sign, and how the answer is read.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use signer_core::{Error, HashAlgorithm, Input, Result, SignRequest, Signature, SignatureAlgorithm};

use crate::{fault, http::Answer, key::Version};

/// The body of `POST sign/NAME`.
///
/// Digests are signed as they are (`prehashed`). The scheme of RSA and the length of its salt are always named: what Vault
/// takes by itself is PSS with the longest salt, which nobody else expects.
pub(crate) fn body(request: &SignRequest, version: Version) -> Result<Bytes> {
    use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};
    let parameters = match request.algorithm() {
        Ecdsa(hash) => {
            format!(r#""prehashed":true,"hash_algorithm":"{}","marshaling_algorithm":"asn1","#, name(hash))
        }
        RsaPkcs1(hash) => {
            format!(r#""prehashed":true,"hash_algorithm":"{}","signature_algorithm":"pkcs1v15","#, name(hash))
        }
        RsaPss(hash) => format!(
            r#""prehashed":true,"hash_algorithm":"{}","signature_algorithm":"pss","salt_length":"hash","#,
            name(hash)
        ),
        Ed25519 | MlDsa => String::new(),
        Ed25519ph => return Err(Error::unsupported("sign with ed25519ph", "Vault")),
    };
    let input = match (request.to_digest(), request.input()) {
        (Some(digest), _) => STANDARD.encode(digest.as_bytes()),
        (None, Input::Message(message)) => STANDARD.encode(message),
        (None, Input::Digest(_)) => return Err(Error::internal("a digest where the message is signed")),
    };
    // Nothing here needs an escape.
    Ok(format!(r#"{{{parameters}"key_version":{version},"input":"{input}"}}"#).into())
}

/// Reads `vault:vN:BASE64`. The version must be the one that was asked for.
pub(crate) fn read(answer: &Answer, version: Version) -> Result<Signature> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        signature: String,
    }
    let text = answer.read::<Body>()?.data.signature;
    let mut parts = text.split(':');
    let (Some("vault"), Some(made_by), Some(encoded), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(fault::of_nonsense("Vault gave a signature that is not vault:vN:base64"));
    };
    if made_by.strip_prefix('v').and_then(|n| n.parse().ok()) != Some(version) {
        return Err(Error::internal(format!(
            "Vault signed with another version of the key than the {version} that was asked for"
        )));
    }
    let signature = STANDARD
        .decode(encoded)
        .map_err(|_| fault::of_nonsense("Vault gave a signature that is not vault:vN:base64"))?;
    Ok(Signature::new(signature))
}

fn name(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Sha256 => "sha2-256",
        HashAlgorithm::Sha384 => "sha2-384",
        HashAlgorithm::Sha512 => "sha2-512",
    }
}

#[cfg(test)]
mod tests {
    use signer_core::Digest;

    use super::*;

    #[test]
    fn bodies_are_json_with_every_parameter_named() {
        for algorithm in SignatureAlgorithm::ALL {
            let request = match algorithm.prehash() {
                Some(hash) => SignRequest::digest(algorithm, Digest::of(hash, b"x")).unwrap(),
                None => SignRequest::message(algorithm, "x"),
            };
            if algorithm == SignatureAlgorithm::Ed25519ph {
                assert!(body(&request, 1).is_err());
                continue;
            }
            let value: serde_json::Value = serde_json::from_slice(&body(&request, 7).unwrap()).unwrap();
            assert_eq!(value["key_version"], 7);
            assert_eq!(value["prehashed"].as_bool(), algorithm.prehash().map(|_| true), "{algorithm}");
            let pss = matches!(algorithm, SignatureAlgorithm::RsaPss(_));
            assert_eq!(value["salt_length"].as_str(), pss.then_some("hash"), "{algorithm}");
        }
    }
}
