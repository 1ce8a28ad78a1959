//! EMSA-PSS encoding (RFC 8017 section 9.1.1), for TPMs whose own salts are not as long as the digest.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use signer_core::{Digest, Error, HashAlgorithm, Result};

/// Encodes a digest for a modulus of so many bits, with MGF1 of the same hash and a salt as long as the digest.
pub(crate) fn encode(digest: &Digest, modulus_bits: usize) -> Result<Vec<u8>> {
    let hash = digest.algorithm();
    let mut salt = vec![0; hash.len()];
    SystemRandom::new().fill(&mut salt).map_err(|_| Error::internal("the system gives no random numbers"))?;
    encode_with(digest, modulus_bits, &salt)
}

fn encode_with(digest: &Digest, modulus_bits: usize, salt: &[u8]) -> Result<Vec<u8>> {
    let hash = digest.algorithm();
    let bits = modulus_bits.saturating_sub(1);
    let len = bits.div_ceil(8);
    // Steps 3 to 13 of the section.
    let padding = len
        .checked_sub(hash.len() + salt.len() + 2)
        .ok_or_else(|| Error::bad_request("the key is too short for this digest"))?;
    let h = Digest::of(hash, &[&[0; 8], digest.as_bytes(), salt].concat());
    let mut masked = [&vec![0; padding][..], &[1], salt].concat();
    for (byte, mask) in masked.iter_mut().zip(mgf1(hash, h.as_bytes(), len - hash.len() - 1)) {
        *byte ^= mask;
    }
    masked[0] &= 0xFF >> (8 * len - bits);
    Ok([&masked[..], h.as_bytes(), &[0xBC]].concat())
}

/// RFC 8017 appendix B.2.1.
fn mgf1(hash: HashAlgorithm, seed: &[u8], len: usize) -> Vec<u8> {
    let mut mask = Vec::with_capacity(len + hash.len());
    for counter in 0_u32.. {
        if mask.len() >= len {
            break;
        }
        mask.extend(Digest::of(hash, &[seed, &counter.to_be_bytes()].concat()).as_bytes());
    }
    mask.truncate(len);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_has_the_right_form() {
        for hash in HashAlgorithm::ALL {
            for bits in [2048, 3072, 4096] {
                let encoded = encode(&Digest::of(hash, b"x"), bits).unwrap();
                assert_eq!((encoded.len(), encoded[encoded.len() - 1]), (bits / 8, 0xBC));
                assert_eq!(encoded[0] & 0x80, 0, "it is smaller than the modulus");
            }
        }
        assert!(encode(&Digest::of(HashAlgorithm::Sha512, b"x"), 1024).is_err());
    }
}
