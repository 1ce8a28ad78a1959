//! A log in a bucket, which several processes may append to at a time: none of them can make it fork.
//!
//! ```text
//! checkpoint  tile/0/000  tile/entries/000  issuer/…     what any web server can serve
//! .state/journal                                         the newest batch
//! ```
//!
//! Everything rests on two objects that are replaced by compare-and-swap only (`If-Match` with the tag of the state that is
//! replaced, `If-None-Match: *` for the first):
//!
//! * The **journal** holds the newest batch. Replacing it is the step that puts entries in order and makes them durable. It is
//!   replaced only by a process that has seen a checkpoint which covers the batch in it: of all who want the next index, one
//!   wins, and the batch before is complete in tiles by then. So one object is enough, and it does not grow.
//! * The **checkpoint** comes after the tiles, as everywhere. Whoever finds that it lags behind the journal may finish the work:
//!   from the same batch at the same index come the same tiles, byte for byte, and the same tree.
//!
//! No clock, no lease, no lock: a process that was stopped for an hour in the middle of it writes tiles that are there already,
//! and loses its next swap. No two states of either object are the same bytes, so that no tag comes twice: the journal has a
//! number in it that is drawn for each batch, and the checkpoint grows.
//!
//! A request whose answer is lost may have been done, or may yet be. So after each failed swap the object is read: if it is
//! ours, it was done. If it is done later still, it is found by the next swap as if another process had done it.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use object_store::ObjectStore;
use rustix::fs::{FlockOperation, flock};
use signer_core::{Error, ErrorKind, Result};

use super::{
    Batch, Objects, Recovered, Storage, Swap,
    bucket::{Bucket, Tagged},
    journal::{decode, encode},
    local::lock,
    unavailable,
};
use crate::{
    checkpoint::Checkpoint,
    note::Note,
    tile::TileId,
    tree::{Hash, hash},
};

const JOURNAL: &str = ".state/journal";
const CHECKPOINT: &str = "checkpoint";
/// What begins the journal: `"SLB1" sealed u8 nonce [16] batch SHA-256`, the batch as in a folder's journal.
const MAGIC: &[u8; 4] = b"SLB1";
const HEAD: usize = 4 + 1 + 16;
/// How many partial forms of a tile stay for web servers that serve the bucket as it is.
const PARTIALS_KEPT: usize = 4;
/// How often to look for what others have appended.
const LOOK: Duration = Duration::from_secs(1);
/// How often a state is read that cannot be, before it is believed: an answer may be an old one.
const LOOKS: u32 = 5;

/// A log in a bucket, to be appended to.
#[derive(Debug)]
pub struct BucketStorage {
    bucket: Bucket,
    state: Option<State>,
    /// Locked by the one that appends; readers don't need it.
    seen: Mutex<Seen>,
}

/// A folder of this machine, locked.
#[derive(Debug)]
struct State {
    folder: PathBuf,
    lock: File,
}

/// The states that the next swaps replace, as they were read or written last.
#[derive(Debug, Default)]
struct Seen {
    journal: Option<Tagged>,
    /// How many entries the log has with those of the journal.
    end: u64,
    checkpoint: Option<Tagged>,
    sealed: bool,
    /// The newest partial forms that this process wrote of each tile at the edge.
    partials: BTreeMap<String, Vec<String>>,
}

impl Seen {
    /// How many entries the checkpoint covers; `None` when the journal has more. Everything rests on that: a journal is replaced
    /// only when a checkpoint covers it, also by whoever found it and could not finish it.
    fn covered(&self) -> Option<u64> {
        let size = self.checkpoint.as_ref().map_or(0, |c| stated_size(&c.bytes));
        (self.end <= size).then_some(size)
    }
}

impl BucketStorage {
    /// The log under a prefix. `state` is a folder of this machine for what can be made again. Fails when the store does not
    /// do conditional writes.
    pub fn open(store: Arc<dyn ObjectStore>, prefix: &str, state: Option<PathBuf>) -> Result<Self> {
        let state = state.map(State::open).transpose()?;
        let bucket = Bucket::new(store, prefix)?;
        bucket.prove_conditional_writes(&format!(".state/probe-{}", hex::encode(nonce()?)))?;
        Ok(Self { bucket, state, seen: Mutex::default() })
    }

    /// The objects, those of `.state` too.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces an object that must be in the state that was seen, and remembers the new state. A swap of which nobody knows
    /// whether it was done is looked at again.
    fn swap(&self, name: &str, seen: &mut Option<Tagged>, bytes: &[u8]) -> Result<Swap> {
        let (error, now) = match self.bucket.swap(name, bytes, seen.as_ref().map(|s| &*s.tag)) {
            Ok(Some(tag)) => {
                *seen = Some(Tagged { bytes: bytes.to_vec(), tag });
                return Ok(Swap::Done);
            }
            Ok(None) => (None, self.bucket.tagged(name)?),
            Err(error) => {
                let error = passing(error);
                let Ok(now) = self.bucket.tagged(name) else { return Err(error) };
                (Some(error), now)
            }
        };
        if now.as_ref().is_some_and(|now| now.bytes == bytes) {
            *seen = now;
            return Ok(Swap::Done);
        }
        match error {
            // It was refused, or it is still on its way: then the next swap will find it.
            Some(error) if now == *seen => Err(error),
            _ => Ok(Swap::Overtaken),
        }
    }

    /// Reads both objects, the journal first: then the checkpoint covers at least all that was before the journal's batch.
    fn look(&self) -> Result<(Option<Tagged>, Option<Record>, Option<Tagged>)> {
        let mut looks = 0;
        loop {
            looks += 1;
            let journal = self.bucket.tagged(JOURNAL).map_err(passing)?;
            let checkpoint = self.bucket.tagged(CHECKPOINT).map_err(passing)?;
            let record = journal.as_ref().map(|j| Record::from_bytes(&j.bytes)).transpose()?;
            let size = checkpoint.as_ref().map_or(0, |c| stated_size(&c.bytes));
            let Some(begin) = record.as_ref().map(|r| r.batch.begin).filter(|begin| *begin > size) else {
                return Ok((journal, record, checkpoint));
            };
            if looks == LOOKS {
                return Err(Error::new(
                    ErrorKind::DeviceGone,
                    format!("the bucket's journal goes on at entry {begin}, and its checkpoint covers only {size}"),
                )
                .next(
                    "the bucket gives old answers, or somebody has put back an old checkpoint: restore the newest \
                     one from a mirror",
                ));
            }
            std::thread::sleep(Duration::from_millis(100) * looks);
        }
    }
}

impl State {
    fn open(folder: PathBuf) -> Result<Self> {
        let cannot = |e: io::Error| {
            unavailable(format!("the folder {} for the log's index cannot be used", folder.display()), &e)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(cannot)?;
        match lock(&folder.join("lock")).map_err(cannot)? {
            Ok(lock) => Ok(Self { folder, lock }),
            Err(pid) => Err(Error::new(
                ErrorKind::Busy { retry_after: Duration::from_secs(1) },
                format!("the folder {} is in use by another signer-log ({pid})", folder.display()),
            )
            .next("give each server of a bucket its own --state")),
        }
    }
}

impl Drop for State {
    /// A child that was started a moment ago may still have the lock's file: it is given back, not only closed.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Objects for BucketStorage {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.bucket.read(name)
    }
}

impl Storage for BucketStorage {
    fn recover(&self) -> Result<Recovered> {
        let (journal, record, checkpoint) = self.look()?;
        let size = checkpoint.as_ref().map_or(0, |c| stated_size(&c.bytes));
        let sealed = record.as_ref().is_some_and(|r| r.sealed);
        let end = record.as_ref().map_or(0, |r| r.batch.end());
        let batches = record
            .map(|record| record.batch)
            .filter(|batch| !batch.entries.is_empty() && batch.end() >= size)
            .into_iter()
            .collect();
        let note = checkpoint.as_ref().map(|c| c.bytes.clone());
        let mut seen = self.seen();
        (seen.journal, seen.end, seen.checkpoint, seen.sealed) = (journal, end, checkpoint, sealed);
        Ok(Recovered { snapshot: None, batches, checkpoint: note, sealed })
    }

    fn stage(&self, batch: &Batch, _snapshot: &dyn Fn() -> Vec<u8>) -> Result<Swap> {
        let record = Record { sealed: false, batch: batch.clone() }.to_bytes(nonce()?);
        let mut seen = self.seen();
        if seen.sealed {
            return Err(Error::new(ErrorKind::Denied, "this log has been frozen")
                .next("switch to the log that has taken its place"));
        }
        if seen.covered() != Some(batch.begin) {
            return Ok(Swap::Overtaken);
        }
        let swap = self.swap(JOURNAL, &mut seen.journal, &record)?;
        if swap == Swap::Done {
            seen.end = batch.end();
        }
        Ok(swap)
    }

    fn write_tiles(&self, tiles: &[(TileId, Vec<u8>)]) -> Result<()> {
        let objects = tiles.iter().map(|(id, bytes)| (id.to_string(), bytes.clone().into())).collect();
        self.bucket.write_all(objects).map_err(passing)?;
        let (mut names, mut folders) = (Vec::new(), Vec::new());
        let mut seen = self.seen();
        for (id, _) in tiles {
            let folder = format!("{}.p", id.stem());
            if id.is_full() {
                seen.partials.remove(&folder);
                folders.push(folder);
                continue;
            }
            let kept = seen.partials.entry(folder).or_default();
            let name = id.to_string();
            kept.retain(|there| *there != name);
            kept.push(name);
            if kept.len() > PARTIALS_KEPT {
                names.push(kept.remove(0));
            }
        }
        drop(seen);
        self.bucket.forget(&names, &folders);
        Ok(())
    }

    fn publish(&self, expected: Option<&[u8]>, checkpoint: &[u8]) -> Result<Swap> {
        let mut seen = self.seen();
        if seen.checkpoint.as_ref().map(|c| &c.bytes[..]) != expected {
            return Ok(Swap::Overtaken);
        }
        self.swap(CHECKPOINT, &mut seen.checkpoint, checkpoint)
    }

    fn seal(&self) -> Result<Swap> {
        let mut seen = self.seen();
        let Some(begin) = seen.covered() else { return Ok(Swap::Overtaken) };
        let record = Record { sealed: true, batch: Batch { begin, entries: Vec::new() } };
        let swap = self.swap(JOURNAL, &mut seen.journal, &record.to_bytes(nonce()?))?;
        if swap == Swap::Done {
            (seen.sealed, seen.end) = (true, begin);
        }
        Ok(swap)
    }

    fn shared(&self) -> Option<Duration> {
        Some(LOOK)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.bucket.create(name, bytes).map(drop).map_err(passing)
    }

    fn state_folder(&self) -> Option<&Path> {
        self.state.as_ref().map(|state| &*state.folder)
    }
}

/// Rights that are missing may be given back: for a log that is open that is no other case than a store that is away.
fn passing(e: Error) -> Error {
    match e.kind() {
        ErrorKind::Denied | ErrorKind::NotFound => {
            let advice = e.advice().unwrap_or_default().to_owned();
            Error::new(ErrorKind::DeviceGone, e.what().to_owned()).vendor(&e).next(advice)
        }
        _ => e,
    }
}

/// The size that a checkpoint states. Whether it may be believed is found out by whoever has the key.
fn stated_size(note: &[u8]) -> u64 {
    Note::parse(note).and_then(|note| Checkpoint::from_text(note.text())).map_or(0, |c| c.size)
}

fn nonce() -> Result<[u8; 16]> {
    let mut nonce = [0; 16];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(nonce)
}

/// What the journal says.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    /// Whether the log takes on nothing more.
    sealed: bool,
    batch: Batch,
}

impl Record {
    fn to_bytes(&self, nonce: [u8; 16]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(u8::from(self.sealed));
        out.extend(nonce);
        out.extend(encode(&self.batch));
        out.extend(hash(&[&out]));
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::internal("the bucket's journal is damaged: entries that were acknowledged may be lost")
                .next("restore the log from a mirror or a backup; do not delete the journal")
        };
        let (body, sum): (_, &Hash) = bytes.split_last_chunk().ok_or_else(damaged)?;
        let (head, batch) = body.split_at_checked(HEAD).ok_or_else(damaged)?;
        if !head.starts_with(MAGIC) || head[4] > 1 || hash(&[body]) != *sum {
            return Err(damaged());
        }
        Ok(Self { sealed: head[4] == 1, batch: decode(&Bytes::copy_from_slice(batch))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Entry;

    fn batch(begin: u64, text: &'static [u8]) -> Batch {
        Batch { begin, entries: vec![Entry { data: Bytes::from_static(text), leaf_hash: [7; 32] }] }
    }

    /// Whoever finds a batch of another server and cannot finish it, because the store fails then, has to try that again first.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_batch_that_no_checkpoint_covers_is_not_replaced() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let [one, other] = [(); 2].map(|()| BucketStorage::open(store.clone(), "log", None).unwrap());
        assert_eq!(one.stage(&batch(0, b"one"), &Vec::new).unwrap(), Swap::Done);
        let found = other.recover().unwrap();
        assert_eq!(found.batches, [batch(0, b"one")]);
        assert_eq!(other.stage(&batch(0, b"other"), &Vec::new).unwrap(), Swap::Overtaken);
        assert_eq!(other.seal().unwrap(), Swap::Overtaken);
        assert_eq!(one.stage(&batch(0, b"one again"), &Vec::new).unwrap(), Swap::Overtaken);
        assert_eq!(other.recover().unwrap().batches, [batch(0, b"one")]);
        // A checkpoint covers it.
        let checkpoint = Checkpoint { origin: "log".into(), size: 1, root: [0; 32], extensions: Vec::new() };
        let note = format!("{}\n\u{2014} log AAAAAAAA\n", checkpoint.to_text());
        assert_eq!(other.publish(None, note.as_bytes()).unwrap(), Swap::Done);
        assert_eq!(other.stage(&batch(1, b"other"), &Vec::new).unwrap(), Swap::Done);
    }

    #[test]
    fn a_record_is_read_back_and_damage_is_noticed() {
        let entries = batch(9, b"entry").entries;
        for record in [
            Record { sealed: false, batch: Batch { begin: 9, entries } },
            Record { sealed: true, batch: Batch { begin: 9, entries: Vec::new() } },
        ] {
            let bytes = record.to_bytes([1; 16]);
            assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert!(Record::from_bytes(&bad).is_err(), "byte {at}");
                assert!(Record::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
            }
        }
    }
}
