//! Public keys out of a token's attributes, which modules write in different ways.

use const_oid::{ObjectIdentifier, db};
use cryptoki_sys as sys;
use der::{
    Decode,
    asn1::{OctetStringRef, PrintableStringRef},
};
use signer_core::{Error, ErrorKind, KeyType, PublicKey, Result};
use sys::{CK_ATTRIBUTE_TYPE, CK_KEY_TYPE};

use crate::{
    objects::Values,
    raw::{Failure, Object},
    token::Inside,
};

/// The types of keys that are understood.
pub(crate) const KEY_TYPES: [CK_KEY_TYPE; 4] =
    [sys::CKK_EC, sys::CKK_RSA, sys::CKK_EC_EDWARDS, sys::CKK_ML_DSA];

/// The attributes that hold a public key of this type, for [`from_values`]. Empty for a type that is not understood.
pub(crate) fn attributes(key_type: CK_KEY_TYPE) -> &'static [CK_ATTRIBUTE_TYPE] {
    match key_type {
        sys::CKK_RSA => &[sys::CKA_MODULUS, sys::CKA_PUBLIC_EXPONENT],
        sys::CKK_EC | sys::CKK_EC_EDWARDS => &[sys::CKA_EC_PARAMS, sys::CKA_EC_POINT],
        sys::CKK_ML_DSA => &[sys::CKA_PARAMETER_SET, sys::CKA_VALUE],
        _ => &[],
    }
}

/// Puts a public key together; the error says why it is none that can be used.
pub(crate) fn from_values(key_type: CK_KEY_TYPE, values: &mut Values) -> Result<PublicKey> {
    match key_type {
        sys::CKK_RSA => rsa(&values.bytes(), &values.bytes()),
        sys::CKK_EC | sys::CKK_EC_EDWARDS => elliptic(&values.bytes(), &values.bytes()),
        sys::CKK_ML_DSA => ml_dsa(values.number(), &values.bytes()),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("keys of PKCS#11 type {other:#x} are not supported"),
        )
        .next(format!("supported are {}", KeyType::ALL.map(KeyType::name).join(", ")))),
    }
}

/// Reads the public half out of a private key object, as far as it has it: an RSA key does.
pub(crate) fn of_private(
    inside: &Inside<'_>,
    object: Object,
    key_type: CK_KEY_TYPE,
) -> Result<Result<PublicKey>, Failure> {
    Ok(from_values(key_type, &mut inside.read(object, attributes(key_type))?))
}

/// The public key that PKCS#11 3.0 keeps with any key object.
pub(crate) fn info(inside: &Inside<'_>, object: Object) -> Result<Option<PublicKey>, Failure> {
    let spki = inside.read(object, &[sys::CKA_PUBLIC_KEY_INFO])?.bytes();
    Ok(PublicKey::from_der(&spki).ok())
}

fn rsa(modulus: &[u8], public_exponent: &[u8]) -> Result<PublicKey> {
    if modulus.is_empty() || public_exponent.is_empty() {
        return Err(unreadable());
    }
    PublicKey::from_rsa(modulus, public_exponent)
}

fn elliptic(parameters: &[u8], point: &[u8]) -> Result<PublicKey> {
    if parameters.is_empty() || point.is_empty() {
        return Err(unreadable());
    }
    let Some(key_type) = curve(parameters) else {
        return Err(Error::new(ErrorKind::Unsupported, "keys on this curve are not supported")
            .next("supported are P-256, P-384, P-521 and Ed25519"));
    };
    match key_type.ecdsa_field_len() {
        Some(len) => PublicKey::from_ec_point(key_type, unwrapped(point, 2 * len + 1)),
        None => PublicKey::from_raw(key_type, unwrapped(point, 32)),
    }
}

/// The curve that `CKA_EC_PARAMS` names, by its object identifier or, for Ed25519, by a PrintableString.
pub(crate) fn curve(parameters: &[u8]) -> Option<KeyType> {
    if let Ok(oid) = ObjectIdentifier::from_der(parameters) {
        return match oid {
            db::rfc5912::SECP_256_R_1 => Some(KeyType::EcdsaP256),
            db::rfc5912::SECP_384_R_1 => Some(KeyType::EcdsaP384),
            db::rfc5912::SECP_521_R_1 => Some(KeyType::EcdsaP521),
            db::rfc8410::ID_ED_25519 | GNU_ED25519 => Some(KeyType::Ed25519),
            _ => None,
        };
    }
    let name = PrintableStringRef::from_der(parameters).ok()?;
    (name.as_str() == "edwards25519").then_some(KeyType::Ed25519)
}

/// Ed25519 as it was named before RFC 8410.
const GNU_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.15.1");

/// A point as it is, or out of the OCTET STRING that the specification asks for and half of the modules write.
fn unwrapped(point: &[u8], len: usize) -> &[u8] {
    if point.len() == len {
        return point;
    }
    <&OctetStringRef>::from_der(point).map_or(point, OctetStringRef::as_bytes)
}

fn ml_dsa(parameter_set: Option<sys::CK_ULONG>, value: &[u8]) -> Result<PublicKey> {
    if value.is_empty() {
        return Err(unreadable());
    }
    let key_type = match parameter_set {
        Some(sys::CKP_ML_DSA_44) => KeyType::MlDsa44,
        Some(sys::CKP_ML_DSA_65) => KeyType::MlDsa65,
        Some(sys::CKP_ML_DSA_87) => KeyType::MlDsa87,
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "ML-DSA keys of this parameter set are not supported",
            ));
        }
    };
    PublicKey::from_raw(key_type, value)
}

fn unreadable() -> Error {
    Error::new(ErrorKind::NotFound, "the token does not give the public half of the key")
}

#[cfg(test)]
mod tests {
    use der::Encode;

    use super::*;

    #[test]
    fn ed25519_is_known_by_all_its_names_and_in_both_forms() {
        let names = [
            db::rfc8410::ID_ED_25519.to_der().unwrap(),
            GNU_ED25519.to_der().unwrap(),
            PrintableStringRef::new("edwards25519").unwrap().to_der().unwrap(),
        ];
        // RFC 8032 section 7.1, test 1.
        let raw = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
            0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ];
        let wrapped = [&[4, 32][..], &raw].concat();
        for name in names {
            let key = elliptic(&name, &raw).unwrap();
            assert_eq!(key.key_bytes(), raw);
            assert_eq!(elliptic(&name, &wrapped).unwrap(), key);
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let secp256k1 = ObjectIdentifier::new_unwrap("1.3.132.0.10").to_der().unwrap();
        assert_eq!(elliptic(&secp256k1, &[4; 65]).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(ml_dsa(Some(9), &[1]).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(rsa(&[], &[3]).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(elliptic(b"\x06\x08", &[]).is_err());
    }
}
