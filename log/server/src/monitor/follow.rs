//! Follows a log: each new checkpoint is proven to extend the last one, and each entry to be one of the checkpoint's, before
//! anything is said about it.
//!
//! The monitor keeps its own tree of what it has read ([`CompactTree`]). The log's tiles of hashes are asked for consistency
//! proofs alone, and a proof is verified: what the log claims is never believed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{
    Checkpoint, CompactTree, Format, Hash, Note, NoteKey, NoteKind, Objects, StoredNodes, TileId, WIDTH,
    consistency_proof, now_millis, read_entry_tile, verify_consistency,
};

use super::{
    evidence::{Broken, Recorder},
    report::{About, Report},
    rules::Rule,
    state::{Position, State},
};
use crate::decode::Decoded;

/// Where a monitor begins that has no state yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At this entry.
    At(u64),
    /// After the last entry of today.
    Now,
}

/// Tiles of entries that are read and proven at a time, and with how many readers.
const TILES: u64 = 16;
const READERS: usize = 4;
/// How often what does not fit is read again before it is held against the log: a cache may have been half way.
const TRIES: u32 = 3;

/// Why a round did not end well.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may be over by itself.
    Passing(Error),
    /// It is not: the evidence has to be kept.
    Broken(Box<Broken>),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Passing(error)
    }
}

/// What one round has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Entries that were read.
    pub(super) entries: u64,
    /// Reports that were made.
    pub(super) reports: u64,
    /// Entries that could not be decoded.
    pub(super) unreadable: u64,
    /// Whether more is to be read.
    pub(super) more: bool,
    /// Whether the log gave an older checkpoint than the one that is known.
    pub(super) older: bool,
}

/// What follows one log.
pub(super) struct Follower {
    pub(super) objects: Box<dyn Objects>,
    pub(super) key: NoteKey,
    pub(super) format: Format,
    pub(super) rules: Vec<Rule>,
    /// Whether entries that cannot be read are reported.
    pub(super) unreadable: bool,
    pub(super) start: Start,
    /// The checkpoint that is being read, so that a long way is gone in one go.
    pub(super) target: Option<Checkpoint>,
}

/// The state, for a moment: nothing slow is done while it is held.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    /// Looks for a new checkpoint, and proves it.
    pub(super) fn checkpoint(&mut self, state: &Mutex<State>) -> Result<Round, Trouble> {
        let objects = Recorder::new(&*self.objects);
        let note = objects.read("checkpoint")?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the log has no checkpoint").next("is it the URL of a log?")
        })?;
        let _ = objects.take();
        let position = lock(state).position()?;
        let before = position.as_ref().map(|p| Checkpoint::verified(&p.note, &self.key)).transpose()?;
        let broken = |reason: String, objects: &Recorder<'_>| Broken {
            reason,
            before: position.as_ref().map(|p| p.note.clone()),
            after: note.clone(),
            proof: None,
            prefix_root: None,
            objects: objects.take(),
        };
        // Something that is no note at all is a proxy's page or half a file. A note that the log has not signed is forged.
        let parsed = Note::parse(&note)?;
        let stated = match parsed.verify(&self.key) {
            Ok(time) => time,
            // Before anything is known of the log, it is more likely that the key is another log's.
            Err(e) if position.is_none() => {
                return Err(e.next("are --origin and --public-key those of this log?").into());
            }
            Err(e) => {
                return Err(Trouble::Broken(Box::new(broken(
                    format!("the checkpoint is not signed by the log's key: {}", e.what()),
                    &objects,
                ))));
            }
        };
        let new = Checkpoint::verified(&note, &self.key).map_err(|e| {
            Trouble::Broken(Box::new(broken(
                format!("the log has signed another thing: {}", e.what()),
                &objects,
            )))
        })?;
        let stated = if self.key.kind() == NoteKind::TreeHead { stated } else { 0 };
        let (Some(position), Some(before)) = (position.clone(), before) else {
            let tree = self.begin(&new, &objects)?;
            lock(state).advance(&Position { note, fresh: now_millis(), tree }, &[])?;
            self.target = Some(new);
            return Ok(Round::default());
        };
        if new.size < before.size {
            is_older(&new, &before, &objects).map_err(|e| match e {
                Trouble::Broken(mut b) => {
                    b.before = Some(position.note.clone());
                    b.after.clone_from(&note);
                    Trouble::Broken(b)
                }
                passing @ Trouble::Passing(_) => passing,
            })?;
            self.target = Some(before);
            return Ok(Round { older: true, ..Round::default() });
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let (proof, prefix_root, wrong) = match prove(&before, &new, &objects) {
                Ok(()) => break,
                Err(Unproven::Passing(e)) => return Err(e.into()),
                Err(Unproven::Wrong { proof, prefix_root, what }) => (proof, prefix_root, what),
            };
            // Proven to be another history: nothing that is read again changes that.
            if prefix_root.is_some() || tries == TRIES {
                let reason = format!(
                    "the log's tree of {} entries is not an extension of its tree of {} entries: {wrong}",
                    new.size, before.size
                );
                let broken = Broken { proof: Some(proof), prefix_root, ..broken(reason, &objects) };
                return Err(Trouble::Broken(Box::new(broken)));
            }
            let _ = objects.take();
        }
        // An older checkpoint that is given again makes nothing fresh: only one that says more, or a later time.
        let time_before = Note::parse(&position.note)?.verify(&self.key).unwrap_or(0);
        let newer = new.size > before.size || (stated > 0 && stated > time_before);
        if newer {
            let fresh = if stated > 0 { stated } else { now_millis() };
            lock(state).advance(&Position { note, fresh, tree: position.tree }, &[])?;
        }
        self.target = Some(new);
        Ok(Round::default())
    }

    /// The tree before the first entry that is to be read.
    fn begin(&self, checkpoint: &Checkpoint, objects: &dyn Objects) -> Result<CompactTree> {
        let size = match self.start {
            Start::Now => checkpoint.size,
            Start::At(index) => index.min(checkpoint.size),
        };
        let nodes = StoredNodes::new(objects, checkpoint.size);
        let tree = CompactTree::of(size, &nodes)?;
        let proof = consistency_proof(size, checkpoint.size, &nodes)?;
        verify_consistency((size, &tree.root()), (checkpoint.size, &checkpoint.root), &proof).map_err(
            |e| Error::internal("the log's tiles do not have the root of its checkpoint").vendor(e.what()),
        )?;
        Ok(tree)
    }

    /// Reads the next entries up to the checkpoint, proves them, and makes durable what they are reported as.
    pub(super) fn entries(&mut self, state: &Mutex<State>) -> Result<Round, Trouble> {
        let Some(target) = self.target.clone() else { return Ok(Round::default()) };
        let Some(position) = lock(state).position()? else { return Ok(Round::default()) };
        let begin = position.tree.size();
        let end = ((begin / WIDTH + TILES) * WIDTH).min(target.size);
        if begin >= end {
            return Ok(Round::default());
        }
        let mut tries = 0;
        let (tree, tiles) = loop {
            tries += 1;
            let objects = Recorder::new(&*self.objects);
            let tiles = self.read_tiles(begin, end, target.size, &objects)?;
            match self.proven(&position.tree, &tiles, begin, end, &target, &objects) {
                Ok(tree) => break (tree, tiles),
                Err(Unproven::Passing(e)) => return Err(e.into()),
                Err(Unproven::Wrong { proof, what, .. }) if tries == TRIES => {
                    return Err(Trouble::Broken(Box::new(Broken {
                        reason: format!(
                            "the entries {begin} to {} that the log gives are not those of its checkpoint of {}: {what}",
                            end - 1,
                            target.size
                        ),
                        before: Some(position.note.clone()),
                        after: position.note.clone(),
                        proof: Some(proof),
                        prefix_root: None,
                        objects: objects.take(),
                    })));
                }
                Err(Unproven::Wrong { .. }) => {}
            }
        };
        let (mut reports, mut unreadable) = (Vec::new(), 0);
        let mut index = begin / WIDTH * WIDTH;
        for tile in &tiles {
            for entry in self.format.split_all(tile)? {
                if (begin..end).contains(&index) {
                    let decoded = Decoded::new(&entry, self.format);
                    unreadable += u64::from(!decoded.unreadable.is_empty());
                    let about =
                        About { origin: self.key.name(), checkpoint: &target, index, entry: &decoded };
                    reports.extend(self.report(&about));
                }
                index += 1;
            }
        }
        let made = reports.len() as u64;
        lock(state).advance(&Position { tree, ..position }, &reports)?;
        Ok(Round { entries: end - begin, reports: made, unreadable, more: end < target.size, older: false })
    }

    fn report(&self, about: &About<'_>) -> Option<Report> {
        let hits: Vec<_> =
            self.rules.iter().filter_map(|rule| Some((&*rule.name, rule.matches(about.entry)?))).collect();
        if !hits.is_empty() {
            return Some(Report::of_match(about, &hits));
        }
        (self.unreadable && !about.entry.unreadable.is_empty()).then(|| Report::of_unreadable(about))
    }

    /// The tiles of entries of a range, read side by side.
    fn read_tiles(&self, begin: u64, end: u64, size: u64, objects: &dyn Objects) -> Result<Vec<Vec<u8>>> {
        let ids: Vec<_> = (begin / WIDTH..end.div_ceil(WIDTH))
            .map(|at| {
                TileId::new(self.format.tile_kind(), at, (size - at * WIDTH).min(WIDTH))
                    .ok_or_else(|| Error::internal("the tree is larger than tiles can be"))
            })
            .collect::<Result<_>>()?;
        let each = ids.len().div_ceil(READERS).max(1);
        std::thread::scope(|scope| {
            let readers: Vec<_> = ids
                .chunks(each)
                .map(|ids| {
                    scope.spawn(move || {
                        ids.iter()
                            .map(|id| read_entry_tile(objects, self.format, *id))
                            .collect::<Result<Vec<_>>>()
                    })
                })
                .collect();
            let mut tiles = Vec::new();
            for reader in readers {
                tiles.extend(reader.join().unwrap_or_else(|_| Err(Error::internal("a reader panicked")))?);
            }
            Ok(tiles)
        })
    }

    /// The tree with the entries of these tiles, if that is the beginning of the checkpoint's tree.
    fn proven(
        &self,
        tree: &CompactTree,
        tiles: &[Vec<u8>],
        begin: u64,
        end: u64,
        target: &Checkpoint,
        objects: &dyn Objects,
    ) -> Result<CompactTree, Unproven> {
        let mut tree = tree.clone();
        let mut index = begin / WIDTH * WIDTH;
        for tile in tiles {
            for entry in self.format.split_all(tile).map_err(Unproven::Passing)? {
                if (begin..end).contains(&index) {
                    tree.push(entry.leaf_hash());
                }
                index += 1;
            }
        }
        let proof = if end == target.size {
            Vec::new()
        } else {
            consistency_proof(end, target.size, &StoredNodes::new(objects, target.size))
                .map_err(Unproven::Passing)?
        };
        match verify_consistency((end, &tree.root()), (target.size, &target.root), &proof) {
            Ok(()) => Ok(tree),
            Err(e) => Err(Unproven::Wrong { proof, prefix_root: None, what: e.what().to_owned() }),
        }
    }
}

/// Why a proof was not one.
enum Unproven {
    /// The log could not be asked.
    Passing(Error),
    /// It does not hold. `prefix_root` is there when it holds for another root of the old size.
    Wrong { proof: Vec<Hash>, prefix_root: Option<Hash>, what: String },
}

/// Proves that the new checkpoint extends the one before, from the log's tiles.
fn prove(before: &Checkpoint, new: &Checkpoint, objects: &dyn Objects) -> Result<(), Unproven> {
    if before.size == new.size {
        let wrong =
            |what: String| Err(Unproven::Wrong { proof: Vec::new(), prefix_root: Some(new.root), what });
        return match verify_consistency((before.size, &before.root), (new.size, &new.root), &[]) {
            Ok(()) => Ok(()),
            Err(e) => wrong(e.what().to_owned()),
        };
    }
    let proof = consistency_proof(before.size, new.size, &StoredNodes::new(objects, new.size))
        .map_err(Unproven::Passing)?;
    verify_consistency((before.size, &before.root), (new.size, &new.root), &proof).map_err(|e| {
        // Does the proof hold for some other root of the size before? Then the log has another history.
        let prefix_root = prefix_root(before.size, new, &proof, objects);
        Unproven::Wrong { proof, prefix_root, what: e.what().to_owned() }
    })
}

/// A smaller checkpoint than the one that is known may come from a cache: it is, if the log can still prove that the known one
/// extends it.
fn is_older(new: &Checkpoint, before: &Checkpoint, objects: &Recorder<'_>) -> Result<(), Trouble> {
    let mut tries = 0;
    loop {
        tries += 1;
        let proof = consistency_proof(new.size, before.size, &StoredNodes::new(objects, before.size));
        let (proof, wrong) = match proof {
            Ok(proof) => {
                let trees = ((new.size, &new.root), (before.size, &before.root));
                match verify_consistency(trees.0, trees.1, &proof) {
                    Ok(()) => return Ok(()),
                    Err(e) => (Some(proof), e.what().to_owned()),
                }
            }
            // Tiles that the log once had are gone: it was put back.
            Err(e) if e.kind() == ErrorKind::Internal => (None, e.what().to_owned()),
            Err(e) => return Err(e.into()),
        };
        if tries == TRIES {
            return Err(Trouble::Broken(Box::new(Broken {
                reason: format!(
                    "the log has shrunk from {} entries to {}, and cannot prove the larger tree: {wrong}",
                    before.size, new.size
                ),
                before: None,
                after: Vec::new(),
                proof,
                prefix_root: None,
                objects: objects.take(),
            })));
        }
        let _ = objects.take();
    }
}

/// The root that the new tree has for its first `old` entries, if the proof shows that.
fn prefix_root(old: u64, new: &Checkpoint, proof: &[Hash], objects: &dyn Objects) -> Option<Hash> {
    let root = CompactTree::of(old, &StoredNodes::new(objects, new.size)).ok()?.root();
    verify_consistency((old, &root), (new.size, &new.root), proof).ok()?;
    Some(root)
}
