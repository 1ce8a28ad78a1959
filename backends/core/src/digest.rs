//! Digests of the right length, and the hashing that makes them.

use std::{fmt, io::Read};

use crate::{Error, HashAlgorithm, Result};

/// A digest: a hash function and exactly as many bytes as it makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// Takes bytes that somebody else hashed; they must be as long as `algorithm` makes them.
    pub fn new(algorithm: HashAlgorithm, bytes: &[u8]) -> Result<Self> {
        if bytes.len() != algorithm.len() {
            return Err(Error::bad_request(format!(
                "a {algorithm} digest has {} bytes, not {}",
                algorithm.len(),
                bytes.len()
            )));
        }
        let mut buffer = [0; 64];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { algorithm, bytes: buffer })
    }

    /// Hashes `message`.
    pub fn of(algorithm: HashAlgorithm, message: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(message);
        hasher.finish()
    }

    /// Hashes all that `reader` gives, without keeping it.
    pub fn of_reader(algorithm: HashAlgorithm, mut reader: impl Read) -> std::io::Result<Self> {
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The hash function that made it.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its 32, 48 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }

    pub(crate) fn to_aws_lc(self) -> Option<aws_lc_rs::digest::Digest> {
        aws_lc_rs::digest::Digest::import_less_safe(self.as_bytes(), self.algorithm.implementation()).ok()
    }

    /// The digest in the form that RustCrypto's prehashed signatures (Ed25519ph) take: a SHA-512 that is already done.
    pub fn to_rust_crypto(self) -> impl sha2::digest::Digest<OutputSize = sha2::digest::consts::U64> {
        Done(self.bytes)
    }
}

/// A hash that ignores what it is given and answers with a digest made before.
struct Done([u8; 64]);

impl Default for Done {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl sha2::digest::OutputSizeUser for Done {
    type OutputSize = sha2::digest::consts::U64;
}

impl sha2::digest::HashMarker for Done {}

impl sha2::digest::Update for Done {
    fn update(&mut self, _: &[u8]) {}
}

impl sha2::digest::FixedOutput for Done {
    fn finalize_into(self, out: &mut sha2::digest::Output<Self>) {
        out.copy_from_slice(&self.0);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Hashes a message piece by piece.
#[derive(Clone)]
pub struct Hasher {
    algorithm: HashAlgorithm,
    context: aws_lc_rs::digest::Context,
}

impl Hasher {
    /// An empty message so far.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, context: aws_lc_rs::digest::Context::new(algorithm.implementation()) }
    }

    /// Adds the next piece of the message.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        let digest = self.context.finish();
        let mut bytes = [0; 64];
        bytes[..digest.as_ref().len()].copy_from_slice(digest.as_ref());
        Digest { algorithm: self.algorithm, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_length_is_a_digest() {
        for algorithm in HashAlgorithm::ALL {
            for len in 0..=65 {
                assert_eq!(Digest::new(algorithm, &vec![7; len]).is_ok(), len == algorithm.len());
            }
        }
    }

    #[test]
    fn hashing_in_pieces_is_hashing() {
        let message: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        for algorithm in HashAlgorithm::ALL {
            let whole = Digest::of(algorithm, &message);
            assert_eq!(Digest::of_reader(algorithm, &message[..]).unwrap(), whole);
        }
        assert_eq!(
            format!("{:?}", Digest::of(HashAlgorithm::Sha256, b"")),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
