//! The Merkle tree of RFC 6962 section 2.1: hashes, roots, proofs, and their verification.
//!
//! Only complete subtrees are ever looked up: `node(level, index)` is the hash over the leaves
//! `[index·2^level, (index+1)·2^level)`. They never change once their last leaf is there.

use aws_lc_rs::digest;
use signer_core::{Error, ErrorKind, Result};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash of a leaf: `SHA-256(0x00 ‖ entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// The root of a tree without entries: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    hash(&[])
}

pub(crate) fn hash(pieces: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Where the hashes of complete subtrees come from.
pub trait Nodes {
    /// The hash over the leaves `[index·2^level, (index+1)·2^level)`, which must all be there.
    fn node(&self, level: u32, index: u64) -> Result<Hash>;
}

/// The right edge of a tree of one size: what a root and every inclusion proof need beside complete subtrees.
///
/// `ragged[l]` is the hash over the leaves from the last multiple of `2^l` to the end.
#[derive(Clone, Debug)]
pub struct Edge {
    size: u64,
    ragged: Vec<Hash>,
}

impl Edge {
    /// The edge of a tree of `size` entries, from at most 64 complete subtrees.
    pub fn new(size: u64, nodes: &impl Nodes) -> Result<Self> {
        let Some(last) = size.checked_sub(1) else { return Ok(Self { size, ragged: Vec::new() }) };
        let mut ragged = vec![nodes.node(0, last)?];
        for level in 0..bits(last) {
            let below = ragged[level as usize];
            ragged.push(if last >> level & 1 == 1 {
                node_hash(&nodes.node(level, (last >> level) - 1)?, &below)
            } else {
                below
            });
        }
        Ok(Self { size, ragged })
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.ragged.last().copied().unwrap_or_else(empty_root)
    }

    /// The hashes from leaf to root that prove that entry `index` is in this tree (RFC 6962 section 2.1.1).
    pub fn inclusion_proof(&self, index: u64, nodes: &impl Nodes) -> Result<Vec<Hash>> {
        if index >= self.size {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the tree of {} entries has no entry {index}", self.size),
            ));
        }
        let last = self.size - 1;
        // Up to here the paths of this entry and of the last one differ; above, they are one.
        let fork = bits(index ^ last);
        let mut proof = Vec::with_capacity(bits(last) as usize);
        for level in 0..bits(last) {
            let at = index >> level;
            if level + 1 == fork {
                proof.push(self.ragged[level as usize]);
            } else if level < fork {
                proof.push(nodes.node(level, at ^ 1)?);
            } else if at & 1 == 1 {
                proof.push(nodes.node(level, at - 1)?);
            }
        }
        Ok(proof)
    }
}

/// How many bits it takes to write `n`.
fn bits(n: u64) -> u32 {
    u64::BITS - n.leading_zeros()
}

/// The hash over the leaves `[begin, end)` where `begin` is a multiple of a power of two that is at least `end - begin`.
fn range(begin: u64, end: u64, nodes: &impl Nodes) -> Result<Hash> {
    let width = end - begin;
    if width.is_power_of_two() {
        let level = width.trailing_zeros();
        return nodes.node(level, begin >> level);
    }
    let split = begin + largest_power_below(width);
    Ok(node_hash(&range(begin, split, nodes)?, &range(split, end, nodes)?))
}

/// The largest power of two smaller than `n`, for `n` of 2 or more.
fn largest_power_below(n: u64) -> u64 {
    1 << (bits(n - 1) - 1)
}

/// The hashes that prove that the tree of `old` entries is the beginning of the tree of `new` (RFC 6962 section 2.1.2).
/// Empty when both are the same or the old tree is empty.
pub fn consistency_proof(old: u64, new: u64, nodes: &impl Nodes) -> Result<Vec<Hash>> {
    if old > new {
        return Err(Error::bad_request(format!(
            "a tree of {old} entries is not the beginning of one of {new}"
        )));
    }
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    // The subtree of the new tree in which the old tree ends, and whether it is the old tree as a whole.
    let (mut begin, mut end, mut whole) = (0, new, true);
    let mut right_to_left = Vec::new();
    loop {
        let (m, n) = (old - begin, end - begin);
        if m == n {
            if !whole {
                proof.push(range(begin, end, nodes)?);
            }
            break;
        }
        let split = begin + largest_power_below(n);
        if old <= split {
            right_to_left.push(range(split, end, nodes)?);
            end = split;
        } else {
            right_to_left.push(range(begin, split, nodes)?);
            begin = split;
            whole = false;
        }
    }
    proof.extend(right_to_left.into_iter().rev());
    Ok(proof)
}

/// Verifies an inclusion proof (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<()> {
    let wrong = |what: &str| Err(Error::new(ErrorKind::Denied, what.to_owned()));
    if index >= size {
        return wrong("the inclusion proof names an entry beyond the end of the tree");
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return wrong("the inclusion proof is too long");
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return wrong("the inclusion proof is too short");
    }
    if hash != *root {
        return wrong("the inclusion proof leads to another root");
    }
    Ok(())
}

/// Verifies a consistency proof (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> Result<()> {
    let wrong = |what: &str| Err(Error::new(ErrorKind::Denied, what.to_owned()));
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return wrong("the tree has become smaller");
    }
    if old_size == new_size || old_size == 0 {
        if !proof.is_empty() {
            return wrong("the consistency proof is too long");
        }
        if old_size == new_size && old_root != new_root {
            return wrong("two trees of the same size have different roots");
        }
        if old_size == 0 && *old_root != empty_root() {
            return wrong("the root of the empty tree is wrong");
        }
        return Ok(());
    }
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    // A tree of a power of two is a subtree of the new one: its root is not repeated in the proof.
    let mut hashes = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return wrong("the consistency proof is too short") };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in hashes {
        if last == 0 {
            return wrong("the consistency proof is too long");
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return wrong("the consistency proof is too short");
    }
    if old_hash != *old_root {
        return wrong("the consistency proof does not begin at the old root");
    }
    if new_hash != *new_root {
        return wrong("the consistency proof does not lead to the new root");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A tree in memory, straight from the definition.
    pub(crate) struct Plain(pub(crate) Vec<Hash>);

    impl Nodes for Plain {
        fn node(&self, level: u32, index: u64) -> Result<Hash> {
            let begin = (index << level) as usize;
            Ok(root(&self.0[begin..begin + (1 << level)]))
        }
    }

    pub(crate) fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            more => {
                let split = largest_power_below(more.len() as u64) as usize;
                node_hash(&root(&more[..split]), &root(&more[split..]))
            }
        }
    }

    pub(crate) fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn every_proof_of_small_trees_verifies_and_no_other() {
        for size in 1..70 {
            let tree = Plain(leaves(size));
            let edge = Edge::new(size, &tree).unwrap();
            assert_eq!(edge.root(), root(&tree.0));
            for index in 0..size {
                let proof = edge.inclusion_proof(index, &tree).unwrap();
                let leaf = &tree.0[index as usize];
                verify_inclusion(leaf, index, size, &proof, &edge.root()).unwrap();
                assert!(verify_inclusion(leaf, index, size, &proof, leaf).is_err() || size == 1);
                for other in 0..size + 3 {
                    let result = verify_inclusion(leaf, other, size, &proof, &edge.root());
                    assert_eq!(result.is_ok(), other == index, "{index} as {other} of {size}");
                }
            }
            assert!(edge.inclusion_proof(size, &tree).is_err());
            for old in 0..=size {
                let old_root = root(&tree.0[..old as usize]);
                let proof = consistency_proof(old, size, &tree).unwrap();
                verify_consistency((old, &old_root), (size, &edge.root()), &proof).unwrap();
                if old < size {
                    assert!(verify_consistency((old, &edge.root()), (size, &edge.root()), &proof).is_err());
                    assert!(verify_consistency((size, &edge.root()), (old, &old_root), &proof).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn foreign_proofs_never_panic(
            index: u64, size: u64, old: u64, new: u64,
            proof in proptest::collection::vec(any::<[u8; 32]>(), 0..80),
        ) {
            let _ = verify_inclusion(&[1; 32], index, size, &proof, &[2; 32]);
            let _ = verify_consistency((old, &[1; 32]), (new, &[2; 32]), &proof);
        }
    }
}
