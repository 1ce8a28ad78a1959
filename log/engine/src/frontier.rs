//! The right edge of a log in memory: what grows, and what is finished by growing.

use std::collections::HashMap;

use signer_core::{Error, Result};

use crate::{
    format::Format,
    storage::{Entry, Objects, read_hash_tile},
    tile::{TileId, TileKind, TileNodes, WIDTH, place},
    tree::{Hash, Nodes},
};

/// The tiles at the right edge: one of hashes at each level, and one of entries. All else of the tree is in storage.
#[derive(Clone, Debug)]
pub(crate) struct Frontier {
    format: Format,
    size: u64,
    levels: Vec<TileNodes>,
    bundle: Vec<u8>,
    /// The width at which each level's partial tile was last given out, so that it is not written again.
    written: Vec<(u64, u64)>,
}

/// What became complete or longer by growing.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Tiles to write, full ones first.
    pub(crate) tiles: Vec<(TileId, Vec<u8>)>,
    /// The hashes of the tiles that became full.
    full: HashMap<(u8, u64), TileNodes>,
}

impl Frontier {
    /// An empty tree.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, size: 0, levels: Vec::new(), bundle: Vec::new(), written: Vec::new() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The last entry, if the tile at the edge has it.
    pub(crate) fn last(&self) -> Option<Vec<u8>> {
        Some(self.format.split_all(&self.bundle).ok()?.last()?.body().to_vec())
    }

    /// Puts one entry at the end.
    pub(crate) fn push(&mut self, entry: &Entry, growth: &mut Growth) {
        self.bundle.extend_from_slice(&entry.data);
        let index = self.size / WIDTH;
        self.size += 1;
        if self.size.is_multiple_of(WIDTH) {
            growth.tiles.extend(
                TileId::new(self.format.tile_kind(), index, WIDTH)
                    .map(|id| (id, std::mem::take(&mut self.bundle))),
            );
        }
        let (mut hash, mut level) = (entry.leaf_hash, 0);
        loop {
            if self.levels.len() == level {
                self.levels.push(TileNodes::default());
            }
            self.levels[level].push(hash);
            let Some(root) = self.levels[level].root() else { break };
            let tile = std::mem::take(&mut self.levels[level]);
            let index = (self.size >> (8 * (level + 1))) - 1;
            growth.tiles.extend(
                TileId::new(TileKind::Hashes(level as u8), index, WIDTH).map(|id| (id, tile.to_bytes())),
            );
            growth.full.insert((level as u8, index), tile);
            (hash, level) = (root, level + 1);
        }
    }

    /// Adds the partial tiles as they are now to what has to be written.
    pub(crate) fn finish(&mut self, growth: &mut Growth) {
        let bundle = TileId::new(self.format.tile_kind(), self.size / WIDTH, self.size % WIDTH);
        growth.tiles.extend(bundle.map(|id| (id, self.bundle.clone())));
        self.written.resize(self.levels.len(), (0, 0));
        for (level, tile) in self.levels.iter().enumerate() {
            let now = (self.size >> (8 * (level + 1)), tile.len());
            if self.written[level] != now {
                let id = TileId::new(TileKind::Hashes(level as u8), now.0, now.1);
                growth.tiles.extend(id.map(|id| (id, tile.to_bytes())));
                self.written[level] = now;
            }
        }
    }

    /// Everything, so that a log can go on from here without reading a tile.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.size.to_be_bytes().to_vec();
        out.push(self.levels.len() as u8);
        for tile in &self.levels {
            out.extend((tile.len() as u16).to_be_bytes());
            out.extend(tile.to_bytes());
        }
        out.extend(&self.bundle);
        out
    }

    /// Reads [`Frontier::to_bytes`].
    pub(crate) fn from_bytes(format: Format, bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::internal("the journal's snapshot of the tree is damaged");
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let size = u64::from_be_bytes(*size);
        let (count, mut rest) = rest.split_first().ok_or_else(damaged)?;
        let mut levels = Vec::new();
        for level in 0..u32::from(*count) {
            let (width, after) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
            let width = u16::from_be_bytes(*width);
            let (hashes, after) = after.split_at_checked(usize::from(width) * 32).ok_or_else(damaged)?;
            if size.checked_shr(8 * level).unwrap_or(0) % WIDTH != u64::from(width) {
                return Err(damaged());
            }
            levels.push(TileNodes::from_bytes(hashes)?);
            rest = after;
        }
        let this = Self { format, size, levels, bundle: rest.to_vec(), written: Vec::new() };
        this.check()?;
        Ok(this)
    }

    /// Reads the right edge of a tree of `size` entries from its tiles.
    pub(crate) fn from_tiles(format: Format, size: u64, storage: &dyn Objects) -> Result<Self> {
        let mut levels = Vec::new();
        let mut left = size;
        while left > 0 {
            let level = levels.len() as u8;
            levels.push(match TileId::new(TileKind::Hashes(level), left / WIDTH, left % WIDTH) {
                Some(id) => read_hash_tile(storage, id)?,
                None => TileNodes::default(),
            });
            left /= WIDTH;
        }
        let bundle = match TileId::new(format.tile_kind(), size / WIDTH, size % WIDTH) {
            Some(id) => crate::storage::read_entry_tile(storage, format, id)?,
            None => Vec::new(),
        };
        let this = Self { format, size, levels, bundle, written: Vec::new() };
        this.check()?;
        Ok(this)
    }

    /// Whether the entries are those of the hashes.
    fn check(&self) -> Result<()> {
        let entries = self.format.split_all(&self.bundle)?;
        let none = TileNodes::default();
        let hashes = self.levels.first().unwrap_or(&none).hashes();
        if entries.len() != hashes.len() || entries.iter().zip(hashes).any(|(e, h)| e.leaf_hash() != *h) {
            return Err(Error::internal("the last entries of the log do not fit their hashes")
                .next("run `signer-log check`, and restore the damaged tile from a mirror or a backup"));
        }
        Ok(())
    }
}

/// The complete subtrees of a log: at the edge from memory, all others from storage.
pub(crate) struct View<'a> {
    pub(crate) frontier: &'a Frontier,
    pub(crate) growth: &'a Growth,
    pub(crate) storage: &'a dyn Objects,
}

impl Nodes for View<'_> {
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let (tile_level, tile, row, at) = place(level, index);
        let in_memory = if tile == self.frontier.size >> (8 * (u32::from(tile_level) + 1)) {
            self.frontier.levels.get(usize::from(tile_level)).and_then(|t| t.node(row, at))
        } else {
            self.growth.full.get(&(tile_level, tile)).and_then(|t| t.node(row, at))
        };
        match in_memory {
            Some(hash) => Ok(hash),
            None => node_from_storage(self.storage, level, index),
        }
    }
}

/// A complete subtree from a full tile in storage.
fn node_from_storage(storage: &dyn Objects, level: u32, index: u64) -> Result<Hash> {
    let (tile_level, tile, row, at) = place(level, index);
    let id = TileId::new(TileKind::Hashes(tile_level), tile, WIDTH)
        .ok_or_else(|| Error::internal("a tile has no such level"))?;
    read_hash_tile(storage, id)?
        .node(row, at)
        .ok_or_else(|| Error::internal(format!("{id} is shorter than the tree needs")))
}

/// The complete subtrees of a tree of one size, all from storage; the tiles that were read are kept.
pub struct StoredNodes<'a> {
    storage: &'a dyn Objects,
    size: u64,
    tiles: std::cell::RefCell<HashMap<TileId, TileNodes>>,
}

impl<'a> StoredNodes<'a> {
    /// The tree of `size` entries.
    pub fn new(storage: &'a dyn Objects, size: u64) -> Self {
        Self { storage, size, tiles: std::cell::RefCell::default() }
    }
}

impl Nodes for StoredNodes<'_> {
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let (tile_level, tile, row, at) = place(level, index);
        let at_level = self.size.checked_shr(8 * u32::from(tile_level)).unwrap_or(0);
        let width = at_level.saturating_sub(tile * WIDTH).min(WIDTH);
        let id = TileId::new(TileKind::Hashes(tile_level), tile, width)
            .ok_or_else(|| Error::internal("the tree is too small for this hash"))?;
        let mut tiles = self.tiles.borrow_mut();
        let tile = match tiles.entry(id) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(read_hash_tile(self.storage, id)?),
        };
        tile.node(row, at).ok_or_else(|| Error::internal(format!("{id} is shorter than the tree needs")))
    }
}
