//! Private keys at work: made, read, written and signed with.

use aws_lc_rs::{
    digest as lc_digest,
    encoding::{AsBigEndian, AsDer, Curve25519SeedBin, Pkcs8V1Der},
    rsa::KeySize,
    signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair, PqdsaKeyPair, RsaKeyPair},
};
use signer_core::{
    Digest, Error, HashAlgorithm, Input, KeyType, PublicKey, Result, SignRequest, Signature,
    SignatureAlgorithm,
};
use zeroize::Zeroizing;

/// A private key in memory, ready to sign. Its memory is wiped by aws-lc and ed25519-dalek when it is dropped.
pub(crate) enum PrivateHalf {
    Ecdsa(KeyType, EcdsaKeyPair),
    Rsa(RsaKeyPair),
    /// The second form of the key is for Ed25519ph, which aws-lc-rs does not offer.
    Ed25519(Ed25519KeyPair, Box<ed25519_dalek::SigningKey>),
    MlDsa(KeyType, PqdsaKeyPair),
}

impl PrivateHalf {
    /// Makes a key. RSA takes from a tenth of a second to several seconds.
    pub(crate) fn generate(key_type: KeyType) -> Result<Self> {
        let failed = |_| Error::internal(format!("a {key_type} key could not be generated"));
        Ok(match key_type {
            KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => {
                Self::Ecdsa(key_type, EcdsaKeyPair::generate(curve(key_type)).map_err(failed)?)
            }
            KeyType::Rsa2048 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            KeyType::Rsa3072 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?),
            KeyType::Rsa4096 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
            KeyType::Ed25519 => Self::ed25519(Ed25519KeyPair::generate().map_err(failed)?).map_err(failed)?,
            KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => {
                Self::MlDsa(key_type, PqdsaKeyPair::generate(parameter_set(key_type)).map_err(failed)?)
            }
        })
    }

    /// Reads unencrypted PKCS#8 that holds a key of that type.
    pub(crate) fn from_pkcs8(key_type: KeyType, der: &[u8]) -> Result<Self> {
        let rejected = |e: aws_lc_rs::error::KeyRejected| {
            Error::bad_request(format!("this is not a valid {key_type} private key")).vendor(e)
        };
        Ok(match key_type {
            KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => {
                Self::Ecdsa(key_type, EcdsaKeyPair::from_pkcs8(curve(key_type), der).map_err(rejected)?)
            }
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                Self::Rsa(RsaKeyPair::from_pkcs8(der).map_err(rejected)?)
            }
            KeyType::Ed25519 => {
                Self::ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(rejected)?)
                    .map_err(|_| Error::internal("the seed of an Ed25519 key could not be read"))?
            }
            KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => Self::MlDsa(
                key_type,
                PqdsaKeyPair::from_pkcs8(parameter_set(key_type), der).map_err(rejected)?,
            ),
        })
    }

    fn ed25519(pair: Ed25519KeyPair) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let seed: Curve25519SeedBin<'_> = pair.seed()?.as_be_bytes()?;
        let seed: &[u8; 32] = seed.as_ref().try_into().map_err(|_| aws_lc_rs::error::Unspecified)?;
        let prehash = Box::new(ed25519_dalek::SigningKey::from_bytes(seed));
        Ok(Self::Ed25519(pair, prehash))
    }

    /// Unencrypted PKCS#8 in the form that OpenSSL reads (version 1, without the public key of RFC 5958).
    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let failed = |_| Error::internal("the private key could not be encoded");
        let copy = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        Ok(match self {
            Self::Ecdsa(_, pair) => copy(pair.to_pkcs8v1().map_err(failed)?.as_ref()),
            Self::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                copy(der.as_ref())
            }
            Self::Ed25519(pair, _) => copy(pair.to_pkcs8v1().map_err(failed)?.as_ref()),
            Self::MlDsa(_, pair) => copy(pair.to_pkcs8v1().map_err(failed)?.as_ref()),
        })
    }

    /// The public half, as computed from this one.
    pub(crate) fn public_key(&self) -> Result<PublicKey> {
        match self {
            Self::Ecdsa(key_type, pair) => PublicKey::from_ec_point(*key_type, pair.public_key().as_ref()),
            Self::Rsa(pair) => PublicKey::from_rsa_der(pair.public_key().as_ref()),
            Self::Ed25519(pair, _) => PublicKey::from_raw(KeyType::Ed25519, pair.public_key().as_ref()),
            Self::MlDsa(key_type, pair) => PublicKey::from_raw(*key_type, pair.public_key().as_ref()),
        }
    }

    /// Signs. The algorithm must be one of [`KeyType::algorithms`] for this key.
    pub(crate) fn sign(&self, request: &SignRequest) -> Result<Signature> {
        let algorithm = request.algorithm();
        let failed = |_| Error::internal(format!("signing with {algorithm} failed"));
        let unfit = || Error::bad_request(format!("this key does not sign that with {algorithm}"));
        let bytes = match (self, request.to_digest(), request.input()) {
            (Self::Ecdsa(key_type, pair), Some(digest), _)
                if matches!(algorithm, SignatureAlgorithm::Ecdsa(_)) =>
            {
                let digest = fit_to_curve(*key_type, &digest).ok_or_else(unfit)?;
                pair.sign_digest(&digest).map_err(failed)?.as_ref().to_vec()
            }
            (Self::Rsa(pair), Some(digest), _) => {
                let padding = rsa_padding(algorithm).ok_or_else(unfit)?;
                let digest =
                    lc_digest::Digest::import_less_safe(digest.as_bytes(), lc_hash(digest.algorithm()))
                        .map_err(failed)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, &digest, &mut signature).map_err(failed)?;
                signature
            }
            (Self::Ed25519(_, pair), Some(digest), _) if algorithm == SignatureAlgorithm::Ed25519ph => {
                let signature = pair.sign_prehashed(digest.to_rust_crypto(), None);
                signature.map_err(|_| unfit())?.to_bytes().to_vec()
            }
            (Self::Ed25519(pair, _), None, Input::Message(message))
                if algorithm == SignatureAlgorithm::Ed25519 =>
            {
                pair.try_sign(message).map_err(failed)?.as_ref().to_vec()
            }
            (Self::MlDsa(_, pair), None, Input::Message(message))
                if algorithm == SignatureAlgorithm::MlDsa =>
            {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                let len = pair.sign(message, &mut signature).map_err(failed)?;
                signature.truncate(len);
                signature
            }
            _ => return Err(unfit()),
        };
        Ok(Signature::new(bytes))
    }
}

/// A digest in the length of the one hash that aws-lc-rs pairs with each curve, as the same integer.
///
/// ECDSA takes the leftmost bits of the digest, as many as the order of the curve has, as an integer (FIPS 186-5
/// section 6.4.1 step 2). Orders of P-256 and P-384 have as many bits as SHA-256 and SHA-384: a longer digest is cut
/// there by ECDSA itself, so it may be cut here. A shorter one is the integer as it is, and zeros on the left do not
/// change it. The order of P-521 is longer than any digest.
fn fit_to_curve(key_type: KeyType, digest: &Digest) -> Option<lc_digest::Digest> {
    let hash = match key_type {
        KeyType::EcdsaP256 => HashAlgorithm::Sha256,
        KeyType::EcdsaP384 => HashAlgorithm::Sha384,
        _ => HashAlgorithm::Sha512,
    };
    let (bytes, wanted) = (digest.as_bytes(), hash.len());
    let mut fitted = [0; 64];
    if bytes.len() >= wanted {
        fitted[..wanted].copy_from_slice(&bytes[..wanted]);
    } else {
        fitted[wanted - bytes.len()..wanted].copy_from_slice(bytes);
    }
    lc_digest::Digest::import_less_safe(&fitted[..wanted], lc_hash(hash)).ok()
}

fn curve(key_type: KeyType) -> &'static lc::EcdsaSigningAlgorithm {
    match key_type {
        KeyType::EcdsaP256 => &lc::ECDSA_P256_SHA256_ASN1_SIGNING,
        KeyType::EcdsaP384 => &lc::ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &lc::ECDSA_P521_SHA512_ASN1_SIGNING,
    }
}

fn parameter_set(key_type: KeyType) -> &'static lc::PqdsaSigningAlgorithm {
    match key_type {
        KeyType::MlDsa44 => &lc::ML_DSA_44_SIGNING,
        KeyType::MlDsa87 => &lc::ML_DSA_87_SIGNING,
        _ => &lc::ML_DSA_65_SIGNING,
    }
}

/// The padding; the salt of aws-lc-rs's PSS is as long as the hash.
fn rsa_padding(algorithm: SignatureAlgorithm) -> Option<&'static dyn lc::RsaEncoding> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    use SignatureAlgorithm::{RsaPkcs1, RsaPss};
    Some(match algorithm {
        RsaPkcs1(Sha256) => &lc::RSA_PKCS1_SHA256,
        RsaPkcs1(Sha384) => &lc::RSA_PKCS1_SHA384,
        RsaPkcs1(Sha512) => &lc::RSA_PKCS1_SHA512,
        RsaPss(Sha256) => &lc::RSA_PSS_SHA256,
        RsaPss(Sha384) => &lc::RSA_PSS_SHA384,
        RsaPss(Sha512) => &lc::RSA_PSS_SHA512,
        _ => return None,
    })
}

fn lc_hash(hash: HashAlgorithm) -> &'static lc_digest::Algorithm {
    match hash {
        HashAlgorithm::Sha256 => &lc_digest::SHA256,
        HashAlgorithm::Sha384 => &lc_digest::SHA384,
        HashAlgorithm::Sha512 => &lc_digest::SHA512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_signs_with_every_algorithm_of_its_type_before_and_after_it_was_written() {
        for key_type in KeyType::ALL {
            let key = PrivateHalf::generate(key_type).unwrap();
            let public = key.public_key().unwrap();
            assert_eq!(public.key_type(), key_type);
            let again = PrivateHalf::from_pkcs8(key_type, &key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(again.public_key().unwrap(), public);
            for algorithm in key_type.algorithms().iter().copied() {
                for half in [&key, &again] {
                    for message in [&b""[..], b"a message", &[7; 10_000]] {
                        let request = SignRequest::message(algorithm, message.to_vec());
                        let signature = half.sign(&request).unwrap();
                        public.verify(algorithm, request.input(), signature.as_bytes()).unwrap();
                        // By its digest it is the same thing.
                        let hashed = request.clone().hashed();
                        let signature = half.sign(&hashed).unwrap();
                        public.verify(algorithm, request.input(), signature.as_bytes()).unwrap();
                    }
                }
            }
            for algorithm in
                SignatureAlgorithm::ALL.into_iter().filter(|a| !key_type.algorithms().contains(a))
            {
                let foreign = key.sign(&SignRequest::message(algorithm, "x"));
                assert!(foreign.is_err(), "{key_type} signed with {algorithm}");
            }
        }
    }

    /// Digests whose first or last bytes decide: cutting the wrong end or padding the wrong side would not verify.
    #[test]
    fn every_curve_takes_every_hash() {
        for key_type in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521] {
            let key = PrivateHalf::generate(key_type).unwrap();
            let public = key.public_key().unwrap();
            for hash in HashAlgorithm::ALL {
                let algorithm = SignatureAlgorithm::Ecdsa(hash);
                let mut first = vec![0; hash.len()];
                first[0] = 0x80;
                let mut last = vec![0; hash.len()];
                last[hash.len() - 1] = 1;
                for bytes in [first, last, vec![0xff; hash.len()], vec![0; hash.len()]] {
                    let input = Input::Digest(Digest::new(hash, &bytes).unwrap());
                    let request = SignRequest::new(algorithm, input.clone()).unwrap();
                    let signature = key.sign(&request).unwrap();
                    public.verify(algorithm, &input, signature.as_bytes()).unwrap();
                    let other = Input::Digest(Digest::of(hash, b"other"));
                    assert!(public.verify(algorithm, &other, signature.as_bytes()).is_err());
                }
            }
        }
    }
}
