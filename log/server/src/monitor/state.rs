//! What the monitor knows, in one SQLite file: how far it has read, and which reports have not arrived yet.
//!
//! Every change is one transaction, durable before anything else happens: how far the monitor has read, and the reports of
//! what it has read, become durable together. So a monitor that is killed neither forgets a report nor makes it again; what
//! it cannot know is whether the last report arrived before it was killed ([`super::sinks`]).

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{CompactTree, NoteKey};

use super::report::Report;

/// How far a log has been read.
#[derive(Clone, Debug)]
pub(super) struct Position {
    /// The newest checkpoint that was proven to extend those before, as it is signed.
    pub(super) note: Vec<u8>,
    /// Milliseconds since 1970: the newest time of which it is known that the log had no older checkpoint.
    pub(super) fresh: u64,
    /// The entries that were read.
    pub(super) tree: CompactTree,
}

/// A report that has not arrived.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) number: i64,
    pub(super) report: Report,
}

/// The file.
pub(super) struct State {
    connection: Connection,
    sinks: Vec<String>,
}

/// A line in the file itself, so that a later version knows what it has.
const VERSION: i64 = 1;

impl State {
    /// Opens the state of the monitor of this log, or makes it. `Busy` when another process has it.
    pub(super) fn open(path: &Path, key: &NoteKey, sinks: Vec<String>) -> Result<Self> {
        let failed = |e: &rusqlite::Error| {
            let busy = matches!(
                e.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            );
            if busy {
                return Error::new(
                    ErrorKind::Busy { retry_after: Duration::from_secs(1) },
                    format!("{} is in use by another monitor", path.display()),
                )
                .next("stop that one, or give this one a --state of its own");
            }
            Error::new(ErrorKind::Internal, format!("the state {} cannot be used", path.display()))
                .vendor(e)
                .next("look at the disk; without its state, a monitor begins anew")
        };
        let connection = open(path).map_err(|e| failed(&e))?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|e| failed(&e))?;
        if version > VERSION {
            return Err(Error::bad_request(format!("{} is of a newer signer-log", path.display())));
        }
        let this = Self { connection, sinks };
        this.connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, key BLOB NOT NULL,
                    note BLOB, fresh INTEGER, size INTEGER, roots BLOB, stale BLOB);
                 CREATE TABLE IF NOT EXISTS outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, id TEXT NOT NULL,
                    body TEXT NOT NULL);
                 CREATE INDEX IF NOT EXISTS outbox_of_sink ON outbox (sink, number);
                 CREATE TABLE IF NOT EXISTS told (id TEXT PRIMARY KEY) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS files (sink TEXT PRIMARY KEY, file BLOB NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
                 PRAGMA user_version = 1;",
            )
            .map_err(|e| failed(&e))?;
        let known: Option<(String, Vec<u8>)> = this
            .connection
            .query_row("SELECT origin, key FROM log", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(|e| failed(&e))?;
        match known {
            None => {
                let insert = "INSERT INTO log (one, origin, key) VALUES (1, ?1, ?2)";
                this.connection
                    .execute(insert, params![key.name(), &key.id()[..]])
                    .map_err(|e| failed(&e))?;
            }
            Some((origin, id)) if origin == key.name() && id == key.id() => {}
            Some((origin, _)) => {
                return Err(Error::bad_request(format!(
                    "{} is the state of a monitor of {origin} with another key or name",
                    path.display()
                ))
                .next("give each log a --state of its own"));
            }
        }
        Ok(this)
    }

    /// How far the log has been read; `None` at the first start.
    pub(super) fn position(&self) -> Result<Option<Position>> {
        type Row = (Option<Vec<u8>>, Option<i64>, Option<i64>, Option<Vec<u8>>);
        let row: Row = self
            .connection
            .query_row("SELECT note, fresh, size, roots FROM log", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .map_err(|e| broken(&e))?;
        let (Some(note), Some(fresh), Some(size), Some(roots)) = row else { return Ok(None) };
        let (roots, rest) = roots.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Error::internal("the monitor's state is damaged"));
        }
        let tree = CompactTree::from_parts(size.cast_unsigned(), roots.to_vec())?;
        Ok(Some(Position { note, fresh: fresh.cast_unsigned(), tree }))
    }

    /// Makes a new position durable, together with the reports of what was read.
    pub(super) fn advance(&mut self, position: &Position, reports: &[Report]) -> Result<()> {
        let roots: Vec<u8> = position.tree.roots().iter().flatten().copied().collect::<Vec<u8>>();
        let store = |this: &mut Self| {
            let transaction = this.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "UPDATE log SET note = ?1, fresh = ?2, size = ?3, roots = ?4",
                params![
                    position.note,
                    position.fresh.cast_signed(),
                    position.tree.size().cast_signed(),
                    roots
                ],
            )?;
            put(&transaction, &this.sinks, reports)?;
            transaction.commit()
        };
        store(self).map_err(|e| broken(&e))
    }

    /// Puts a report about the log as a whole into the outbox, unless the same was said before. Whether it is new.
    pub(super) fn tell(&mut self, report: &Report) -> Result<bool> {
        let store = |this: &mut Self| {
            let transaction = this.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let new = transaction.execute("INSERT OR IGNORE INTO told VALUES (?1)", [&report.id])? == 1;
            if new {
                put(&transaction, &this.sinks, std::slice::from_ref(report))?;
            }
            transaction.commit()?;
            Ok(new)
        };
        store(self).map_err(|e| broken(&e))
    }

    /// The checkpoint that was said to be too old, if it was and that is not over: [`Position::fresh`].
    pub(super) fn stale_since(&self) -> Result<Option<Vec<u8>>> {
        self.connection.query_row("SELECT stale FROM log", [], |row| row.get(0)).map_err(|e| broken(&e))
    }

    /// Remembers that, or that it is over.
    pub(super) fn set_stale_since(&mut self, fresh: Option<&[u8]>) -> Result<()> {
        self.connection.execute("UPDATE log SET stale = ?1", [fresh]).map(drop).map_err(|e| broken(&e))
    }

    /// The first reports that wait for a place, in their order.
    pub(super) fn waiting(&self, sink: &str, most: usize) -> Result<Vec<Waiting>> {
        let read = || {
            let mut query = self.connection.prepare_cached(
                "SELECT number, id, body FROM outbox WHERE sink = ?1 ORDER BY number LIMIT ?2",
            )?;
            let rows = query.query_map(params![sink, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                Ok(Waiting { number: row.get(0)?, report: Report { id: row.get(1)?, body: row.get(2)? } })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| broken(&e))
    }

    /// How many reports wait, for each place that has any.
    pub(super) fn backlog(&self) -> Result<Vec<(String, u64)>> {
        let read = || {
            let mut query =
                self.connection.prepare_cached("SELECT sink, count(*) FROM outbox GROUP BY sink")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| broken(&e))
    }

    /// Reports have arrived, up to this one. `file` is how long a file is now, and which one.
    pub(super) fn delivered(&mut self, sink: &str, up_to: i64, file: Option<(&[u8], u64)>) -> Result<()> {
        let store = |this: &mut Self| {
            let transaction = this.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction
                .execute("DELETE FROM outbox WHERE sink = ?1 AND number <= ?2", params![sink, up_to])?;
            if let Some((file, length)) = file {
                transaction.execute(
                    "INSERT INTO files VALUES (?1, ?2, ?3) ON CONFLICT (sink) DO UPDATE SET file = ?2, length = ?3",
                    params![sink, file, length.cast_signed()],
                )?;
            }
            transaction.commit()
        };
        store(self).map_err(|e| broken(&e))
    }

    /// Which file a place was, and how long, when the last reports arrived there.
    pub(super) fn file(&self, sink: &str) -> Result<Option<(Vec<u8>, u64)>> {
        self.connection
            .query_row("SELECT file, length FROM files WHERE sink = ?1", [sink], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .optional()
            .map_err(|e| broken(&e))
    }
}

fn put(connection: &Connection, sinks: &[String], reports: &[Report]) -> rusqlite::Result<()> {
    let mut query = connection.prepare_cached("INSERT INTO outbox (sink, id, body) VALUES (?1, ?2, ?3)")?;
    for report in reports {
        for sink in sinks {
            query.execute(params![sink, report.id, report.body])?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    // FULL: each commit is durable, with one wait for the disk. EXCLUSIVE: nobody else, until this process ends.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT;",
    )?;
    Ok(connection)
}

fn broken(e: &rusqlite::Error) -> Error {
    Error::new(ErrorKind::DeviceGone, "the monitor's state cannot be used")
        .vendor(e)
        .next("make room on its disk, and see that it can be written")
}

/// What tells one file from another: its device and number.
pub(super) fn file_identity(metadata: &std::fs::Metadata) -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    [metadata.dev().to_be_bytes(), metadata.ino().to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use signer_core::{KeyType, PublicKey};
    use signer_log_engine::{NoteKind, leaf_hash};

    use super::*;

    fn key(name: &str) -> NoteKey {
        NoteKey::new(name, NoteKind::Ed25519, PublicKey::from_raw(KeyType::Ed25519, &[7; 32]).unwrap())
            .unwrap()
    }

    #[test]
    fn position_and_reports_are_there_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let report = |n: u8| Report { id: format!("id{n}"), body: format!("{{\"n\":{n}}}") };
        let mut tree = CompactTree::empty();
        {
            let mut state = State::open(&path, &key("log"), vec!["a".into(), "b".into()]).unwrap();
            assert!(state.position().unwrap().is_none());
            (0..5_u8).for_each(|i| tree.push(leaf_hash(&[i])));
            let position = Position { note: b"note".to_vec(), fresh: 9, tree: tree.clone() };
            state.advance(&position, &[report(1), report(2)]).unwrap();
            assert!(state.tell(&report(3)).unwrap());
            assert!(!state.tell(&report(3)).unwrap(), "the same is not said twice");
            let waiting = state.waiting("a", 10).unwrap();
            assert_eq!(waiting.iter().map(|w| &*w.report.id).collect::<Vec<_>>(), ["id1", "id2", "id3"]);
            state.delivered("a", waiting[1].number, Some((b"file", 77))).unwrap();
            let second = State::open(&path, &key("log"), Vec::new());
            assert!(matches!(second.err().map(|e| e.kind()), Some(ErrorKind::Busy { .. })));
        }
        let state = State::open(&path, &key("log"), vec!["a".into()]).unwrap();
        let position = state.position().unwrap().unwrap();
        assert_eq!((position.tree, position.fresh, &*position.note), (tree, 9, &b"note"[..]));
        assert_eq!(state.waiting("a", 10).unwrap().len(), 1);
        assert_eq!(state.backlog().unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 3)]);
        assert_eq!(state.file("a").unwrap().unwrap(), (b"file".to_vec(), 77));
        assert_eq!(state.stale_since().unwrap(), None);
        drop(state);
        assert!(State::open(&path, &key("other"), Vec::new()).is_err());
    }
}
