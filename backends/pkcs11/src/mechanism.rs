//! How an algorithm is asked of a token: the mechanism, what it is given, and what must come back.

use std::borrow::Cow;

use cryptoki_sys as sys;
use signer_core::{Error, HashAlgorithm, Input, KeyType, Result, SignRequest, Signature, SignatureAlgorithm};
use sys::CK_MECHANISM_TYPE;

use crate::{raw::Mechanism, token::Live};

/// What a token is given for one signature. Hashing is done here in every case: tokens differ in which combined
/// mechanisms they have, and a digest is what a caller may have in the first place.
pub(crate) struct Prepared<'a> {
    pub(crate) mechanism: Mechanism,
    pub(crate) data: Cow<'a, [u8]>,
    key_type: KeyType,
}

impl<'a> Prepared<'a> {
    /// For a request that fits the key.
    pub(crate) fn new(key_type: KeyType, request: &'a SignRequest) -> Result<Self> {
        let algorithm = request.algorithm();
        let mechanism = mechanism(algorithm)
            .ok_or_else(|| Error::unsupported(format_args!("sign with {algorithm}"), "a PKCS#11 token"))?;
        let data = match (request.to_digest(), request.input()) {
            (Some(digest), _) => match algorithm {
                SignatureAlgorithm::RsaPkcs1(hash) => {
                    Cow::Owned([digest_info(hash), digest.as_bytes()].concat())
                }
                // FIPS 186-5 section 6.4.1 takes the leftmost bits of a digest that is longer than the order. Not every
                // token does; each takes one that is short enough.
                SignatureAlgorithm::Ecdsa(_) => {
                    let len = key_type.ecdsa_field_len().unwrap_or(usize::MAX).min(digest.as_bytes().len());
                    Cow::Owned(digest.as_bytes()[..len].to_vec())
                }
                _ => Cow::Owned(digest.as_bytes().to_vec()),
            },
            (None, Input::Message(message)) => Cow::Borrowed(&message[..]),
            (None, Input::Digest(_)) => {
                return Err(Error::bad_request(format!(
                    "{algorithm} signs the message itself, not a digest of it"
                )));
            }
        };
        Ok(Self { mechanism, data, key_type })
    }

    /// Bytes of the signature as the token gives it.
    pub(crate) fn signature_len(&self) -> usize {
        match self.key_type {
            KeyType::EcdsaP384 => 2 * 48,
            KeyType::EcdsaP521 => 2 * 66,
            KeyType::Rsa2048 => 256,
            KeyType::Rsa3072 => 384,
            KeyType::Rsa4096 => 512,
            KeyType::EcdsaP256 | KeyType::Ed25519 => 64,
            // FIPS 204 table 2.
            KeyType::MlDsa44 => 2420,
            KeyType::MlDsa65 => 3309,
            KeyType::MlDsa87 => 4627,
        }
    }

    /// Brings what the token gave into the one encoding of the algorithm.
    pub(crate) fn finish(&self, raw: Vec<u8>) -> Result<Signature> {
        if raw.len() != self.signature_len() {
            return Err(Error::internal(format!(
                "the token gave a signature of {} bytes where {} belong",
                raw.len(),
                self.signature_len()
            )));
        }
        if self.key_type.ecdsa_field_len().is_some() {
            return Signature::from_ecdsa_raw(&raw);
        }
        Ok(Signature::new(raw))
    }
}

/// The algorithms of this key type that the token has a mechanism for, the default first.
pub(crate) fn algorithms(key_type: KeyType, live: &Live) -> Vec<SignatureAlgorithm> {
    let offered = |a: &SignatureAlgorithm| mechanism(*a).is_some_and(|m| live.has_mechanism(m.kind()));
    key_type.algorithms().iter().copied().filter(offered).collect()
}

/// The mechanism that makes a key pair of this type.
pub(crate) fn key_pair_mechanism(key_type: KeyType) -> CK_MECHANISM_TYPE {
    match key_type {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => sys::CKM_EC_KEY_PAIR_GEN,
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => sys::CKM_RSA_PKCS_KEY_PAIR_GEN,
        KeyType::Ed25519 => sys::CKM_EC_EDWARDS_KEY_PAIR_GEN,
        KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => sys::CKM_ML_DSA_KEY_PAIR_GEN,
    }
}

/// Ed25519ph is left out: its parameters are not understood alike by all modules.
fn mechanism(algorithm: SignatureAlgorithm) -> Option<Mechanism> {
    Some(match algorithm {
        SignatureAlgorithm::Ecdsa(_) => Mechanism::Plain(sys::CKM_ECDSA),
        SignatureAlgorithm::RsaPkcs1(_) => Mechanism::Plain(sys::CKM_RSA_PKCS),
        SignatureAlgorithm::RsaPss(hash) => {
            let (hash_mechanism, mgf) = match hash {
                HashAlgorithm::Sha256 => (sys::CKM_SHA256, sys::CKG_MGF1_SHA256),
                HashAlgorithm::Sha384 => (sys::CKM_SHA384, sys::CKG_MGF1_SHA384),
                HashAlgorithm::Sha512 => (sys::CKM_SHA512, sys::CKG_MGF1_SHA512),
            };
            Mechanism::RsaPss { hash: hash_mechanism, mgf, salt_len: hash.len() }
        }
        SignatureAlgorithm::Ed25519 => Mechanism::Plain(sys::CKM_EDDSA),
        SignatureAlgorithm::MlDsa => Mechanism::Plain(sys::CKM_ML_DSA),
        SignatureAlgorithm::Ed25519ph => return None,
    })
}

/// What stands before the digest in a DER DigestInfo (RFC 8017 section 9.2, note 1).
fn digest_info(hash: HashAlgorithm) -> &'static [u8] {
    match hash {
        HashAlgorithm::Sha256 => {
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
        }
        HashAlgorithm::Sha384 => {
            b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
        }
        HashAlgorithm::Sha512 => {
            b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
        }
    }
}

#[cfg(test)]
mod tests {
    use signer_core::Digest;

    use super::*;

    #[test]
    fn a_digest_longer_than_the_curve_is_cut() {
        let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha512);
        let digest = Digest::of(HashAlgorithm::Sha512, b"x");
        let request = SignRequest::digest(algorithm, digest).unwrap();
        for (key_type, len) in [(KeyType::EcdsaP256, 32), (KeyType::EcdsaP384, 48), (KeyType::EcdsaP521, 64)]
        {
            let prepared = Prepared::new(key_type, &request).unwrap();
            assert_eq!(*prepared.data, digest.as_bytes()[..len]);
        }
    }

    #[test]
    fn a_signature_of_the_wrong_length_is_refused() {
        let request = SignRequest::message(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), "x");
        let prepared = Prepared::new(KeyType::EcdsaP256, &request).unwrap();
        assert!(prepared.finish(vec![1; 64]).is_ok());
        assert!(prepared.finish(vec![1; 70]).is_err());
        let request = SignRequest::message(SignatureAlgorithm::Ed25519ph, "x");
        assert!(Prepared::new(KeyType::Ed25519, &request).is_err());
    }
}
