//! Private keys: made, taken in, and used.

use aws_lc_rs::{
    agreement, digest, rand,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    algorithm::Algorithm,
    rsa::{EXPONENT, RsaKey},
    tlv::encode,
};

/// A key and what kind it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivateKey {
    pub(crate) algorithm: Algorithm,
    secret: Secret,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Secret {
    Rsa(RsaKey),
    /// A scalar, or the seed of an Ed25519 key, with its public half.
    Curve {
        secret: Vec<u8>,
        public: Vec<u8>,
    },
}

/// The parts of a key from outside.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    pub(crate) p: &'a [u8],
    pub(crate) q: &'a [u8],
    pub(crate) scalar: &'a [u8],
}

impl PrivateKey {
    pub(crate) fn generate(algorithm: Algorithm) -> Option<Self> {
        if let Some(length) = algorithm.modulus_length() {
            return Some(Self { algorithm, secret: Secret::Rsa(RsaKey::generate(length)?) });
        }
        // One draw in 2^32 and rarer is no scalar of the curve.
        (0..4).find_map(|_| Self::curve(algorithm, &random(secret_length(algorithm))))
    }

    pub(crate) fn import(algorithm: Algorithm, parts: &Parts<'_>) -> Option<Self> {
        match algorithm.modulus_length() {
            Some(length) => {
                let key = RsaKey::import(parts.p, parts.q, length)?;
                Some(Self { algorithm, secret: Secret::Rsa(key) })
            }
            None => Self::curve(algorithm, parts.scalar),
        }
    }

    /// A key with this scalar or seed; none where it is none of the curve.
    pub(crate) fn curve(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        if secret.len() != secret_length(algorithm) {
            return None;
        }
        let public = match algorithm {
            Algorithm::Ed25519 => {
                Ed25519KeyPair::from_seed_unchecked(secret).ok()?.public_key().as_ref().to_vec()
            }
            _ => agreement_key(algorithm, secret)?.compute_public_key().ok()?.as_ref().to_vec(),
        };
        Some(Self { algorithm, secret: Secret::Curve { secret: secret.to_vec(), public } })
    }

    /// The public key as the card returns it: the content of 7F49.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Rsa(key) => {
                [encode(0x81, &key.modulus()), encode(0x82, &EXPONENT.to_be_bytes()[1..])].concat()
            }
            Secret::Curve { public, .. } => encode(0x86, public),
        }
    }

    /// The modulus of an RSA key.
    pub(crate) fn modulus(&self) -> Option<Vec<u8>> {
        match &self.secret {
            Secret::Rsa(key) => Some(key.modulus()),
            Secret::Curve { .. } => None,
        }
    }

    /// The point of a curve's key.
    pub(crate) fn point(&self) -> &[u8] {
        match &self.secret {
            Secret::Rsa(_) => &[],
            Secret::Curve { public, .. } => public,
        }
    }

    /// What GENERAL AUTHENTICATE does with a challenge: RSA's private operation on a padded block, an ECDSA signature
    /// (DER) of a digest, an Ed25519 signature of a message. None where the input is not of the right form.
    pub(crate) fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        let (secret, public) = match &self.secret {
            Secret::Rsa(key) => return key.private_operation(input),
            Secret::Curve { secret, public } => (secret, public),
        };
        let (signing, hash, length) = match self.algorithm {
            Algorithm::P256 => (&ECDSA_P256_SHA256_ASN1_SIGNING, &digest::SHA256, 32),
            Algorithm::P384 => (&ECDSA_P384_SHA384_ASN1_SIGNING, &digest::SHA384, 48),
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(secret).ok()?;
                return Some(pair.sign(input).as_ref().to_vec());
            }
            _ => return None,
        };
        if input.is_empty() || input.len() > length {
            return None;
        }
        // A shorter digest is the same number with zeros before it.
        let mut padded = vec![0; length - input.len()];
        padded.extend(input);
        let digest = digest::Digest::import_less_safe(&padded, hash).ok()?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, secret, public).ok()?;
        Some(pair.sign_digest(&digest).ok()?.as_ref().to_vec())
    }

    /// The shared secret with another's point: SP 800-73's key establishment.
    pub(crate) fn agree(&self, point: &[u8]) -> Option<Vec<u8>> {
        let Secret::Curve { secret, .. } = &self.secret else { return None };
        if point.len() != self.point().len() {
            return None;
        }
        let key = agreement_key(self.algorithm, secret)?;
        let peer = agreement::UnparsedPublicKey::new(key.algorithm(), point);
        agreement::agree(&key, peer, (), |shared| Ok(shared.to_vec())).ok()
    }
}

fn agreement_key(algorithm: Algorithm, secret: &[u8]) -> Option<agreement::PrivateKey> {
    let curve = match algorithm {
        Algorithm::P256 => &agreement::ECDH_P256,
        Algorithm::P384 => &agreement::ECDH_P384,
        Algorithm::X25519 => &agreement::X25519,
        _ => return None,
    };
    agreement::PrivateKey::from_private_key(curve, secret).ok()
}

fn secret_length(algorithm: Algorithm) -> usize {
    if algorithm == Algorithm::P384 { 48 } else { 32 }
}

/// Random bytes; a machine that has none can't run tests.
pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes
}
