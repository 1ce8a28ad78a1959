//! Signatures: ECDSA ones are `r ‖ s`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signer_core::{Digest, HashAlgorithm, Input, Signature, SignatureAlgorithm};

use super::{Azure, Problem, Request, bad_parameter, keys::Version};
use crate::{engine::Shared, fault::FaultKind, material::Signed};

use HashAlgorithm::{Sha256, Sha384, Sha512};
use SignatureAlgorithm::{Ecdsa, RsaPkcs1, RsaPss};

const ALGORITHMS: [(&str, SignatureAlgorithm); 9] = [
    ("ES256", Ecdsa(Sha256)),
    ("ES384", Ecdsa(Sha384)),
    ("ES512", Ecdsa(Sha512)),
    ("RS256", RsaPkcs1(Sha256)),
    ("RS384", RsaPkcs1(Sha384)),
    ("RS512", RsaPkcs1(Sha512)),
    ("PS256", RsaPss(Sha256)),
    ("PS384", RsaPss(Sha384)),
    ("PS512", RsaPss(Sha512)),
];

/// What `sign` and `verify` have in common.
struct Asked {
    name: String,
    version: Version,
    algorithm: SignatureAlgorithm,
    digest: Vec<u8>,
}

impl Asked {
    fn read(azure: &Azure, request: &Request<'_>, operation: &str, field: &str) -> Result<Self, Problem> {
        let (name, version) = azure.vault().version(request.name, request.version)?;
        version.allows(operation)?;
        let alg = request.body["alg"].as_str().unwrap_or_default();
        let found = ALGORITHMS.iter().find(|(name, _)| *name == alg).map(|(_, a)| *a);
        let algorithm = found.ok_or_else(|| {
            bad_parameter(format!("Property alg has invalid value {alg}\r\nInvalid algorithm."))
        })?;
        let key_type = version.material.key_type();
        let ecdsa = matches!(algorithm, Ecdsa(_));
        if !key_type.algorithms().contains(&algorithm) || ecdsa && algorithm != key_type.default_algorithm() {
            return Err(bad_parameter(format!(
                "Key and signing algorithm are incompatible. Key {key_type}, algorithm {alg}."
            )));
        }
        let value = request.body[field].as_str().unwrap_or_default();
        let digest = URL_SAFE_NO_PAD
            .decode(value)
            .map_err(|_| bad_parameter(format!("Property {field} has invalid value: it is not base64url")))?;
        let len = algorithm.prehash().map_or(0, HashAlgorithm::len);
        if digest.len() != len {
            return Err(bad_parameter(format!(
                "Invalid length of '{field}': {} bytes. {alg} requires {len} bytes, encoded with base64url.",
                digest.len()
            )));
        }
        Ok(Self { name, version, algorithm, digest })
    }

    fn kid(&self, request: &Request<'_>) -> String {
        let version = match request.call.twist {
            Some(FaultKind::WrongVersion) => "4711".repeat(8),
            _ => self.version.id.clone(),
        };
        format!("{}/keys/{}/{version}", request.vault(), self.name)
    }
}

pub(super) fn sign(shared: &Shared, request: &Request<'_>) -> Result<Value, Problem> {
    let asked = Asked::read(&shared.azure, request, "sign", "value")?;
    let key = match request.call.twist {
        Some(FaultKind::ChangedKey) => shared.stranger(asked.version.material.key_type()),
        _ => asked.version.material.clone(),
    };
    let signature = key.sign(asked.algorithm, Signed::Digest(&asked.digest));
    let mut signature = signature.ok_or_else(|| bad_parameter("The value cannot be signed"))?;
    if matches!(asked.algorithm, Ecdsa(_)) {
        let raw = Signature::new(signature).to_ecdsa_raw(key.key_type());
        signature = raw.map_err(|e| bad_parameter(e.what()))?;
    }
    if request.call.twist == Some(FaultKind::WrongSignature) {
        let last = signature.len() - 1;
        signature[last] ^= 1;
    }
    Ok(json!({"kid": asked.kid(request), "value": URL_SAFE_NO_PAD.encode(signature)}))
}

pub(super) fn verify(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let asked = Asked::read(azure, request, "verify", "digest")?;
    let bytes = URL_SAFE_NO_PAD
        .decode(request.body["value"].as_str().unwrap_or_default())
        .map_err(|_| bad_parameter("Property value has invalid value: it is not base64url"))?;
    let signature = match asked.algorithm {
        Ecdsa(_) => Signature::from_ecdsa_raw(&bytes).map_err(|e| bad_parameter(e.what()))?,
        _ => Signature::new(bytes),
    };
    let hash = asked.algorithm.prehash().unwrap_or(Sha256);
    let digest = Digest::new(hash, &asked.digest).map_err(|e| bad_parameter(e.what()))?;
    let public = asked.version.material.public();
    let good = public.verify(asked.algorithm, &Input::Digest(digest), signature.as_bytes()).is_ok();
    Ok(json!({"value": good}))
}
