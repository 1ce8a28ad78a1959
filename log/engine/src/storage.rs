//! Where a log is kept: the one small interface, and what every kind of storage shares.
//!
//! A batch of entries goes through it in this order, and each step begins when the one before has ended, but that 2 and 3 go on
//! at the same time: a signature that nobody has seen yet promises nothing.
//!
//! 1. [`Storage::stage`]: the entries are durable, in their final order. From here on they will be in the log, at these
//!    indices, whatever happens: a start finds them and finishes what is missing.
//! 2. [`Storage::write_tiles`]: the tiles that the new tree needs can be read. Nobody looks for them yet.
//! 3. The checkpoint is signed, by code that refuses one that does not extend the last ([`crate::CheckpointSigner`]).
//! 4. [`Storage::publish`]: the checkpoint replaces the last one by compare-and-swap: whoever reads it finds all its tiles.
//! 5. The callers are answered.
//!
//! A process that dies before 1 has ended has promised nothing: the half-written batch is not valid and is forgotten. After
//! 1, the same entries come to the same indices again, so that the root of every size is the same as it would have been,
//! and a second signature for a size states the same tree: nothing forks.
//!
//! A folder has one writer, by its lock. A bucket may have several: there 1 and 4 are compare-and-swaps, and each may say
//! [`Swap::Overtaken`]. Whoever is overtaken takes over what is there ([`Storage::recover`]), finishes what the other has made
//! durable if that is not published yet, and tries again behind it.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use signer_core::{Error, ErrorKind, Result};

mod bucket;
mod face;
mod files;
mod journal;
mod local;
mod mirror;
mod shared;

pub use bucket::Bucket;
pub use local::{Folder, LocalStorage};
pub use mirror::{Mirror, Mirrored};
pub use shared::BucketStorage;

use crate::{
    format::Format,
    tile::{TileId, TileNodes},
    tree::Hash,
};

/// One entry on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its bytes in the tile of entries.
    pub data: Bytes,
    /// The hash of its leaf.
    pub leaf_hash: Hash,
}

/// Entries that become durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The index of the first.
    pub begin: u64,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// The index after its last entry.
    pub fn end(&self) -> u64 {
        self.begin + self.entries.len() as u64
    }
}

/// What a start finds.
#[derive(Debug)]
pub struct Recovered {
    /// A state of the tree that all tiles are durable for, as [`Storage::stage`] was given it; `None` for "as the
    /// checkpoint says".
    pub snapshot: Option<Vec<u8>>,
    /// The batches that came after it. Tiles and checkpoint may know them already.
    pub batches: Vec<Batch>,
    /// The checkpoint that readers see.
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the place takes on nothing more, for ever ([`Storage::seal`]).
    pub sealed: bool,
}

/// What became of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// It is done, and durable as far as the step promises.
    Done,
    /// Another process was first, and nothing of this was done: [`Storage::recover`] says what is there now.
    Overtaken,
}

/// What can be read of a log, wherever it is.
pub trait Objects: Send + Sync {
    /// Reads an object by its name, `tile/0/000`. A tile that has become longer since may be given as it is now.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;
}

/// A place for one log.
pub trait Storage: Objects {
    /// What is there, after a start or when another process was first.
    fn recover(&self) -> Result<Recovered>;

    /// Whether a batch can be staged without giving up what the storage holds of older ones. If not, tiles of all older
    /// batches have to be written before [`Storage::stage`] is called. Who writes them at once anyway need not ask.
    fn has_room(&self, batch: &Batch) -> bool {
        let _ = batch;
        true
    }

    /// Makes a batch durable. `snapshot` gives the tree as it was before, should the storage need a fresh beginning.
    /// An error means that nobody may rely on the batch, and that the same place can be tried again with another one: if
    /// this one comes to be in the log all the same, that is seen as if another process had put it there.
    fn stage(&self, batch: &Batch, snapshot: &dyn Fn() -> Vec<u8>) -> Result<Swap>;

    /// Writes tiles. What a crash of the machine may take of them, [`Storage::recover`] brings again.
    fn write_tiles(&self, tiles: &[(TileId, Vec<u8>)]) -> Result<()>;

    /// Replaces the checkpoint, if it still is the expected one. Whoever reads through this storage sees it at once.
    fn publish(&self, expected: Option<&[u8]>, checkpoint: &[u8]) -> Result<Swap>;

    /// Waits until others see what was published, whatever they read it by.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Ends the place for new batches, for ever, whoever has it open.
    fn seal(&self) -> Result<Swap> {
        Ok(Swap::Done)
    }

    /// How often to look what other processes have appended, if there may be any.
    fn shared(&self) -> Option<Duration> {
        None
    }

    /// Stores an object that never changes, durably. One that is there stays.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// The folder for what can be made again from the log, if there is one on this machine.
    fn state_folder(&self) -> Option<&Path>;
}

/// Reads a tile of hashes: exactly as many as the address says.
pub(crate) fn read_hash_tile(storage: &dyn Objects, id: TileId) -> Result<TileNodes> {
    let mut bytes = read_tile(storage, id)?;
    bytes.truncate(usize::from(id.width) * 32);
    let tile = TileNodes::from_bytes(&bytes)?;
    if tile.len() != u64::from(id.width) {
        return Err(damaged(&id, "is too short"));
    }
    Ok(tile)
}

/// Reads a tile of entries: exactly as many as the address says.
pub fn read_entry_tile(storage: &dyn Objects, format: Format, id: TileId) -> Result<Vec<u8>> {
    let mut bytes = read_tile(storage, id)?;
    let length =
        format.cut(&bytes, id.width).map_err(|_| damaged(&id, "has entries that are cut off"))?.len();
    bytes.truncate(length);
    Ok(bytes)
}

fn read_tile(storage: &dyn Objects, id: TileId) -> Result<Vec<u8>> {
    if let Some(bytes) = storage.read(&id.to_string())? {
        return Ok(bytes);
    }
    // The partial form goes away when the tile is full.
    if !id.is_full()
        && let Some(bytes) = storage.read(&id.full().to_string())?
    {
        return Ok(bytes);
    }
    Err(damaged(&id, "is missing"))
}

fn damaged(id: &TileId, how: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the log is damaged: {id} {how}"))
        .next("run `signer-log check`, and restore the tile from a mirror or a backup")
}

/// A failure of the storage itself: it may be over by itself.
pub(crate) fn unavailable(what: impl Into<String>, e: &std::io::Error) -> Error {
    let advice = match e.kind() {
        std::io::ErrorKind::StorageFull => "make room on the disk; the log goes on by itself",
        std::io::ErrorKind::ReadOnlyFilesystem => "mount the disk for writing; the log goes on by itself",
        std::io::ErrorKind::PermissionDenied => {
            "give the log's user the right to write; the log goes on by itself"
        }
        _ => "look at the disk",
    };
    Error::new(ErrorKind::DeviceGone, what).vendor(e).next(advice)
}
