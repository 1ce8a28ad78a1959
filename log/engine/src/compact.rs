//! A tree as small as it can be kept: enough to append to it and to know its root, and nothing to look up.

use signer_core::{Error, Result};

use crate::tree::{Hash, Nodes, empty_root, node_hash};

/// The roots of the complete subtrees that a tree of some size is made of, the largest first: one for each bit of the size.
///
/// Whoever reads a log from its first entry to its last keeps this, and knows without the log's help whether what it reads is
/// what a checkpoint stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactTree {
    size: u64,
    roots: Vec<Hash>,
}

impl CompactTree {
    /// The tree without entries.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The tree of the first `size` entries, of which all complete subtrees are known.
    pub fn of(size: u64, nodes: &impl Nodes) -> Result<Self> {
        let (mut roots, mut begin) = (Vec::new(), 0);
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            roots.push(nodes.node(level, begin >> level)?);
            begin += 1 << level;
        }
        Ok(Self { size, roots })
    }

    /// Puts it together from what [`CompactTree::size`] and [`CompactTree::roots`] gave.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Result<Self> {
        if roots.len() != size.count_ones() as usize {
            return Err(Error::bad_request(format!(
                "a tree of {size} entries has {} complete subtrees, not {}",
                size.count_ones(),
                roots.len()
            )));
        }
        Ok(Self { size, roots })
    }

    /// How many entries it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its complete subtrees, the largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends the hash of a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return empty_root() };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{Plain, leaves, root};

    #[test]
    fn it_is_the_same_tree() {
        let tree = Plain(leaves(70));
        let mut grown = CompactTree::empty();
        for size in 0..=70 {
            assert_eq!(grown.size(), size);
            assert_eq!(grown.root(), root(&tree.0[..size as usize]));
            assert_eq!(grown, CompactTree::of(size, &tree).unwrap());
            assert_eq!(grown, CompactTree::from_parts(size, grown.roots().to_vec()).unwrap());
            assert!(CompactTree::from_parts(size, vec![[0; 32]; 9]).is_err());
            if size < 70 {
                grown.push(tree.0[size as usize]);
            }
        }
    }
}
