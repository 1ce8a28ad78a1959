//! What a certificate log writes (RFC 6962 section 3.4, `static-ct-api`).

use signer_core::{Digest, Error, HashAlgorithm, Result};
use signer_log_engine::{Entry, MAX_ENTRY};

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(Digest::of(HashAlgorithm::Sha256, bytes).as_bytes());
    out
}

/// A certificate or precertificate that is to be logged; index and time come later.
#[derive(Debug)]
pub(super) struct Submission {
    /// Entry type and signed entry: what is the same in the leaf and in the timestamp's signature.
    pub(super) signed_entry: Vec<u8>,
    /// What follows the `TimestampedEntry` in a `TileLeaf`.
    rest: Vec<u8>,
}

impl Submission {
    pub(super) fn certificate(der: &[u8], chain: &[[u8; 32]]) -> Result<Self> {
        let mut signed_entry = vec![0, 0];
        opaque24(&mut signed_entry, der);
        Self::new(signed_entry, Vec::new(), chain)
    }

    pub(super) fn precertificate(
        issuer_key_hash: [u8; 32],
        tbs: &[u8],
        precertificate: &[u8],
        chain: &[[u8; 32]],
    ) -> Result<Self> {
        let mut signed_entry = vec![0, 1];
        signed_entry.extend(issuer_key_hash);
        opaque24(&mut signed_entry, tbs);
        let mut rest = Vec::new();
        opaque24(&mut rest, precertificate);
        Self::new(signed_entry, rest, chain)
    }

    fn new(signed_entry: Vec<u8>, mut rest: Vec<u8>, chain: &[[u8; 32]]) -> Result<Self> {
        rest.extend(((chain.len() * 32) as u16).to_be_bytes());
        rest.extend(chain.iter().flatten());
        if signed_entry.len() + rest.len() + 18 > MAX_ENTRY {
            return Err(Error::bad_request(format!("the entry would have more than {MAX_ENTRY} bytes")));
        }
        Ok(Self { signed_entry, rest })
    }

    /// What is the same in two submissions of the same certificate.
    pub(super) fn identity(&self) -> [u8; 32] {
        sha256(&self.signed_entry)
    }

    /// The `TileLeaf`, and the hash of its `MerkleTreeLeaf`.
    pub(super) fn entry(&self, index: u64, timestamp: u64) -> Entry {
        let extensions = extensions(index);
        let mut data = timestamp.to_be_bytes().to_vec();
        data.extend(&self.signed_entry);
        data.extend((extensions.len() as u16).to_be_bytes());
        data.extend(extensions);
        // MerkleTreeLeaf: version v1, leaf type timestamped_entry.
        let leaf_hash = signer_log_engine::leaf_hash(&[&[0, 0], &data[..]].concat());
        data.extend(&self.rest);
        Entry { data: data.into(), leaf_hash }
    }
}

/// The extensions of a timestamp: the index of the leaf, in 40 bits.
pub(super) fn extensions(index: u64) -> [u8; 8] {
    let [_, _, _, a, b, c, d, e] = index.to_be_bytes();
    [0, 0, 5, a, b, c, d, e]
}

fn opaque24(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(&(bytes.len() as u32).to_be_bytes()[1..]);
    out.extend(bytes);
}
