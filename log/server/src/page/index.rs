//! What the page finds entries by, and the history of checkpoints: a SQLite file beside the log, made from the log, behind it by
//! a moment, and made anew when it is missing or damaged.
//!
//! A thread of the lowest priority writes it: under load it falls behind, and no caller of the log waits for it.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use signer_core::{Error, Result};
use signer_log_engine::{Format, Log, TileId, WIDTH, now_millis, read_entry_tile};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::hashes;
use crate::decode::Decoded;

/// Entries that go into the file at once.
const TILES: u64 = 8;
/// How long what is new may wait for more.
const PAUSE: Duration = Duration::from_millis(250);
/// While the log grows, the thread rests so many times as long as it has worked.
const REST: u32 = 9;
/// Checkpoints of each minute are kept for a week, then those of each hour.
const MINUTE: u64 = 60_000;
const WEEK: u64 = 7 * 24 * 60;
/// Another form of the file is made anew.
const VERSION: i64 = 3;

/// A checkpoint of the past.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) size: u64,
    /// Milliseconds since 1970, when it was seen.
    pub(super) seen: u64,
    pub(super) note: String,
}

/// The file, to be read.
pub(super) struct Index {
    reader: Mutex<Connection>,
    /// Whether entries are in it, or checkpoints alone.
    pub(super) searchable: bool,
}

/// What was found by a name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) indices: Vec<u64>,
    pub(super) more: bool,
}

impl Index {
    /// Opens the file in this folder and keeps it up to date with the log until `stopped`. The receiver ends when the file is
    /// closed.
    pub(super) fn open(
        folder: &Path,
        log: &Log,
        searchable: bool,
        stopped: watch::Receiver<bool>,
    ) -> Result<(Self, oneshot::Receiver<()>)> {
        let path = folder.join("search.sqlite");
        let writer = match connect(&path) {
            Ok(connection) if progress(&connection).is_ok_and(|at| at <= log.published().checkpoint.size) => {
                connection
            }
            _ => {
                // Damaged, or of a log that was longer once: it is only an index.
                tracing::warn!("the search index {} is made anew", path.display());
                remove(&path);
                connect(&path).map_err(|e| failed(&e))?
            }
        };
        let reader = Mutex::new(connect(&path).map_err(|e| failed(&e))?);
        let (done, ended) = oneshot::channel();
        let (log, runtime) = (log.clone(), Handle::current());
        std::thread::Builder::new()
            .name("log-search".into())
            .spawn(move || {
                lowest_priority();
                Writer { connection: writer, log, searchable, last_prune: 0 }.run(&runtime, stopped);
                let _ = done.send(());
            })
            .map_err(|e| Error::internal("a thread cannot be started").vendor(e))?;
        Ok((Self { reader, searchable }, ended))
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries are in the index.
    pub(super) fn progress(&self) -> Result<u64> {
        progress(&self.reader()).map_err(|e| failed(&e))
    }

    /// Entries that may have a hash in them: digest, or fingerprint of a key; the newest first. In a certificate log leaf hashes
    /// too; the leaf hashes of a signature log are known to the log itself ([`Log::find`]).
    pub(super) fn by_hash(&self, hash: &[u8], most: usize) -> Result<Vec<u64>> {
        let find = || {
            // What is packed meanwhile is in one place or in the other.
            let reader = self.reader();
            let now = reader.unchecked_transaction()?;
            hashes::find(&now, hash, most, progress(&now)?)
        };
        find().map_err(|e| failed(&e))
    }

    /// Names that have this text in them, and their newest entries.
    pub(super) fn by_name(&self, text: &str, names: usize, entries: usize) -> Result<Vec<Named>> {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let find = || {
            let reader = self.reader();
            // The name itself first, then the shortest.
            let mut query = reader.prepare_cached(
                "SELECT id, name FROM names WHERE name LIKE ?1 ESCAPE '\\' ORDER BY name <> ?2 COLLATE NOCASE, length(name), name LIMIT ?3",
            )?;
            let pattern = format!("%{escaped}%");
            let rows = query.query_map(params![pattern, text, limit(names)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut found = Vec::new();
            for row in rows {
                let (id, name) = row?;
                let mut query = reader
                    .prepare_cached("SELECT at FROM named WHERE name = ?1 ORDER BY at DESC LIMIT ?2")?;
                let rows = query.query_map(params![id, limit(entries + 1)], |row| row.get::<_, i64>(0))?;
                let mut indices =
                    rows.map(|at| at.map(i64::cast_unsigned)).collect::<rusqlite::Result<Vec<_>>>()?;
                let more = indices.len() > entries;
                indices.truncate(entries);
                found.push(Named { name, indices, more });
            }
            Ok(found)
        };
        find().map_err(|e: rusqlite::Error| failed(&e))
    }

    /// Checkpoints of the past before a time, the newest first.
    pub(super) fn history(&self, before: u64, most: usize) -> Result<Vec<Past>> {
        let read = || {
            let reader = self.reader();
            let mut query = reader.prepare_cached(
                "SELECT size, seen, note FROM checkpoints WHERE seen < ?1 ORDER BY minute DESC LIMIT ?2",
            )?;
            let rows = query.query_map(params![before.cast_signed(), limit(most)], past)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| failed(&e))
    }

    /// The newest checkpoint of the past of this size.
    pub(super) fn checkpoint(&self, size: u64) -> Result<Option<Past>> {
        let read = || {
            let reader = self.reader();
            let mut query = reader.prepare_cached(
                "SELECT size, seen, note FROM checkpoints WHERE size = ?1 ORDER BY minute DESC LIMIT 1",
            )?;
            let mut rows = query.query_map([size.cast_signed()], past)?;
            rows.next().transpose()
        };
        read().map_err(|e| failed(&e))
    }
}

/// A number of rows as SQLite wants it.
pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn past(row: &rusqlite::Row<'_>) -> rusqlite::Result<Past> {
    Ok(Past {
        size: row.get::<_, i64>(0)?.cast_unsigned(),
        seen: row.get::<_, i64>(1)?.cast_unsigned(),
        note: row.get(2)?,
    })
}

fn failed(e: &rusqlite::Error) -> Error {
    Error::internal("the search index cannot be used")
        .vendor(e)
        .next("stop the log and delete .state/search.sqlite*: it is made anew")
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != 0 && version != VERSION {
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2048;
         PRAGMA wal_autocheckpoint = 8192;
         CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
         CREATE TABLE IF NOT EXISTS named (name INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (name, at)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS checkpoints (minute INTEGER PRIMARY KEY, size INTEGER NOT NULL, seen INTEGER NOT NULL,
            note TEXT NOT NULL);
         CREATE INDEX IF NOT EXISTS checkpoints_of_size ON checkpoints (size);
         CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL);
         INSERT OR IGNORE INTO progress VALUES (1, 0);
         PRAGMA user_version = 3;",
    )?;
    connection.execute_batch(hashes::SCHEMA)?;
    Ok(connection)
}

fn progress(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT size FROM progress", [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// This thread gives way to all others.
fn lowest_priority() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
}

/// Waits, until the end at the longest.
fn rest(runtime: &Handle, stopped: &mut watch::Receiver<bool>, time: Duration) {
    let _ =
        runtime.block_on(async { tokio::time::timeout(time, stopped.wait_for(|stopped| *stopped)).await });
}

/// The thread that writes.
struct Writer {
    connection: Connection,
    log: Log,
    searchable: bool,
    last_prune: u64,
}

impl Writer {
    fn run(mut self, runtime: &Handle, mut stopped: watch::Receiver<bool>) {
        let mut published = self.log.watch();
        published.mark_changed();
        let mut warned = false;
        loop {
            let go_on = !*stopped.borrow()
                && runtime.block_on(async {
                    tokio::select! {
                        changed = published.changed() => changed.is_ok(),
                        _ = stopped.changed() => false,
                    }
                });
            if !go_on {
                return;
            }
            loop {
                let (began, batches) = (Instant::now(), self.log.batches());
                let done = self.remember_checkpoint().and_then(|()| self.index_some());
                match done {
                    Ok(true) if *stopped.borrow() => return,
                    // Whoever appends needs the processor and the disk more.
                    Ok(true) if self.log.batches() > batches => {
                        rest(runtime, &mut stopped, began.elapsed() * REST);
                    }
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => {
                        if !std::mem::replace(&mut warned, true) {
                            tracing::warn!("the search index is behind: {e}");
                        }
                        // Wait for the next change before trying again.
                        break;
                    }
                }
            }
            // What comes in the meantime is written together.
            rest(runtime, &mut stopped, PAUSE);
        }
    }

    /// The last checkpoint of each minute.
    fn remember_checkpoint(&mut self) -> Result<()> {
        let published = self.log.published();
        let now = now_millis();
        let store = |this: &Self| {
            this.connection.execute(
                "INSERT INTO checkpoints VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (minute) DO UPDATE SET size = ?2, seen = ?3, note = ?4 WHERE note <> ?4",
                params![
                    (now / MINUTE).cast_signed(),
                    published.checkpoint.size.cast_signed(),
                    now.cast_signed(),
                    &*published.note
                ],
            )
        };
        // The same one once: a start finds it there already.
        let newest = self.connection.query_row(
            "SELECT note FROM checkpoints ORDER BY minute DESC LIMIT 1",
            [],
            |row| row.get::<_, String>(0),
        );
        if newest.is_ok_and(|note| *note == *published.note) {
            return Ok(());
        }
        store(self).map_err(|e| failed(&e))?;
        if now / MINUTE >= self.last_prune + 60 {
            self.last_prune = now / MINUTE;
            let prune = "DELETE FROM checkpoints WHERE minute < ?1
                AND minute NOT IN (SELECT max(minute) FROM checkpoints GROUP BY minute / 60)";
            self.connection
                .execute(prune, [(now / MINUTE).saturating_sub(WEEK).cast_signed()])
                .map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Puts the next entries in. `false` when there are none.
    fn index_some(&mut self) -> Result<bool> {
        if !self.searchable {
            return Ok(false);
        }
        let begin = progress(&self.connection).map_err(|e| failed(&e))?;
        let size = self.log.published().checkpoint.size;
        let end = ((begin / WIDTH + TILES) * WIDTH).min(size);
        if begin >= end {
            return Ok(false);
        }
        let format = self.log.format();
        let (mut hashes, mut names) = (Vec::new(), Vec::new());
        for tile in begin / WIDTH..end.div_ceil(WIDTH) {
            let id = TileId::new(format.tile_kind(), tile, (size - tile * WIDTH).min(WIDTH))
                .ok_or_else(|| Error::internal("no such tile"))?;
            let bytes = read_entry_tile(&**self.log.storage(), format, id)?;
            for (at, entry) in format.split_all(&bytes)?.iter().enumerate() {
                let index = tile * WIDTH + at as u64;
                if !(begin..end).contains(&index) {
                    continue;
                }
                let decoded = Decoded::new(entry, format);
                if format == Format::Certificates {
                    hashes.push((decoded.leaf_hash.to_vec(), index));
                }
                hashes.extend(decoded.digests.iter().map(|d| (d.digest.clone(), index)));
                hashes.extend(decoded.signers.iter().map(|s| (s.fingerprint.to_vec(), index)));
                names.extend(decoded.identities().map(|san| (san.value.clone(), index)));
            }
        }
        self.insert(&hashes, &names, begin, end).map_err(|e| failed(&e))?;
        Ok(true)
    }

    fn insert(
        &mut self,
        hashes: &[(Vec<u8>, u64)],
        names: &[(String, u64)],
        begin: u64,
        end: u64,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            hashes::insert(&transaction, hashes, begin, end)?;
            let mut name = transaction.prepare_cached("INSERT OR IGNORE INTO names (name) VALUES (?1)")?;
            let mut id = transaction.prepare_cached("SELECT id FROM names WHERE name = ?1")?;
            let mut named = transaction.prepare_cached("INSERT OR IGNORE INTO named VALUES (?1, ?2)")?;
            for (text, index) in names {
                name.execute([text])?;
                let id: i64 = id.query_row([text], |row| row.get(0))?;
                named.execute(params![id, index.cast_signed()])?;
            }
            transaction.execute("UPDATE progress SET size = ?1", [end.cast_signed()])?;
        }
        transaction.commit()
    }
}
