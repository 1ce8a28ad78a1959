//! Private keys on their way in: the only place where one is in a caller's hands.

use std::fmt;

use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use const_oid::db;
use der::{
    Decode, Encode, SecretDocument,
    asn1::{AnyRef, OctetStringRef},
    pem,
};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use spki::AlgorithmIdentifierRef;

use crate::{Error, ErrorKind, KeyType, Pin, PublicKey, Result};

/// A private key that is to be imported, as unencrypted PKCS#8. It is wiped from memory when dropped.
///
/// There is a way in and none out: no backend gives one.
pub struct PrivateKey {
    pkcs8: SecretDocument,
    public_key: PublicKey,
}

impl PrivateKey {
    /// Reads PKCS#8 (RFC 5958), encrypted PKCS#8 (PBES2), SEC1 (RFC 5915) or PKCS#1 (RFC 8017), as PEM or DER.
    /// `PinRequired` when it is encrypted and there is no passphrase, `WrongPin` when the passphrase does not fit.
    pub fn read(bytes: &[u8], passphrase: Option<&Pin>) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN") => Self::read_pem(text, passphrase),
            _ => Self::read_der(bytes, passphrase),
        }
    }

    fn read_pem(text: &str, passphrase: Option<&Pin>) -> Result<Self> {
        // openssl writes "EC PARAMETERS" before "EC PRIVATE KEY": take the first block that is a private key.
        for (begin, _) in text.match_indices("-----BEGIN ") {
            let block = &text[begin..];
            let Some(label) = block["-----BEGIN ".len()..].split("-----").next() else {
                continue;
            };
            if !label.ends_with("PRIVATE KEY") {
                continue;
            }
            let end_line = format!("-----END {label}-----");
            let Some(end) = block.find(&end_line) else {
                continue;
            };
            if block[..end].contains("Proc-Type:") {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this PEM key has openssl's old encryption (RFC 1421)",
                )
                .next("convert it with `openssl pkcs8 -topk8 -in OLD -out NEW`"));
            }
            let (_, der) = pem::decode_vec(&block.as_bytes()[..end + end_line.len()]).map_err(|e| {
                Error::bad_request("the PEM block of the private key cannot be read").vendor(e)
            })?;
            let der = zeroize::Zeroizing::new(der);
            return Self::read_der(&der, passphrase);
        }
        Err(Error::bad_request("there is no PEM block of a private key")
            .next("supported are PRIVATE KEY, ENCRYPTED PRIVATE KEY, EC PRIVATE KEY and RSA PRIVATE KEY"))
    }

    fn read_der(der: &[u8], passphrase: Option<&Pin>) -> Result<Self> {
        if let Ok(encrypted) = EncryptedPrivateKeyInfoRef::try_from(der) {
            let passphrase = passphrase.ok_or_else(|| {
                Error::new(ErrorKind::PinRequired, "the private key is encrypted").next("give its passphrase")
            })?;
            let plain = encrypted.decrypt(passphrase.expose()).map_err(|e| {
                Error::new(ErrorKind::WrongPin { tries_left: None }, "the private key cannot be decrypted")
                    .vendor(e)
                    .next("check the passphrase; PBES2 with PBKDF2 or scrypt and AES is supported")
            })?;
            return Self::from_pkcs8(plain.as_bytes());
        }
        if PrivateKeyInfoRef::from_der(der).is_ok() {
            return Self::from_pkcs8(der);
        }
        let wrapped = if let Ok(key) = sec1::EcPrivateKey::from_der(der) {
            let curve = key.parameters.and_then(sec1::EcParameters::named_curve).ok_or_else(|| {
                Error::bad_request("the EC private key does not name its curve")
                    .next("convert it with `openssl pkcs8 -topk8 -nocrypt`")
            })?;
            wrap(db::rfc5912::ID_EC_PUBLIC_KEY, AnyRef::from(&curve), der)
        } else if pkcs1::RsaPrivateKeyRef::from_der(der).is_ok() {
            wrap(db::rfc5912::RSA_ENCRYPTION, AnyRef::NULL, der)
        } else {
            return Err(Error::bad_request("this is not a private key")
                .next("supported are PKCS#8, SEC1 and PKCS#1, as PEM or DER"));
        };
        let wrapped = wrapped.map_err(|e| Error::bad_request("the private key cannot be read").vendor(e))?;
        Self::from_pkcs8(wrapped.as_bytes())
    }

    /// Reads unencrypted PKCS#8 and checks that the key is whole and of a kind that the house knows.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let malformed = |e: der::Error| Error::bad_request("this is not a PKCS#8 private key").vendor(e);
        let info = PrivateKeyInfoRef::from_der(der).map_err(malformed)?;
        let public_key = public_half(&info, der)?;
        let pkcs8 = SecretDocument::try_from(der).map_err(malformed)?;
        Ok(Self { pkcs8, public_key })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What kind of key it is.
    pub fn key_type(&self) -> KeyType {
        self.public_key.key_type()
    }

    /// Unencrypted PKCS#8, for the backend that stores it.
    pub fn pkcs8_der(&self) -> &[u8] {
        self.pkcs8.as_bytes()
    }
}

fn wrap(oid: const_oid::ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> der::Result<SecretDocument> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters: Some(parameters) };
    let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key)?);
    SecretDocument::try_from(zeroize::Zeroizing::new(info.to_der()?).as_slice())
}

fn public_half(info: &PrivateKeyInfoRef<'_>, der: &[u8]) -> Result<PublicKey> {
    let invalid =
        |e: aws_lc_rs::error::KeyRejected| Error::bad_request("the private key is not valid").vendor(e);
    let unsupported = || {
        Error::new(
            ErrorKind::Unsupported,
            format!("private keys of this kind ({}) are not supported", info.algorithm.oid),
        )
        .next(format!("supported are {}", KeyType::ALL.map(KeyType::name).join(", ")))
    };
    match info.algorithm.oid {
        db::rfc5912::ID_EC_PUBLIC_KEY => {
            let (key_type, signing) = match info.algorithm.parameters_oid().ok() {
                Some(db::rfc5912::SECP_256_R_1) => (KeyType::EcdsaP256, &lc::ECDSA_P256_SHA256_ASN1_SIGNING),
                Some(db::rfc5912::SECP_384_R_1) => (KeyType::EcdsaP384, &lc::ECDSA_P384_SHA384_ASN1_SIGNING),
                Some(db::rfc5912::SECP_521_R_1) => (KeyType::EcdsaP521, &lc::ECDSA_P521_SHA512_ASN1_SIGNING),
                _ => return Err(unsupported()),
            };
            let pair = EcdsaKeyPair::from_pkcs8(signing, der).map_err(invalid)?;
            PublicKey::from_ec_point(key_type, pair.public_key().as_ref())
        }
        db::rfc5912::RSA_ENCRYPTION => {
            let pair = RsaKeyPair::from_pkcs8(der).map_err(invalid)?;
            PublicKey::from_rsa_der(pair.public_key().as_ref())
        }
        db::rfc8410::ID_ED_25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(invalid)?;
            PublicKey::from_raw(KeyType::Ed25519, pair.public_key().as_ref())
        }
        db::fips204::ID_ML_DSA_44 | db::fips204::ID_ML_DSA_65 | db::fips204::ID_ML_DSA_87 => {
            let (key_type, signing) = match info.algorithm.oid {
                db::fips204::ID_ML_DSA_44 => (KeyType::MlDsa44, &lc::ML_DSA_44_SIGNING),
                db::fips204::ID_ML_DSA_65 => (KeyType::MlDsa65, &lc::ML_DSA_65_SIGNING),
                _ => (KeyType::MlDsa87, &lc::ML_DSA_87_SIGNING),
            };
            let pair = lc::PqdsaKeyPair::from_pkcs8(signing, der).map_err(invalid)?;
            PublicKey::from_raw(key_type, pair.public_key().as_ref())
        }
        _ => Err(unsupported()),
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.key_type())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_generated_key_is_read_in_every_form() {
        let pair = EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        let key = PrivateKey::read(pkcs8.as_ref(), None).unwrap();
        assert_eq!(key.public_key().key_bytes(), pair.public_key().as_ref());
        let pem = pem::encode_string("PRIVATE KEY", pem::LineEnding::LF, pkcs8.as_ref()).unwrap();
        assert_eq!(PrivateKey::read(pem.as_bytes(), None).unwrap().public_key(), key.public_key());

        let info = PrivateKeyInfoRef::from_der(pkcs8.as_ref()).unwrap();
        let encrypted = info.encrypt("open sesame").unwrap();
        let error = PrivateKey::read(encrypted.as_bytes(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PinRequired);
        let wrong = Pin::new("open barley".into()).unwrap();
        let error = PrivateKey::read(encrypted.as_bytes(), Some(&wrong)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }));
        let right = Pin::new("open sesame".into()).unwrap();
        assert_eq!(
            PrivateKey::read(encrypted.as_bytes(), Some(&right)).unwrap().public_key(),
            key.public_key()
        );
        assert_eq!(format!("{key:?}"), "PrivateKey(ecdsa-p256)");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = PrivateKey::read(&bytes, None);
        }
    }
}
