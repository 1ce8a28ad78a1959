//! A proof, computed step by step so that it can be read. The verdict is the engine's.

use signer_log_engine::{Hash, node_hash, verify_inclusion};

/// One step of an inclusion proof: what is put together with a sibling.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Whether the sibling is on the left.
    pub(super) left: bool,
    pub(super) sibling: Hash,
    pub(super) result: Hash,
    /// Which entries the result stands for: the first, and one after the last.
    pub(super) covers: (u64, u64),
}

/// The way from a leaf to the root, and whether it leads there.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) steps: Vec<Step>,
    /// Why it does not lead to the root, if so.
    pub(super) wrong: Option<String>,
}

/// Walks an inclusion proof (RFC 9162 section 2.1.3.2).
pub(super) fn walk(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Walk {
    let wrong = verify_inclusion(leaf, index, size, proof, root).err().map(|e| e.what().to_owned());
    let mut steps = Vec::new();
    let (mut at, mut last, mut hash, mut level) = (index, size.saturating_sub(1), *leaf, 0_u32);
    for sibling in proof {
        if last == 0 || level >= u64::BITS {
            break;
        }
        let left = at & 1 == 1 || at == last;
        hash = if left { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
        if left {
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
                level += 1;
            }
        }
        at >>= 1;
        last >>= 1;
        level += 1;
        let begin = at.checked_shl(level).unwrap_or(0);
        let end =
            at.checked_add(1).and_then(|end| end.checked_mul(1_u64.checked_shl(level)?)).unwrap_or(size);
        steps.push(Step { left, sibling: *sibling, result: hash, covers: (begin, end.min(size)) });
    }
    Walk { steps, wrong }
}

#[cfg(test)]
mod tests {
    use signer_core::Result;
    use signer_log_engine::{CompactTree, Edge, Nodes, leaf_hash};

    use super::*;

    struct Plain(Vec<Hash>);

    impl Nodes for Plain {
        fn node(&self, level: u32, index: u64) -> Result<Hash> {
            let mut tree = CompactTree::empty();
            let begin = (index << level) as usize;
            self.0[begin..begin + (1 << level)].iter().for_each(|leaf| tree.push(*leaf));
            Ok(tree.root())
        }
    }

    #[test]
    fn a_walk_ends_at_the_root_and_covers_the_tree() {
        for size in 1..40_u64 {
            let tree = Plain((0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect());
            let edge = Edge::new(size, &tree).unwrap();
            for index in 0..size {
                let proof = edge.inclusion_proof(index, &tree).unwrap();
                let leaf = tree.0[index as usize];
                let walked = walk(&leaf, index, size, &proof, &edge.root());
                assert!(walked.wrong.is_none());
                assert_eq!(walked.steps.last().map_or(leaf, |s| s.result), edge.root());
                for step in &walked.steps {
                    let mut part = CompactTree::empty();
                    tree.0[step.covers.0 as usize..step.covers.1 as usize].iter().for_each(|l| part.push(*l));
                    assert_eq!(part.root(), step.result, "{size} {index} {step:?}");
                }
                assert!(walk(&leaf, index, size, &proof, &leaf).wrong.is_some() || size == 1);
            }
        }
    }
}
