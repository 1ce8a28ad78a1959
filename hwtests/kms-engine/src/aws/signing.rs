//! Public keys, signatures, verification.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signer_core::{Digest, HashAlgorithm, Input, KeyType, SignatureAlgorithm};

use super::{Aws, Exception, Request, exception, keys::Key, validation};
use crate::{
    call::Call,
    engine::Shared,
    fault::FaultKind,
    material::{Material, Signed},
};

use HashAlgorithm::{Sha256, Sha384, Sha512};
use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};

/// `SigningAlgorithmSpec`.
const ALGORITHMS: [(&str, SignatureAlgorithm); 12] = [
    ("RSASSA_PSS_SHA_256", RsaPss(Sha256)),
    ("RSASSA_PSS_SHA_384", RsaPss(Sha384)),
    ("RSASSA_PSS_SHA_512", RsaPss(Sha512)),
    ("RSASSA_PKCS1_V1_5_SHA_256", RsaPkcs1(Sha256)),
    ("RSASSA_PKCS1_V1_5_SHA_384", RsaPkcs1(Sha384)),
    ("RSASSA_PKCS1_V1_5_SHA_512", RsaPkcs1(Sha512)),
    ("ECDSA_SHA_256", Ecdsa(Sha256)),
    ("ECDSA_SHA_384", Ecdsa(Sha384)),
    ("ECDSA_SHA_512", Ecdsa(Sha512)),
    ("ED25519_SHA_512", Ed25519),
    ("ED25519_PH_SHA_512", Ed25519ph),
    ("ML_DSA_SHAKE_256", MlDsa),
];

/// Bytes of the longest message with `MessageType` RAW.
const LONGEST: usize = 4096;

/// What a kind of key signs with: ECDSA keys with their curve's own hash only.
pub(super) fn algorithms(key_type: KeyType) -> Vec<&'static str> {
    let fits = |a: SignatureAlgorithm| match a {
        Ecdsa(_) => a == key_type.default_algorithm(),
        _ => key_type.algorithms().contains(&a),
    };
    ALGORITHMS.iter().filter(|(_, a)| fits(*a)).map(|(name, _)| *name).collect()
}

pub(super) fn public_key(shared: &Shared, call: &Call, request: &Request) -> Result<Value, Exception> {
    let key = shared.aws.state().find(request.required("KeyId")?)?.clone();
    key.must_be_enabled()?;
    let material = material(shared, call, &key);
    Ok(json!({
        "KeyId": answering(call, &key),
        "PublicKey": STANDARD.encode(material.public().as_der()),
        "CustomerMasterKeySpec": key.spec,
        "KeySpec": key.spec,
        "KeyUsage": "SIGN_VERIFY",
        "SigningAlgorithms": algorithms(key.material.key_type()),
    }))
}

pub(super) fn sign(shared: &Shared, call: &Call, request: &Request) -> Result<Value, Exception> {
    let asked = Asked::read(&shared.aws, request)?;
    let material = material(shared, call, &asked.key);
    let mut signature = material
        .sign(asked.algorithm, asked.signed())
        .ok_or_else(|| validation("The message cannot be signed like that"))?;
    if call.twist == Some(FaultKind::WrongSignature) {
        let last = signature.len() - 1;
        signature[last] ^= 1;
    }
    Ok(json!({
        "KeyId": answering(call, &asked.key),
        "Signature": STANDARD.encode(signature),
        "SigningAlgorithm": asked.name,
    }))
}

pub(super) fn verify(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let asked = Asked::read(aws, request)?;
    let signature = request.bytes("Signature", 6144)?;
    let input = match asked.digest {
        false => Input::Message(asked.message.clone().into()),
        true => {
            let hash =
                asked.algorithm.prehash().ok_or_else(|| validation("This algorithm takes no digest"))?;
            Input::Digest(Digest::new(hash, &asked.message).map_err(|e| validation(e.what()))?)
        }
    };
    if asked.key.material.public().verify(asked.algorithm, &input, &signature).is_err() {
        return Err(exception("KMSInvalidSignatureException", ""));
    }
    Ok(json!({"KeyId": asked.key.arn, "SignatureValid": true, "SigningAlgorithm": asked.name}))
}

/// What `Sign` and `Verify` have in common.
struct Asked {
    key: Key,
    name: &'static str,
    algorithm: SignatureAlgorithm,
    message: Vec<u8>,
    digest: bool,
}

impl Asked {
    fn read(aws: &Aws, request: &Request) -> Result<Self, Exception> {
        let key_id = request.required("KeyId")?;
        let names: Vec<_> = ALGORITHMS.iter().map(|a| a.0).collect();
        let wanted = request.choice("SigningAlgorithm", &names, None)?;
        let kind = request.choice("MessageType", &["RAW", "DIGEST", "EXTERNAL_MU"], Some("RAW"))?;
        let message = request.bytes("Message", LONGEST)?;
        let key = aws.state().find(key_id)?.clone();
        key.must_be_enabled()?;
        let known = ALGORITHMS.into_iter().find(|(name, _)| *name == wanted);
        let known = known.filter(|(name, _)| algorithms(key.material.key_type()).contains(name));
        let Some((name, algorithm)) = known else {
            return Err(exception(
                "InvalidKeyUsageException",
                format!("Algorithm {wanted} is incompatible with key spec {}.", key.spec),
            ));
        };
        let digest = match (algorithm, kind) {
            (Ed25519 | MlDsa, "DIGEST") | (Ed25519ph, "RAW") => {
                return Err(validation(format!(
                    "MessageType {kind} is not valid for SigningAlgorithm {name}"
                )));
            }
            // An external mu is signed as it is; nothing here needs it yet.
            (_, "EXTERNAL_MU") => {
                return Err(validation(format!(
                    "MessageType {kind} is not valid for SigningAlgorithm {name}"
                )));
            }
            (_, kind) => kind == "DIGEST",
        };
        if let Some(hash) = algorithm.prehash().filter(|h| digest && h.len() != message.len()) {
            return Err(validation(format!(
                "Digest is invalid length for algorithm {name}: {} bytes",
                hash.len()
            )));
        }
        Ok(Self { key, name, algorithm, message, digest })
    }

    fn signed(&self) -> Signed<'_> {
        if self.digest { Signed::Digest(&self.message) } else { Signed::Message(&self.message) }
    }
}

/// The key that answers: another one, on command.
fn material(shared: &Shared, call: &Call, key: &Key) -> Arc<Material> {
    match call.twist {
        Some(FaultKind::ChangedKey) => shared.stranger(key.material.key_type()),
        _ => key.material.clone(),
    }
}

fn answering(call: &Call, key: &Key) -> String {
    match call.twist {
        Some(FaultKind::WrongVersion) => key.arn.replace(&key.id, "00000000-0000-4000-8000-000000000000"),
        _ => key.arn.clone(),
    }
}
