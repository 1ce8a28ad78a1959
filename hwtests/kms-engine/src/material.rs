//! The keys themselves: made by aws-lc-rs, as real as any.

use aws_lc_rs::{
    digest as lc_digest,
    rsa::KeySize,
    signature::{self as lc, EcdsaKeyPair, KeyPair, PqdsaKeyPair, RsaKeyPair},
};
use ed25519_dalek::{Signer, SigningKey};
use signer_core::{Digest, HashAlgorithm, KeyType, PublicKey, SignatureAlgorithm};

/// A key pair.
pub(crate) struct Material {
    private: Private,
    public: PublicKey,
}

enum Private {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(SigningKey),
    MlDsa(PqdsaKeyPair),
}

/// What is signed.
#[derive(Clone, Copy)]
pub(crate) enum Signed<'a> {
    Message(&'a [u8]),
    Digest(&'a [u8]),
}

impl Material {
    /// Makes a key. RSA takes up to some seconds.
    pub(crate) fn generate(key_type: KeyType) -> Self {
        Self::try_generate(key_type).expect("the library makes keys of every kind that it knows")
    }

    /// The same, away from the threads that answer.
    pub(crate) async fn generate_aside(key_type: KeyType) -> Self {
        tokio::task::spawn_blocking(move || Self::generate(key_type))
            .await
            .expect("making a key does not panic")
    }

    fn try_generate(key_type: KeyType) -> Option<Self> {
        let rsa = |size| RsaKeyPair::generate(size).ok().map(Private::Rsa);
        let private = match key_type {
            KeyType::EcdsaP256 => ecdsa(&lc::ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyType::EcdsaP384 => ecdsa(&lc::ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyType::EcdsaP521 => ecdsa(&lc::ECDSA_P521_SHA512_ASN1_SIGNING)?,
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048)?,
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072)?,
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096)?,
            KeyType::Ed25519 => {
                let mut seed = [0; 32];
                aws_lc_rs::rand::fill(&mut seed).ok()?;
                Private::Ed25519(SigningKey::from_bytes(&seed))
            }
            KeyType::MlDsa44 => ml_dsa(&lc::ML_DSA_44_SIGNING)?,
            KeyType::MlDsa65 => ml_dsa(&lc::ML_DSA_65_SIGNING)?,
            KeyType::MlDsa87 => ml_dsa(&lc::ML_DSA_87_SIGNING)?,
        };
        let public = match &private {
            Private::Ecdsa(pair) => PublicKey::from_ec_point(key_type, pair.public_key().as_ref()),
            Private::Rsa(pair) => PublicKey::from_rsa_der(pair.public_key().as_ref()),
            Private::Ed25519(key) => PublicKey::from_raw(key_type, key.verifying_key().as_bytes()),
            Private::MlDsa(pair) => PublicKey::from_raw(key_type, pair.public_key().as_ref()),
        };
        Some(Self { private, public: public.ok()? })
    }

    pub(crate) fn key_type(&self) -> KeyType {
        self.public.key_type()
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs. ECDSA signatures are DER. `None` when key, algorithm and input do not fit each other; the services sign
    /// with a curve's own hash only, and so does this.
    pub(crate) fn sign(&self, algorithm: SignatureAlgorithm, signed: Signed<'_>) -> Option<Vec<u8>> {
        if !self.key_type().algorithms().contains(&algorithm) {
            return None;
        }
        let digest = || digest_of(algorithm.prehash()?, signed);
        match &self.private {
            Private::Ecdsa(pair) if algorithm == self.key_type().default_algorithm() => {
                Some(pair.sign_digest(&to_aws_lc(&digest()?)?).ok()?.as_ref().to_vec())
            }
            Private::Ecdsa(_) => None,
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding = rsa_padding(algorithm)?;
                pair.sign_digest(padding, &to_aws_lc(&digest()?)?, &mut signature).ok()?;
                Some(signature)
            }
            Private::Ed25519(key) if algorithm == SignatureAlgorithm::Ed25519ph => {
                let signature = key.sign_prehashed(digest()?.to_rust_crypto(), None).ok()?;
                Some(signature.to_bytes().to_vec())
            }
            Private::Ed25519(key) => Some(key.sign(message(signed)?).to_bytes().to_vec()),
            Private::MlDsa(pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                let len = pair.sign(message(signed)?, &mut signature).ok()?;
                signature.truncate(len);
                Some(signature)
            }
        }
    }
}

fn ecdsa(algorithm: &'static lc::EcdsaSigningAlgorithm) -> Option<Private> {
    EcdsaKeyPair::generate(algorithm).ok().map(Private::Ecdsa)
}

fn ml_dsa(algorithm: &'static lc::PqdsaSigningAlgorithm) -> Option<Private> {
    PqdsaKeyPair::generate(algorithm).ok().map(Private::MlDsa)
}

fn message(signed: Signed<'_>) -> Option<&[u8]> {
    match signed {
        Signed::Message(message) => Some(message),
        Signed::Digest(_) => None,
    }
}

fn digest_of(hash: HashAlgorithm, signed: Signed<'_>) -> Option<Digest> {
    match signed {
        Signed::Message(message) => Some(Digest::of(hash, message)),
        Signed::Digest(digest) => Digest::new(hash, digest).ok(),
    }
}

fn to_aws_lc(digest: &Digest) -> Option<lc_digest::Digest> {
    let algorithm = match digest.algorithm() {
        HashAlgorithm::Sha256 => &lc_digest::SHA256,
        HashAlgorithm::Sha384 => &lc_digest::SHA384,
        HashAlgorithm::Sha512 => &lc_digest::SHA512,
    };
    lc_digest::Digest::import_less_safe(digest.as_bytes(), algorithm).ok()
}

fn rsa_padding(algorithm: SignatureAlgorithm) -> Option<&'static dyn lc::RsaEncoding> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    Some(match algorithm {
        SignatureAlgorithm::RsaPkcs1(Sha256) => &lc::RSA_PKCS1_SHA256,
        SignatureAlgorithm::RsaPkcs1(Sha384) => &lc::RSA_PKCS1_SHA384,
        SignatureAlgorithm::RsaPkcs1(Sha512) => &lc::RSA_PKCS1_SHA512,
        SignatureAlgorithm::RsaPss(Sha256) => &lc::RSA_PSS_SHA256,
        SignatureAlgorithm::RsaPss(Sha384) => &lc::RSA_PSS_SHA384,
        SignatureAlgorithm::RsaPss(Sha512) => &lc::RSA_PSS_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use signer_core::Input;

    use super::*;

    #[test]
    fn what_a_key_signs_verifies() {
        for key_type in
            [KeyType::EcdsaP256, KeyType::EcdsaP521, KeyType::Ed25519, KeyType::MlDsa44, KeyType::Rsa2048]
        {
            let key = Material::generate(key_type);
            for algorithm in key_type.algorithms().iter().copied() {
                let Some(signature) = key.sign(algorithm, Signed::Message(b"m")) else {
                    assert_ne!(algorithm, key_type.default_algorithm());
                    continue;
                };
                key.public().verify(algorithm, &Input::Message("m".into()), &signature).unwrap();
            }
            assert!(
                key.sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), Signed::Digest(&[1; 20]))
                    .is_none()
            );
        }
    }
}
