//! Google's algorithms: each fixes the kind of key and how it signs.

use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionAlgorithm as Google;
use signer_core::{
    HashAlgorithm::{Sha256, Sha384, Sha512},
    KeyType, SignatureAlgorithm,
    SignatureAlgorithm::{Ecdsa, Ed25519, MlDsa, RsaPkcs1, RsaPss},
};

use crate::{ProtectionLevel, RsaPadding};

/// Every algorithm of the service that the house knows. Those of new keys come first for their kind.
const ALL: [(Google, KeyType, SignatureAlgorithm); 14] = [
    (Google::EcSignP256Sha256, KeyType::EcdsaP256, Ecdsa(Sha256)),
    (Google::EcSignP384Sha384, KeyType::EcdsaP384, Ecdsa(Sha384)),
    (Google::RsaSignPkcs12048Sha256, KeyType::Rsa2048, RsaPkcs1(Sha256)),
    (Google::RsaSignPkcs13072Sha256, KeyType::Rsa3072, RsaPkcs1(Sha256)),
    (Google::RsaSignPkcs14096Sha256, KeyType::Rsa4096, RsaPkcs1(Sha256)),
    (Google::RsaSignPkcs14096Sha512, KeyType::Rsa4096, RsaPkcs1(Sha512)),
    (Google::RsaSignPss2048Sha256, KeyType::Rsa2048, RsaPss(Sha256)),
    (Google::RsaSignPss3072Sha256, KeyType::Rsa3072, RsaPss(Sha256)),
    (Google::RsaSignPss4096Sha256, KeyType::Rsa4096, RsaPss(Sha256)),
    (Google::RsaSignPss4096Sha512, KeyType::Rsa4096, RsaPss(Sha512)),
    (Google::EcSignEd25519, KeyType::Ed25519, Ed25519),
    (Google::PqSignMlDsa44, KeyType::MlDsa44, MlDsa),
    (Google::PqSignMlDsa65, KeyType::MlDsa65, MlDsa),
    (Google::PqSignMlDsa87, KeyType::MlDsa87, MlDsa),
];

/// The kind of key and how it signs; `None` for what does not sign, or signs in a way that the house does not know.
pub(crate) fn known(algorithm: &Google) -> Option<(KeyType, SignatureAlgorithm)> {
    ALL.iter().find(|(google, ..)| google == algorithm).map(|(_, key_type, signs)| (*key_type, *signs))
}

/// The algorithm of a new key.
pub(crate) fn for_new(key_type: KeyType, level: ProtectionLevel, padding: RsaPadding) -> Option<Google> {
    let fits = |signs: &SignatureAlgorithm| match (signs, padding) {
        (RsaPkcs1(_), RsaPadding::Pss) | (RsaPss(_), RsaPadding::Pkcs1) => false,
        // The modules do no post-quantum signatures yet.
        (MlDsa, _) => level == ProtectionLevel::Software,
        _ => true,
    };
    ALL.iter().find(|(_, t, signs)| *t == key_type && fits(signs)).map(|(google, ..)| google.clone())
}

/// Kinds of keys that are made.
pub(crate) fn generates(level: ProtectionLevel) -> Vec<KeyType> {
    KeyType::ALL.into_iter().filter(|t| for_new(*t, level, RsaPadding::Pkcs1).is_some()).collect()
}

/// Whether a public key of it is to be had only in the form of FIPS 204.
pub(crate) fn is_post_quantum(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_sign_as_asked() {
        for (padding, expected) in [(RsaPadding::Pkcs1, RsaPkcs1(Sha256)), (RsaPadding::Pss, RsaPss(Sha256))]
        {
            let algorithm = for_new(KeyType::Rsa4096, ProtectionLevel::Hsm, padding).unwrap();
            assert_eq!(known(&algorithm), Some((KeyType::Rsa4096, expected)));
        }
        assert_eq!(generates(ProtectionLevel::Software).len(), 9);
        assert_eq!(generates(ProtectionLevel::Hsm).len(), 6);
        assert!(ALL.iter().all(|(_, t, signs)| t.algorithms().contains(signs)));
    }
}
