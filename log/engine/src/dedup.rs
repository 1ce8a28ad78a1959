//! Which entries are in the log already.
//!
//! What is new lies in memory, all else in SQLite: a part of each entry's identity, and its index. The file is made from the
//! log and can be made again: it is behind the log by a second or two, and a start reads the entries that it misses. A find
//! in the file counts only when the entry at that index really is the same.
//!
//! Identities are hashes. In a long log each new one belongs into a page of its own, and writing a page for an entry costs more
//! than all else that the log does for it. So entries come into a small table first, and a hand goes round all identities,
//! once for each [`SWEEP`] entries: what it passes moves on to the large table, many to a page. Where the hand is follows from
//! the size of the log.

use std::{
    collections::HashMap,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, params};
use signer_core::{Error, Result};
use tokio::sync::oneshot;

use crate::{
    format::Format,
    storage::{Objects, Storage, read_entry_tile},
    tile::{TileId, WIDTH},
    tree::Hash,
};

/// How much of an identity is stored. Two entries that have so much in common cost nobody anything but that the second can be
/// appended twice.
const STORED: usize = 10;
/// Another form of the file is made anew.
const VERSION: i64 = 2;
/// How many entries go into the file at once, and how long they wait for each other.
const FLUSH_ENTRIES: usize = 8192;
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// In how many entries the hand goes round; on the average half as many are in the small table, which fits into the cache.
const SWEEP: u64 = 1 << 18;
/// Steps of a round: what identities begin with.
const STEPS: u64 = 1 << 16;

/// The older one first: it is the one that counts.
const LOOK_UP: &str =
    "SELECT at FROM entries WHERE identity = ?1 UNION ALL SELECT at FROM young WHERE identity = ?1 LIMIT 1";

/// Where an entry is, or will be.
pub(crate) enum Place {
    /// Nowhere: the caller has it now, and must end with [`Dedup::published`] or [`Dedup::failed`].
    New,
    /// On its way in.
    Coming(oneshot::Receiver<Result<u64>>),
    /// In the log.
    Published(u64),
}

/// The index of a log's entries by their identity.
pub(crate) struct Dedup {
    memory: Arc<Mutex<Memory>>,
    reader: Option<Mutex<Connection>>,
    to_file: Option<SyncSender<Vec<(Hash, u64)>>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Memory {
    coming: HashMap<Hash, Vec<oneshot::Sender<Result<u64>>>>,
    recent: HashMap<Hash, u64>,
}

impl Dedup {
    /// Opens the file beside the log and brings it up to the log's size. Without a folder, what a start finds is not known.
    pub(crate) fn open(storage: &dyn Storage, format: Format, size: u64) -> Result<Self> {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let Some(folder) = storage.state_folder() else {
            return Ok(Self { memory, reader: None, to_file: None, writer: None });
        };
        let path = folder.join("entries.sqlite");
        let known = match connect(&path).and_then(|c| Ok((indexed(&c)?, c))) {
            Ok((indexed, connection)) if indexed <= size => Some((indexed, connection)),
            _ => None,
        };
        let (indexed, mut connection) = if let Some(known) = known {
            known
        } else {
            // Damaged, or of a log that was longer once: it is only an index.
            tracing::warn!("the index {} is made anew", path.display());
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(folder.join(format!("entries.sqlite{suffix}")));
            }
            (0, connect(&path).map_err(|e| failed(&e))?)
        };
        catch_up(&mut connection, storage, format, indexed, size)?;
        let reader = connect(&path).map_err(|e| failed(&e))?;
        // Enough for all but the leaves of ten million entries; those come from the system's cache.
        reader.pragma_update(None, "cache_size", -2048).map_err(|e| failed(&e))?;
        let reader = Mutex::new(reader);
        let (to_file, entries) = sync_channel(64);
        let shared = memory.clone();
        let writer = std::thread::Builder::new()
            .name("log-index".into())
            .spawn(move || write_all(&mut connection, &entries, &shared))
            .map_err(|e| Error::internal("a thread cannot be started").vendor(e))?;
        Ok(Self { memory, reader: Some(reader), to_file: Some(to_file), writer: Some(writer) })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Looks an entry up, and takes it if it is new.
    pub(crate) fn take(&self, identity: &Hash, storage: &dyn Objects, format: Format) -> Result<Place> {
        {
            let mut memory = self.memory();
            if let Some(index) = memory.recent.get(identity) {
                return Ok(Place::Published(*index));
            }
            if let Some(waiting) = memory.coming.get_mut(identity) {
                let (tell, told) = oneshot::channel();
                waiting.push(tell);
                return Ok(Place::Coming(told));
            }
            memory.coming.insert(*identity, Vec::new());
        }
        // Entries leave the memory only after they are in the file: one that was not in the memory is found now or never.
        match self.in_file(identity, storage, format) {
            Ok(None) => Ok(Place::New),
            Ok(Some(index)) => {
                let waiting = self.memory().coming.remove(identity);
                waiting.into_iter().flatten().for_each(|tell| drop(tell.send(Ok(index))));
                Ok(Place::Published(index))
            }
            Err(e) => {
                self.failed(std::slice::from_ref(identity), &e);
                Err(e)
            }
        }
    }

    fn in_file(&self, identity: &Hash, storage: &dyn Objects, format: Format) -> Result<Option<u64>> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let index: Option<i64> = lock(reader)
            .prepare_cached(LOOK_UP)
            .and_then(|mut query| query.query_row([&identity[..STORED]], |row| row.get(0)).optional())
            .map_err(|e| failed(&e))?;
        let Some(index) = index.and_then(|i| u64::try_from(i).ok()) else { return Ok(None) };
        let id = TileId::new(format.tile_kind(), index / WIDTH, index % WIDTH + 1)
            .ok_or_else(|| Error::internal("the index of an entry makes no tile"))?;
        let tile = read_entry_tile(storage, format, id)?;
        let same = format.split_all(&tile)?.last().is_some_and(|entry| entry.identity() == *identity);
        Ok(same.then_some(index))
    }

    /// Looks an entry up that the caller has taken already.
    pub(crate) fn find(&self, identity: &Hash, storage: &dyn Objects, format: Format) -> Result<Option<u64>> {
        if let Some(index) = self.memory().recent.get(identity) {
            return Ok(Some(*index));
        }
        self.in_file(identity, storage, format)
    }

    /// Takes over what other processes have put into the log.
    pub(crate) fn learn(&self, storage: &dyn Objects, format: Format, from: u64, size: u64) -> Result<()> {
        each_tile(storage, format, from, size, |entries| {
            self.published(entries);
            Ok(())
        })
    }

    /// Entries are in the log, from this index on.
    pub(crate) fn published(&self, entries: Vec<(Hash, u64)>) {
        {
            let mut memory = self.memory();
            for (identity, index) in &entries {
                let waiting = memory.coming.remove(identity);
                waiting.into_iter().flatten().for_each(|tell| drop(tell.send(Ok(*index))));
                if self.to_file.is_some() {
                    memory.recent.insert(*identity, *index);
                }
            }
        }
        // Waits when the file is far behind: memory does not grow without end.
        if let Some(to_file) = &self.to_file {
            let _ = to_file.send(entries);
        }
    }

    /// Entries are not in the log.
    pub(crate) fn failed(&self, identities: &[Hash], error: &Error) {
        let mut memory = self.memory();
        for identity in identities {
            let waiting = memory.coming.remove(identity);
            waiting.into_iter().flatten().for_each(|tell| drop(tell.send(Err(error.clone()))));
        }
    }
}

impl Drop for Dedup {
    fn drop(&mut self) {
        self.to_file = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(e: &rusqlite::Error) -> Error {
    Error::internal("the index of the log's entries cannot be used")
        .vendor(e)
        .next("stop the log and delete .state/entries.sqlite*: it is made anew")
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let empty: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !empty && version != VERSION {
        return Err(rusqlite::Error::InvalidQuery);
    }
    // NORMAL: consistent after a power cut, and without waiting for the disk at each commit. A write-ahead log of 32 MiB brings
    // pages into the file, and to the disk, an eighth as often as the usual one.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -4096;
         PRAGMA wal_autocheckpoint = 8192;
         CREATE TABLE IF NOT EXISTS entries (identity BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS young (identity BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL);
         INSERT OR IGNORE INTO progress VALUES (1, 0);
         PRAGMA user_version = 2;",
    )?;
    Ok(connection)
}

/// Up to which index the file knows the log.
fn indexed(connection: &Connection) -> rusqlite::Result<u64> {
    let size: i64 = connection.query_row("SELECT size FROM progress", [], |row| row.get(0))?;
    Ok(size as u64)
}

fn catch_up(
    connection: &mut Connection,
    storage: &dyn Objects,
    format: Format,
    from: u64,
    size: u64,
) -> Result<()> {
    each_tile(storage, format, from, size, |entries| insert(connection, &entries).map_err(|e| failed(&e)))
}

/// Reads the entries from one index to another, a tile at a time: their identities and indices.
fn each_tile(
    storage: &dyn Objects,
    format: Format,
    from: u64,
    size: u64,
    mut take: impl FnMut(Vec<(Hash, u64)>) -> Result<()>,
) -> Result<()> {
    let mut at = from;
    while at < size {
        let tile = at / WIDTH;
        let width = (size - tile * WIDTH).min(WIDTH);
        let id =
            TileId::new(format.tile_kind(), tile, width).ok_or_else(|| Error::internal("no such tile"))?;
        let bytes = read_entry_tile(storage, format, id)?;
        let entries = format.split_all(&bytes)?;
        let new = entries
            .iter()
            .enumerate()
            .map(|(i, e)| (e.identity(), tile * WIDTH + i as u64))
            .filter(|(_, i)| *i >= at);
        take(new.collect())?;
        at = tile * WIDTH + width;
    }
    Ok(())
}

/// Puts entries in, and moves those on that the hand passes; the first of two with the same identity stays.
fn insert(connection: &mut Connection, entries: &[(Hash, u64)]) -> rusqlite::Result<()> {
    let Some(end) = entries.iter().map(|(_, index)| index + 1).max() else { return Ok(()) };
    let transaction = connection.transaction()?;
    let begin = indexed(&transaction)?;
    {
        let mut query = transaction.prepare_cached("INSERT OR IGNORE INTO young VALUES (?1, ?2)")?;
        // In the order of the tree: neighbours share pages.
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_unstable();
        for (identity, index) in sorted {
            query.execute(params![&identity[..STORED], index.cast_signed()])?;
        }
        transaction.execute("UPDATE progress SET size = ?1", [end.cast_signed()])?;
    }
    for steps in passed(begin, end) {
        move_on(&transaction, steps)?;
    }
    transaction.commit()
}

/// The steps that the hand takes while a log grows from one size to another: one range, or two beyond the last step.
fn passed(begin: u64, end: u64) -> impl Iterator<Item = Range<u64>> {
    let hand = |size| size / (SWEEP / STEPS);
    let steps = hand(end).saturating_sub(hand(begin)).min(STEPS);
    let from = hand(begin) % STEPS;
    let beyond = (from + steps).saturating_sub(STEPS);
    [from..from + steps - beyond, 0..beyond].into_iter().filter(|steps| !steps.is_empty())
}

/// Moves what begins with one of these from the small table to the large one.
fn move_on(connection: &Connection, steps: Range<u64>) -> rusqlite::Result<()> {
    // The end of the last step is greater than every identity.
    let prefix = |step: u64| match u16::try_from(step) {
        Ok(step) => step.to_be_bytes().to_vec(),
        Err(_) => vec![0xff; STORED + 1],
    };
    let range = params![prefix(steps.start), prefix(steps.end)];
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO entries SELECT identity, at FROM young
             WHERE identity >= ?1 AND identity < ?2 ORDER BY identity",
        )?
        .execute(range)?;
    connection.prepare_cached("DELETE FROM young WHERE identity >= ?1 AND identity < ?2")?.execute(range)?;
    Ok(())
}

fn write_all(connection: &mut Connection, incoming: &Receiver<Vec<(Hash, u64)>>, memory: &Mutex<Memory>) {
    let mut open = true;
    while open {
        let Ok(mut entries) = incoming.recv() else { return };
        let until = Instant::now() + FLUSH_AFTER;
        while entries.len() < FLUSH_ENTRIES {
            match incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(more) => entries.extend(more),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        // A disk that is full now may have room later; until then what is new stays in memory.
        while let Err(e) = insert(connection, &entries) {
            tracing::warn!("the index of entries cannot be written: {e}");
            if !open {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut memory = lock(memory);
        for (identity, _) in &entries {
            memory.recent.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::leaf_hash;

    #[test]
    fn the_hand_goes_round_once_in_a_sweep() {
        let steps = |begin, end| passed(begin, end).map(|s| (s.start, s.end)).collect::<Vec<_>>();
        assert_eq!(steps(0, 3), []);
        assert_eq!(steps(3, 4), [(0, 1)]);
        assert_eq!(steps(0, SWEEP), [(0, STEPS)]);
        assert_eq!(steps(SWEEP - 4, SWEEP + 8), [(STEPS - 1, STEPS), (0, 2)]);
        assert_eq!(steps(SWEEP / 2, 9 * SWEEP), [(STEPS / 2, STEPS), (0, STEPS / 2)]);
        assert_eq!(steps(9, 4), []);
    }

    #[test]
    fn entries_move_on_and_are_found_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = connect(&folder.path().join("entries.sqlite")).unwrap();
        let entries = |from: u64, count: u64| -> Vec<_> {
            (from..from + count).map(|index| (leaf_hash(&index.to_be_bytes()), index)).collect()
        };
        let count = |connection: &Connection, table: &str| -> u64 {
            let count: i64 =
                connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            count as u64
        };
        let (first, second) = (entries(SWEEP - 2000, 2000), entries(SWEEP, 2000));
        // From 0 to here is a whole round.
        insert(&mut connection, &first).unwrap();
        assert_eq!((count(&connection, "young"), count(&connection, "entries")), (0, 2000));
        insert(&mut connection, &second).unwrap();
        let (young, old) = (count(&connection, "young"), count(&connection, "entries"));
        assert!(young > 1900 && old > 2000 && young + old == 4000, "{young} and {old}");
        // The same again, as after a crash: what is there stays as it is.
        let again: Vec<_> = second.iter().map(|(identity, index)| (*identity, index + 2000)).collect();
        insert(&mut connection, &again).unwrap();
        for (identity, index) in first.iter().chain(&second) {
            let at: i64 = connection.query_row(LOOK_UP, [&identity[..STORED]], |row| row.get(0)).unwrap();
            assert_eq!(at as u64, *index);
        }
        insert(&mut connection, &entries(2 * SWEEP + 4000, 1)).unwrap();
        assert_eq!((count(&connection, "young"), count(&connection, "entries")), (0, 4001));
    }
}
