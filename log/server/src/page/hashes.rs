//! In which entries a hash is, in little space.
//!
//! What is new has a row for each hash. Once all entries of a shelf are there, their hashes are packed: into boxes by how they
//! begin, a row each, sorted. That takes 6 bytes a hash where a row takes 20, and pages are written one after the other, not
//! one here and one there for each entry. A search opens one box on each shelf: some 150 in a log of ten million entries.

use rusqlite::{Connection, OptionalExtension, params};

use super::index::limit;

/// How much of a hash is stored: a find is looked at again in the entry itself.
const STORED: usize = 6;
/// Entries of a shelf.
const SHELF: u64 = 1 << 16;
/// Boxes on a shelf, by the first ten bits of a hash.
const BOXES: u64 = 1 << 10;
/// In a box: the hash without its first two bytes, and the entry's place on the shelf, big-endian.
const RECORD: usize = 6;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS hashes (hash BLOB NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (hash, at)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS boxes (number INTEGER PRIMARY KEY, records BLOB NOT NULL);";

/// The number of a hash's box on the first shelf.
fn box_of(stored: &[u8]) -> u64 {
    stored.iter().take(2).fold(0, |number, byte| number << 8 | u64::from(*byte)) >> 6
}

/// Puts in which entries have which hash. They are in order, from `begin` to before `end`, and all before them are there.
pub(super) fn insert(
    connection: &Connection,
    hashes: &[(Vec<u8>, u64)],
    begin: u64,
    end: u64,
) -> rusqlite::Result<()> {
    let mut query = connection.prepare_cached("INSERT OR IGNORE INTO hashes VALUES (?1, ?2)")?;
    let mut sorted: Vec<_> = hashes.iter().filter_map(|(hash, at)| Some((hash.get(..STORED)?, at))).collect();
    sorted.sort_unstable();
    for (stored, at) in sorted {
        query.execute(params![stored, at.cast_signed()])?;
    }
    (begin / SHELF..end / SHELF).try_for_each(|shelf| pack(connection, shelf))
}

/// Packs the hashes of a shelf whose entries are all there.
fn pack(connection: &Connection, shelf: u64) -> rusqlite::Result<()> {
    let end = ((shelf + 1) * SHELF).cast_signed();
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO boxes VALUES (?1, ?2)")?;
    let mut put = |number: u64, records: &mut Vec<u8>| -> rusqlite::Result<()> {
        if !records.is_empty() {
            // Not the order of whole hashes: six bits of the second byte are neither in the box's number nor in the record.
            records.as_chunks_mut::<RECORD>().0.sort_unstable();
            put.execute(params![(shelf * BOXES + number).cast_signed(), &records[..]])?;
            records.clear();
        }
        Ok(())
    };
    let mut query = connection.prepare_cached("SELECT hash, at FROM hashes WHERE at < ?1 ORDER BY hash")?;
    let mut rows = query.query([end])?;
    let (mut number, mut records) = (0, Vec::new());
    while let Some(row) = rows.next()? {
        let (stored, at) = (row.get_ref(0)?.as_blob()?, row.get::<_, i64>(1)?);
        if box_of(stored) != number {
            put(number, &mut records)?;
            number = box_of(stored);
        }
        records.extend(stored.get(2..STORED).unwrap_or_default());
        records.extend((at.cast_unsigned() as u16).to_be_bytes());
    }
    put(number, &mut records)?;
    connection.execute("DELETE FROM hashes WHERE at < ?1", [end])?;
    Ok(())
}

/// Entries that may have a hash in them, the newest first, so many at most. `size` is how many entries are in the index.
pub(super) fn find(
    connection: &Connection,
    hash: &[u8],
    most: usize,
    size: u64,
) -> rusqlite::Result<Vec<u64>> {
    let Some(stored) = hash.get(..STORED) else { return Ok(Vec::new()) };
    let mut query =
        connection.prepare_cached("SELECT at FROM hashes WHERE hash = ?1 ORDER BY at DESC LIMIT ?2")?;
    let rows = query.query_map(params![stored, limit(most)], |row| row.get::<_, i64>(0))?;
    let mut found = rows.map(|at| at.map(i64::cast_unsigned)).collect::<rusqlite::Result<Vec<_>>>()?;

    let mut query = connection.prepare_cached("SELECT records FROM boxes WHERE number = ?1")?;
    for shelf in (0..size / SHELF).rev() {
        if found.len() >= most {
            break;
        }
        let number = (shelf * BOXES + box_of(stored)).cast_signed();
        let records = query.query_row([number], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        let Some((records, _)) = records.as_deref().map(<[u8]>::as_chunks::<RECORD>) else { continue };
        let from = records.partition_point(|record| record[..4] < stored[2..]);
        let same = records[from..].iter().take_while(|record| record[..4] == stored[2..]);
        let places: Vec<_> = same.map(|record| u16::from_be_bytes([record[4], record[5]])).collect();
        found.extend(places.iter().rev().map(|place| shelf * SHELF + u64::from(*place)));
    }
    found.truncate(most);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(of: u64) -> Vec<u8> {
        signer_log_engine::leaf_hash(&of.to_be_bytes()).to_vec()
    }

    /// Two and a half shelves: each entry has a hash of its own, and one that it shares with all others.
    #[test]
    fn what_is_packed_is_found_as_before() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let (size, shared) = (5 * SHELF / 2, hash(u64::MAX));
        // Portions that do not end where shelves do.
        let portions = (0..size).step_by(3000).map(|begin| (begin, (begin + 3000).min(size)));
        for (begin, end) in portions {
            let hashes: Vec<_> = (begin..end).flat_map(|at| [(hash(at), at), (shared.clone(), at)]).collect();
            insert(&connection, &hashes, begin, end).unwrap();
        }
        let rows = |table: &str| -> i64 {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!(rows("hashes"), (size - 2 * SHELF).cast_signed() * 2);
        assert_eq!(rows("boxes"), 2 * BOXES.cast_signed());
        let find = |hash: &[u8], most| find(&connection, hash, most, size).unwrap();
        for at in (0..size).step_by(97).chain([0, SHELF - 1, SHELF, 2 * SHELF - 1, 2 * SHELF, size - 1]) {
            assert_eq!(find(&hash(at), 10), [at]);
        }
        assert!(find(&hash(size), 10).is_empty());
        assert!(find(&[1, 2, 3], 10).is_empty());
        // The newest first, whether packed or not.
        assert!(find(&shared, usize::MAX).into_iter().eq((0..size).rev()));
        assert!(find(&shared, SHELF as usize).into_iter().eq((size - SHELF..size).rev()));
        assert_eq!(find(&shared, 2), [size - 1, size - 2]);
    }
}
