//! No signature of a service leaves before it was verified.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{Error, Input, PublicKey, Result, SignatureAlgorithm};

/// Verifications that follow each other faster than this belong to many callers.
const CLUMP: Duration = Duration::from_millis(1);

/// When the last verification began, of any service's signature.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Verifies a signature as [`PublicKey::verify`] does. That takes some 0.1 ms, and the answers to many callers come in clumps:
/// all but the first of a clump are verified on other threads, so that this one goes on with the next answer. A lone caller
/// is spared the way there and back.
pub async fn verify(
    key: &PublicKey,
    algorithm: SignatureAlgorithm,
    input: &Input,
    signature: &[u8],
) -> Result<()> {
    let now = Instant::now();
    let before = LAST.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
    if before.is_none_or(|before| now.duration_since(before) > CLUMP) {
        return key.verify(algorithm, input, signature);
    }
    let (key, input, signature) = (key.clone(), input.clone(), signature.to_vec());
    tokio::task::spawn_blocking(move || key.verify(algorithm, &input, &signature))
        .await
        .unwrap_or_else(|e| Err(Error::internal("a verification ended in a panic").vendor(e)))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use signer_core::{ErrorKind, KeyType};

    use super::*;

    /// One after the other is a clump: the first is verified here, the others elsewhere.
    #[tokio::test]
    async fn a_bad_signature_is_refused_wherever_it_is_verified() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let key = PublicKey::from_ec_point(KeyType::EcdsaP256, pair.public_key().as_ref()).unwrap();
        let algorithm = KeyType::EcdsaP256.default_algorithm();
        let (right, wrong) = (Input::Message("right".into()), Input::Message("wrong".into()));
        let signature = pair.sign(&SystemRandom::new(), b"right").unwrap();
        for _ in 0..10 {
            verify(&key, algorithm, &right, signature.as_ref()).await.unwrap();
            let refused = verify(&key, algorithm, &wrong, signature.as_ref()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Denied);
        }
    }
}
