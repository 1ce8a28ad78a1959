//! Proves a whole log: every tile, every hash, every entry against one checkpoint.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    checkpoint::Checkpoint,
    format::Format,
    storage::{Objects, read_entry_tile, read_hash_tile},
    tile::{TileId, TileKind, TileNodes, WIDTH},
    tree::{Edge, Hash, Nodes},
};
use signer_core::{Error, Result};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many entries were read and hashed.
    pub entries: u64,
    /// How many tiles of hashes were compared.
    pub tiles: u64,
    /// What is wrong, a sentence each; the first hundred.
    pub wrong: Vec<String>,
}

/// The most findings that are kept: a log of which all is wrong need not be listed.
const MOST: usize = 100;

impl Findings {
    fn wrong(&mut self, what: impl Into<String>) {
        if self.wrong.len() < MOST {
            self.wrong.push(what.into());
        }
    }
}

/// Reads every entry and every tile of the tree that the checkpoint states, with so many threads, and computes everything
/// again. Nothing is trusted but the checkpoint, which the caller has verified.
pub fn check(objects: &dyn Objects, format: Format, checkpoint: &Checkpoint, threads: usize) -> Findings {
    let tiles = checkpoint.size.div_ceil(WIDTH);
    let next = AtomicU64::new(0);
    let found = Mutex::new(Findings::default());
    // The leaves of each tile, as the entries say: the lowest level of the tree that is built again.
    let lowest: Vec<Mutex<Option<TileNodes>>> = (0..tiles).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = lowest.get(at as usize) else { return };
                    let width = (checkpoint.size - at * WIDTH).min(WIDTH);
                    match entries(objects, format, at, width) {
                        Ok(leaves) => {
                            compare(objects, 0, at, &leaves, &found);
                            lock(&found).entries += width;
                            // Of a full tile only the root is needed from here on; a partial one is at the end.
                            *lock(slot) = Some(leaves);
                        }
                        Err(e) => lock(&found).wrong(e.to_string()),
                    }
                }
            });
        }
    });
    let mut findings = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let leaves: Option<Vec<_>> =
        lowest.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    match leaves {
        Some(lowest) => upper_levels(objects, lowest, checkpoint, &mut findings),
        None => findings.wrong("the tree cannot be built: entries are missing"),
    }
    findings
}

/// The hashes of one tile's entries.
fn entries(objects: &dyn Objects, format: Format, at: u64, width: u64) -> Result<TileNodes> {
    let id = id(format.tile_kind(), at, width)?;
    let bytes = read_entry_tile(objects, format, id)?;
    let mut leaves = TileNodes::default();
    format.split_all(&bytes)?.iter().for_each(|entry| leaves.push(entry.leaf_hash()));
    Ok(leaves)
}

fn id(kind: TileKind, at: u64, width: u64) -> Result<TileId> {
    TileId::new(kind, at, width).ok_or_else(|| Error::internal("the tree is larger than tiles can be"))
}

/// Compares a tile of hashes in storage with what it must be.
fn compare(objects: &dyn Objects, level: u8, at: u64, expected: &TileNodes, found: &Mutex<Findings>) {
    let stored =
        id(TileKind::Hashes(level), at, expected.len()).and_then(|id| Ok((id, read_hash_tile(objects, id)?)));
    let mut found = lock(found);
    found.tiles += 1;
    match stored {
        Ok((id, stored)) => {
            let differs = stored.hashes().iter().zip(expected.hashes()).position(|(a, b)| a != b);
            if let Some(at) = differs {
                found.wrong(format!("{id} has another hash at {at} than what it stands for"));
            }
        }
        Err(e) => found.wrong(e.to_string()),
    }
}

fn upper_levels(
    objects: &dyn Objects,
    lowest: Vec<TileNodes>,
    checkpoint: &Checkpoint,
    findings: &mut Findings,
) {
    let mut levels = vec![lowest];
    loop {
        let below = &levels[levels.len() - 1];
        let mut tiles: Vec<TileNodes> = Vec::new();
        for root in below.iter().filter_map(TileNodes::root) {
            if tiles.last().is_none_or(|t| t.len() == WIDTH) {
                tiles.push(TileNodes::default());
            }
            if let Some(tile) = tiles.last_mut() {
                tile.push(root);
            }
        }
        if tiles.is_empty() {
            break;
        }
        let found = Mutex::new(std::mem::take(findings));
        let level = levels.len() as u8;
        tiles.iter().enumerate().for_each(|(at, tile)| compare(objects, level, at as u64, tile, &found));
        *findings = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        levels.push(tiles);
    }
    match Edge::new(checkpoint.size, &Built(&levels)).map(|edge| edge.root()) {
        Ok(root) if root == checkpoint.root => {}
        Ok(_) => findings.wrong(format!(
            "the entries do not have the root that the checkpoint of {} states",
            checkpoint.size
        )),
        Err(e) => findings.wrong(e.to_string()),
    }
}

/// The tree as it was built from the entries.
struct Built<'a>(&'a [Vec<TileNodes>]);

impl Nodes for Built<'_> {
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let (tile_level, tile, row, at) = crate::tile::place(level, index);
        self.0
            .get(usize::from(tile_level))
            .and_then(|level| level.get(tile as usize)?.node(row, at))
            .ok_or_else(|| Error::internal("the tree cannot be built: entries are missing"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
