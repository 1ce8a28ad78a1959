//! Key types and algorithms of the service.

use azure_security_keyvault_keys::models::{
    CurveName, JsonWebKey, KeyType as AzureType, SignatureAlgorithm as Azure,
};
use signer_core::{
    Error,
    HashAlgorithm::{Sha256, Sha384, Sha512},
    KeyType, PublicKey, Result, SignatureAlgorithm,
    SignatureAlgorithm::{Ecdsa, RsaPkcs1, RsaPss},
};

/// Kinds of keys that are made.
pub(crate) const GENERATES: [KeyType; 6] = [
    KeyType::EcdsaP256,
    KeyType::EcdsaP384,
    KeyType::EcdsaP521,
    KeyType::Rsa2048,
    KeyType::Rsa3072,
    KeyType::Rsa4096,
];

/// How the service calls an algorithm.
pub(crate) fn to_azure(algorithm: SignatureAlgorithm) -> Option<Azure> {
    Some(match algorithm {
        Ecdsa(Sha256) => Azure::Es256,
        Ecdsa(Sha384) => Azure::Es384,
        Ecdsa(Sha512) => Azure::Es512,
        RsaPkcs1(Sha256) => Azure::Rs256,
        RsaPkcs1(Sha384) => Azure::Rs384,
        RsaPkcs1(Sha512) => Azure::Rs512,
        RsaPss(Sha256) => Azure::Ps256,
        RsaPss(Sha384) => Azure::Ps384,
        RsaPss(Sha512) => Azure::Ps512,
        _ => return None,
    })
}

/// What a kind of key signs with: an elliptic curve with its own hash only.
pub(crate) fn of(key_type: KeyType) -> Vec<SignatureAlgorithm> {
    match key_type.rsa_bits() {
        Some(_) => key_type.algorithms().to_vec(),
        None => vec![key_type.default_algorithm()],
    }
}

/// What the service is told to make.
pub(crate) struct Recipe {
    pub(crate) kty: AzureType,
    pub(crate) curve: Option<CurveName>,
    pub(crate) bits: Option<i32>,
}

/// The recipe of a kind of key.
pub(crate) fn recipe(key_type: KeyType, hsm: bool) -> Option<Recipe> {
    let curve = match key_type {
        KeyType::EcdsaP256 => Some(CurveName::P256),
        KeyType::EcdsaP384 => Some(CurveName::P384),
        KeyType::EcdsaP521 => Some(CurveName::P521),
        _ => None,
    };
    let bits = key_type.rsa_bits().and_then(|bits| i32::try_from(bits).ok());
    let kty = match (&curve, bits, hsm) {
        (Some(_), _, false) => AzureType::Ec,
        (Some(_), _, true) => AzureType::EcHsm,
        (None, Some(_), false) => AzureType::Rsa,
        (None, Some(_), true) => AzureType::RsaHsm,
        (None, None, _) => return None,
    };
    Some(Recipe { kty, curve, bits })
}

/// The public key in a JSON web key (RFC 7518 section 6).
pub(crate) fn public_key(key: &JsonWebKey) -> Result<PublicKey> {
    let unsupported = |what: String| Error::unsupported(format_args!("use {what}"), "this backend");
    match key.kty.as_ref() {
        Some(AzureType::Ec | AzureType::EcHsm) => {
            let key_type = match &key.crv {
                Some(CurveName::P256) => KeyType::EcdsaP256,
                Some(CurveName::P384) => KeyType::EcdsaP384,
                Some(CurveName::P521) => KeyType::EcdsaP521,
                other => return Err(unsupported(format!("a key on the curve {other:?}"))),
            };
            let len = key_type.ecdsa_field_len().unwrap_or_default();
            let mut point = vec![4];
            for coordinate in [&key.x, &key.y] {
                let bytes = coordinate.as_deref().unwrap_or_default();
                // Some services leave out zeros at the front.
                let short = len
                    .checked_sub(bytes.len())
                    .ok_or_else(|| Error::internal("a coordinate is too long"))?;
                point.extend(std::iter::repeat_n(0, short));
                point.extend(bytes);
            }
            PublicKey::from_ec_point(key_type, &point)
        }
        Some(AzureType::Rsa | AzureType::RsaHsm) => {
            PublicKey::from_rsa(key.n.as_deref().unwrap_or_default(), key.e.as_deref().unwrap_or_default())
        }
        other => Err(unsupported(format!("a key of type {other:?}"))),
    }
}
