//! A copy of somebody else's log, every entry of it checked before the copy says that it has it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use signer_core::{Error, ErrorKind, Result};

use super::{
    Folder, Objects,
    files::{self, Readers},
    read_entry_tile, read_hash_tile, unavailable,
};
use crate::{
    checkpoint::Checkpoint,
    format::Format,
    frontier::StoredNodes,
    note::NoteKey,
    tile::{TileId, TileKind, TileNodes, WIDTH},
    tree::{Edge, Hash, empty_root},
};

/// Where the checkpoint is that was cosigned last.
const COSIGNED: &str = "witness/checkpoint";

/// A folder with the copy: the same files under the same names.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    folder: Folder,
    key: NoteKey,
    format: Format,
}

/// What following a log once has brought.
#[derive(Debug)]
pub struct Mirrored {
    /// How many entries the copy had.
    pub before: u64,
    /// The checkpoint of the copy now.
    pub checkpoint: Checkpoint,
}

impl Mirror {
    /// The copy in a folder, of the log that this key signs.
    pub fn open(root: &Path, key: NoteKey, format: Format) -> Result<Self> {
        std::fs::create_dir_all(root)
            .map_err(|e| unavailable(format!("{} cannot be made", root.display()), &e))?;
        Ok(Self { root: root.to_owned(), folder: Folder::new(root), key, format })
    }

    /// The checkpoint of the copy, if it has one.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let note = self.folder.read("checkpoint")?;
        note.map(|note| Checkpoint::verified(&note, &self.key)).transpose()
    }

    /// Brings the copy up to the log's newest checkpoint. `Denied`, with both checkpoints kept in `evidence/`, when the log
    /// is not an extension of what it was.
    pub fn follow(&self, log: &dyn Objects) -> Result<Mirrored> {
        let old = self.checkpoint()?;
        let note = log.read("checkpoint")?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the log has no checkpoint").next("is it the URL of a log?")
        })?;
        let new = Checkpoint::verified(&note, &self.key)?;
        let (before, old_root) = old.as_ref().map_or((0, empty_root()), |c| (c.size, c.root));
        if new.size < before {
            return Err(
                self.fork(&note, &format!("the log has shrunk from {before} entries to {}", new.size))
            );
        }
        let mut written = BTreeSet::new();
        let extends = self.copy(log, before, &new, &mut written)?;
        if !extends || self.root_of(before)? != old_root {
            return Err(
                self.fork(&note, &format!("the log is not an extension of its tree of {before} entries"))
            );
        }
        if self.root_of(new.size)? != new.root {
            return Err(self.fork(
                &note,
                &format!("the entries of the log do not have the root of its checkpoint of {}", new.size),
            ));
        }
        let finish = || {
            files::sync(&self.root, &written)?;
            let path = self.root.join("checkpoint");
            files::replace(&path, &note, Readers::AsMasked)?;
            files::sync(&self.root, &BTreeSet::from([path]))
        };
        finish().map_err(|e| self.cannot("written", &e))?;
        Ok(Mirrored { before, checkpoint: new })
    }

    /// Copies all tiles of entries from the one on in which the old tree ends, and builds the tiles of hashes from them.
    /// `false` when the entries that the copy has already are other ones now.
    fn copy(
        &self,
        log: &dyn Objects,
        before: u64,
        new: &Checkpoint,
        written: &mut BTreeSet<PathBuf>,
    ) -> Result<bool> {
        for at in before / WIDTH..new.size.div_ceil(WIDTH) {
            let width = (new.size - at * WIDTH).min(WIDTH);
            let id = tile_id(self.format.tile_kind(), at, width)?;
            let bytes = read_entry_tile(log, self.format, id)?;
            let mut leaves = TileNodes::default();
            self.format.split_all(&bytes)?.iter().for_each(|entry| leaves.push(entry.leaf_hash()));
            // Looked at before anything is written: whatever the log has become, the copy stays what it was.
            let ours = before.saturating_sub(at * WIDTH).min(WIDTH);
            if ours > 0 {
                let ours = read_hash_tile(&self.folder, tile_id(TileKind::Hashes(0), at, ours)?)?;
                if !leaves.hashes().starts_with(ours.hashes()) {
                    return Ok(false);
                }
            }
            self.issuers(log, &bytes, written)?;
            self.write(&id, &bytes, written)?;
            self.write(&tile_id(TileKind::Hashes(0), at, width)?, &leaves.to_bytes(), written)?;
        }
        let (mut level, mut from, mut size) = (1, before / WIDTH, new.size / WIDTH);
        while size > 0 {
            for at in from / WIDTH..size.div_ceil(WIDTH) {
                let width = (size - at * WIDTH).min(WIDTH);
                let mut tile = TileNodes::default();
                for below in at * WIDTH..at * WIDTH + width {
                    let below =
                        read_hash_tile(&self.folder, tile_id(TileKind::Hashes(level - 1), below, WIDTH)?)?;
                    tile.push(below.root().ok_or_else(|| Error::internal("a full tile is not full"))?);
                }
                self.write(&tile_id(TileKind::Hashes(level), at, width)?, &tile.to_bytes(), written)?;
            }
            (level, from, size) = (level + 1, from / WIDTH, size / WIDTH);
        }
        Ok(true)
    }

    /// The issuers that a certificate log's entries name.
    fn issuers(&self, log: &dyn Objects, tile: &[u8], written: &mut BTreeSet<PathBuf>) -> Result<()> {
        if self.format != Format::Certificates {
            return Ok(());
        }
        for entry in self.format.split_all(tile)? {
            for fingerprint in entry.issuers() {
                let name = format!("issuer/{}", hex::encode(fingerprint));
                if self.folder.read(&name)?.is_some() {
                    continue;
                }
                let der = log
                    .read(&name)?
                    .ok_or_else(|| Error::internal(format!("the log does not have {name}")))?;
                if crate::tree::hash(&[&der]) != *fingerprint {
                    return Err(Error::internal(format!("the log gives another certificate as {name}")));
                }
                let path = self.root.join(&name);
                files::write(&path, &der, Readers::AsMasked).map_err(|e| self.cannot("written", &e))?;
                written.insert(path);
            }
        }
        Ok(())
    }

    fn write(&self, id: &TileId, bytes: &[u8], written: &mut BTreeSet<PathBuf>) -> Result<()> {
        let path = self.root.join(id.to_string());
        files::write(&path, bytes, Readers::AsMasked).map_err(|e| self.cannot("written", &e))?;
        written.insert(path);
        if id.is_full() {
            let _ = std::fs::remove_dir_all(self.root.join(format!("{}.p", id.stem())));
        }
        Ok(())
    }

    /// The checkpoint of the copy as it is signed, if it has one.
    pub(crate) fn published(&self) -> Result<Option<Vec<u8>>> {
        self.folder.read("checkpoint")
    }

    /// The key that the log signs with.
    pub(crate) fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The checkpoint that was cosigned last, as [`Mirror::remember`] was given it.
    pub(crate) fn cosigned(&self) -> Result<Option<Vec<u8>>> {
        files::read(&self.root.join(COSIGNED)).map_err(|e| self.cannot("read", &e))
    }

    /// Keeps a checkpoint that is about to be cosigned, durably.
    pub(crate) fn remember(&self, note: &[u8]) -> Result<()> {
        let path = self.root.join(COSIGNED);
        let keep = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            files::replace(&path, note, Readers::AsMasked)?;
            files::sync(&self.root, &BTreeSet::from([path.clone()]))
        };
        keep().map_err(|e| self.cannot("written", &e))
    }

    /// The root of the copy's tree when it had so many entries; at most as many as it has.
    pub(crate) fn root_of(&self, size: u64) -> Result<Hash> {
        Ok(Edge::new(size, &StoredNodes::new(&self.folder, size))?.root())
    }

    fn fork(&self, note: &[u8], what: &str) -> Error {
        let old = files::read(&self.root.join("checkpoint")).ok().flatten();
        self.evidence(old.as_deref(), note, what)
    }

    /// Keeps what proves that a log has forked: both checkpoints are signed by it.
    pub(crate) fn evidence(&self, old: Option<&[u8]>, note: &[u8], what: &str) -> Error {
        let folder = self.root.join("evidence");
        let keep = || -> io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            if let Some(old) = old {
                files::replace(&folder.join("checkpoint.before"), old, Readers::AsMasked)?;
            }
            files::replace(&folder.join("checkpoint.after"), note, Readers::AsMasked)
        };
        let error = Error::new(ErrorKind::Denied, what.to_owned());
        match keep() {
            Ok(()) => error.next(format!(
                "both checkpoints are in {}: show them to those who rely on the log",
                folder.display()
            )),
            Err(e) => error.vendor(format!("the evidence cannot be kept: {e}")),
        }
    }

    fn cannot(&self, what: &str, e: &io::Error) -> Error {
        unavailable(format!("the copy in {} cannot be {what}", self.root.display()), e)
    }
}

fn tile_id(kind: TileKind, at: u64, width: u64) -> Result<TileId> {
    TileId::new(kind, at, width).ok_or_else(|| Error::internal("the tree is larger than tiles can be"))
}
