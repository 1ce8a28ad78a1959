//! What a card is given to sign: it does the private operation alone, all padding is done here.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use signer_core::{
    Digest, Error, HashAlgorithm, Hasher, Input, KeyType, Result, SignRequest, SignatureAlgorithm,
};

/// The longest message that is sent to a card to be signed as it is (Ed25519): what fits its buffer with some room.
pub(crate) const MAX_MESSAGE: usize = 2048;

/// The block that the private operation is done on.
pub(crate) fn block(key_type: KeyType, request: &SignRequest) -> Result<Vec<u8>> {
    let digest = || {
        request.to_digest().ok_or_else(|| Error::internal(format!("{} has no digest", request.algorithm())))
    };
    match (request.algorithm(), request.input()) {
        (SignatureAlgorithm::Ecdsa(_), _) => {
            let len = key_type.ecdsa_field_len().unwrap_or_default();
            Ok(fitted(digest()?.as_bytes(), len))
        }
        (SignatureAlgorithm::RsaPkcs1(_), _) => {
            pkcs1_v15(&digest()?, key_type.rsa_bits().unwrap_or_default() / 8)
        }
        (SignatureAlgorithm::RsaPss(_), _) => {
            let digest = digest()?;
            let mut salt = [0; 64];
            let salt = &mut salt[..digest.as_bytes().len()];
            SystemRandom::new()
                .fill(salt)
                .map_err(|_| Error::internal("the system gives no random numbers"))?;
            pss(&digest, salt, key_type.rsa_bits().unwrap_or_default())
        }
        (SignatureAlgorithm::Ed25519, Input::Message(message)) if message.len() <= MAX_MESSAGE => {
            Ok(message.to_vec())
        }
        (SignatureAlgorithm::Ed25519, Input::Message(message)) => Err(Error::bad_request(format!(
            "the card has no room for a message of {} bytes: it takes {MAX_MESSAGE}",
            message.len()
        ))
        .next("use a key whose algorithm signs a digest, such as ECDSA")),
        (other, _) => Err(Error::unsupported(format_args!("sign with {other}"), "a PIV card")),
    }
}

/// A digest as long as the curve's field: cut on the right (FIPS 186-5 section 6.4.1), or with zeros on the left.
fn fitted(digest: &[u8], len: usize) -> Vec<u8> {
    let digest = &digest[..digest.len().min(len)];
    let mut block = vec![0; len - digest.len()];
    block.extend_from_slice(digest);
    block
}

/// EMSA-PKCS1-v1_5 (RFC 8017 section 9.2).
fn pkcs1_v15(digest: &Digest, len: usize) -> Result<Vec<u8>> {
    let prefix: &[u8] = match digest.algorithm() {
        HashAlgorithm::Sha256 => {
            &[0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20]
        }
        HashAlgorithm::Sha384 => {
            &[0x30, 0x41, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0, 4, 0x30]
        }
        HashAlgorithm::Sha512 => {
            &[0x30, 0x51, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40]
        }
    };
    let tail = [prefix, digest.as_bytes()].concat();
    let padding = len.checked_sub(tail.len() + 3).filter(|n| *n >= 8).ok_or_else(too_short)?;
    Ok([&[0, 1], &vec![0xff; padding][..], &[0], &tail].concat())
}

/// EMSA-PSS (RFC 8017 section 9.1.1), as long as the modulus.
fn pss(digest: &Digest, salt: &[u8], modulus_bits: usize) -> Result<Vec<u8>> {
    let hash = digest.algorithm();
    let (bits, len) = (modulus_bits - 1, modulus_bits.div_ceil(8));
    let mut hasher = Hasher::new(hash);
    for piece in [&[0; 8], digest.as_bytes(), salt] {
        hasher.update(piece);
    }
    let seed = hasher.finish();
    let db_len = len.checked_sub(hash.len() + 1).ok_or_else(too_short)?;
    let zeros = db_len.checked_sub(salt.len() + 1).ok_or_else(too_short)?;
    let mut block = [&vec![0; zeros][..], &[1], salt].concat();
    for (byte, mask) in block.iter_mut().zip(mgf1(&seed, db_len)) {
        *byte ^= mask;
    }
    block[0] &= 0xff >> (8 * len - bits);
    block.extend_from_slice(seed.as_bytes());
    block.push(0xbc);
    Ok(block)
}

/// MGF1 (RFC 8017 appendix B.2.1).
fn mgf1(seed: &Digest, len: usize) -> Vec<u8> {
    let mut mask = Vec::with_capacity(len + 64);
    for counter in 0_u32.. {
        if mask.len() >= len {
            break;
        }
        let mut hasher = Hasher::new(seed.algorithm());
        hasher.update(seed.as_bytes());
        hasher.update(&counter.to_be_bytes());
        mask.extend_from_slice(hasher.finish().as_bytes());
    }
    mask.truncate(len);
    mask
}

fn too_short() -> Error {
    Error::internal("the key is too short for this digest")
}

#[cfg(test)]
mod tests {
    use signer_core::SignRequest;

    use super::*;

    #[test]
    fn digests_are_cut_or_filled_to_the_field() {
        assert_eq!(fitted(&[1, 2, 3, 4], 2), [1, 2]);
        assert_eq!(fitted(&[1, 2], 4), [0, 0, 1, 2]);
        for hash in HashAlgorithm::ALL {
            let request = SignRequest::message(SignatureAlgorithm::Ecdsa(hash), "x");
            assert_eq!(block(KeyType::EcdsaP384, &request).unwrap().len(), 48);
        }
    }

    /// The blocks are what RSA itself makes signatures of that others verify: done here with a known key.
    #[test]
    fn padded_blocks_are_as_long_as_the_modulus_and_in_their_form() {
        for key_type in [KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096] {
            let len = key_type.rsa_bits().unwrap() / 8;
            for hash in HashAlgorithm::ALL {
                let message = SignRequest::message(SignatureAlgorithm::RsaPkcs1(hash), "x");
                let padded = block(key_type, &message).unwrap();
                assert_eq!((padded.len(), &padded[..3]), (len, &[0, 1, 0xff][..]));
                assert!(padded.ends_with(Digest::of(hash, b"x").as_bytes()));
                let message = SignRequest::message(SignatureAlgorithm::RsaPss(hash), "x");
                let padded = block(key_type, &message).unwrap();
                assert_eq!((padded.len(), padded[0] & 0x80, padded[len - 1]), (len, 0, 0xbc));
                assert_ne!(padded, block(key_type, &message).unwrap(), "the salt is new each time");
            }
        }
    }

    #[test]
    fn long_messages_never_reach_the_card() {
        let request = |len| SignRequest::message(SignatureAlgorithm::Ed25519, vec![7; len]);
        assert_eq!(block(KeyType::Ed25519, &request(MAX_MESSAGE)).unwrap().len(), MAX_MESSAGE);
        let error = block(KeyType::Ed25519, &request(MAX_MESSAGE + 1)).unwrap_err();
        assert_eq!(error.kind(), signer_core::ErrorKind::BadRequest);
    }
}
