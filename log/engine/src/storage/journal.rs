//! The journal of a local log: batches that are durable before anything else is.
//!
//! Two files of a fixed length are written in turns and never grow, so that making a batch durable is one write and one
//! `fdatasync` of blocks that are there already. Each begins with a snapshot of the tree and goes on with batches. A file is
//! begun anew only when all tiles and the checkpoint of its batches are durable.
//!
//! A record is, in big-endian numbers, padded to the next multiple of 4096 bytes so that writing one never touches another:
//!
//! ```text
//! "SLJ1"  kind u32 (1 snapshot, 2 batch)  generation u64  sequence u64  length u64  body  SHA-256 over all before
//! ```
//!
//! The generation counts how often files were begun, the sequence counts the records of one. A batch is
//! `begin u64, count u32`, and for each entry `leaf hash, length u32, data`.

use std::{fs::File, io, os::unix::fs::FileExt};

use bytes::Bytes;
use signer_core::{Error, Result};

use super::{Batch, Entry};
use crate::tree::hash;

/// What begins each record.
const MAGIC: &[u8; 4] = b"SLJ1";
const HEAD: usize = 32;
const SUM: usize = 32;
const BLOCK: usize = 4096;

/// The length of each of the two files.
pub(super) const SEGMENT: u64 = 32 << 20;
/// The longest record: what a full batch and what a snapshot may take.
pub(super) const MAX_RECORD: u64 = SEGMENT - (1 << 20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot = 1,
    Batch = 2,
}

/// One of the two files.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    generation: u64,
    sequence: u64,
    /// Where the next record goes.
    end: u64,
}

/// What is in a file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) generation: u64,
    pub(super) snapshot: Vec<u8>,
    pub(super) batches: Vec<Batch>,
    sequence: u64,
    end: u64,
}

impl Segment {
    /// A file in which nothing is valid yet.
    pub(super) fn new(file: File) -> Self {
        Self { file, generation: 0, sequence: 0, end: 0 }
    }

    /// Goes on behind what was found in the file.
    pub(super) fn resume(&mut self, contents: &Contents) {
        (self.generation, self.sequence, self.end) = (contents.generation, contents.sequence, contents.end);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a record with a body of so many bytes still fits.
    pub(super) fn fits(&self, body: usize) -> bool {
        self.generation > 0 && self.end + padded(body) as u64 <= SEGMENT
    }

    /// Begins the file anew. Its old records become invalid with the first byte that is written.
    pub(super) fn begin(&mut self, generation: u64, snapshot: &[u8]) -> io::Result<()> {
        (self.generation, self.sequence, self.end) = (generation, 0, 0);
        let written = self.append(Kind::Snapshot, snapshot);
        if written.is_err() {
            self.generation = 0;
        }
        written
    }

    /// Writes a record and makes it durable. After an error the next record takes the same place: what was written of
    /// this one is written over, or is found by a start, which is allowed to finish it.
    pub(super) fn append(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(padded(body.len()));
        record.extend(MAGIC);
        record.extend((kind as u32).to_be_bytes());
        record.extend(self.generation.to_be_bytes());
        record.extend(self.sequence.to_be_bytes());
        record.extend((body.len() as u64).to_be_bytes());
        record.extend(body);
        record.extend(hash(&[&record]));
        record.resize(padded(body.len()), 0);
        self.file.write_all_at(&record, self.end)?;
        self.file.sync_data()?;
        self.sequence += 1;
        self.end += record.len() as u64;
        Ok(())
    }

    /// Reads what is valid. `None` when the file was never begun, or its beginning was cut off: then nothing in it was
    /// ever acknowledged, because batches follow a snapshot that was durable.
    pub(super) fn read(&self) -> Result<Option<Contents>> {
        let mut bytes = Vec::with_capacity(SEGMENT as usize + 1);
        io::Read::read_to_end(&mut &self.file, &mut bytes)
            .map_err(|e| super::unavailable("the journal cannot be read", &e))?;
        // The entries stay parts of it.
        let bytes = Bytes::from(bytes);
        let Some((generation, Kind::Snapshot, snapshot, end)) = record(&bytes, 0, None) else {
            return Ok(None);
        };
        let mut contents = Contents {
            generation,
            snapshot: snapshot.to_vec(),
            batches: Vec::new(),
            sequence: 1,
            end: end as u64,
        };
        let mut at = end;
        while let Some((_, Kind::Batch, body, end)) =
            bytes.get(at..).and_then(|rest| record(rest, contents.sequence, Some(generation)))
        {
            contents.batches.push(decode(&bytes.slice_ref(body))?);
            contents.sequence += 1;
            at += end;
            contents.end = at as u64;
        }
        // A batch that was cut off is the last one. If a later one is whole, this one was acknowledged and is damaged.
        let later = |at: &usize| {
            let begins = bytes[*at..].starts_with(MAGIC);
            begins
                && (contents.sequence..contents.sequence + 4096)
                    .any(|s| record(&bytes[*at..], s, Some(generation)).is_some())
        };
        if (at..bytes.len()).step_by(BLOCK).skip(1).any(|at| later(&at)) {
            return Err(Error::internal(
                "the journal is damaged in its middle: entries that were acknowledged are lost",
            )
            .next("restore the log from a mirror or a backup; do not delete the journal"));
        }
        Ok(Some(contents))
    }
}

/// A record's whole length in the file.
fn padded(body: usize) -> usize {
    (HEAD + body + SUM).next_multiple_of(BLOCK)
}

/// Reads a record: its generation, kind, body, and padded length.
fn record(bytes: &[u8], sequence: u64, generation: Option<u64>) -> Option<(u64, Kind, &[u8], usize)> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if !bytes.starts_with(MAGIC) || number(16)? != sequence {
        return None;
    }
    let kind = match bytes.get(4..8)? {
        [0, 0, 0, 1] => Kind::Snapshot,
        [0, 0, 0, 2] => Kind::Batch,
        _ => return None,
    };
    let found = number(8)?;
    if generation.is_some_and(|g| g != found) || found == 0 {
        return None;
    }
    let length = usize::try_from(number(24)?).ok().filter(|l| *l as u64 <= SEGMENT)?;
    let sum = bytes.get(HEAD + length..HEAD + length + SUM)?;
    (hash(&[&bytes[..HEAD + length]]) == sum)
        .then(|| (found, kind, &bytes[HEAD..HEAD + length], padded(length)))
}

/// A batch as a body.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = batch.begin.to_be_bytes().to_vec();
    out.extend((batch.entries.len() as u32).to_be_bytes());
    for entry in &batch.entries {
        out.extend(entry.leaf_hash);
        out.extend((entry.data.len() as u32).to_be_bytes());
        out.extend(&entry.data);
    }
    out
}

/// The length of [`encode`]'s result.
pub(super) fn encoded_len(batch: &Batch) -> usize {
    12 + batch.entries.iter().map(|entry| 36 + entry.data.len()).sum::<usize>()
}

/// Reads a batch; its entries are parts of the body.
pub(super) fn decode(body: &Bytes) -> Result<Batch> {
    let read = || {
        let (begin, rest) = body.split_first_chunk::<8>()?;
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut entries = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (leaf_hash, after) = rest.split_first_chunk::<32>()?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let (data, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            entries.push(Entry { data: body.slice_ref(data), leaf_hash: *leaf_hash });
            rest = after;
        }
        rest.is_empty().then_some(Batch { begin: u64::from_be_bytes(*begin), entries })
    };
    read().ok_or_else(|| Error::internal("a batch in the journal cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SEGMENT).unwrap();
        file
    }

    fn batch(begin: u64) -> Batch {
        let entry = |i: u64| Entry { data: vec![i as u8; 5000].into(), leaf_hash: [i as u8; 32] };
        Batch { begin, entries: (begin..begin + 3).map(entry).collect() }
    }

    fn segment() -> Segment {
        let mut segment = Segment::new(file());
        assert!(segment.read().unwrap().is_none());
        segment.begin(7, b"snapshot").unwrap();
        (0..4).for_each(|i| segment.append(Kind::Batch, &encode(&batch(3 * i))).unwrap());
        segment
    }

    fn again(segment: &Segment) -> Segment {
        io::Seek::rewind(&mut &segment.file).unwrap();
        Segment::new(segment.file.try_clone().unwrap())
    }

    #[test]
    fn batches_are_found_again() {
        let contents = again(&segment()).read().unwrap().unwrap();
        assert_eq!((contents.generation, &contents.snapshot[..]), (7, &b"snapshot"[..]));
        assert_eq!(contents.batches, [0, 3, 6, 9].map(batch));
        assert_eq!(encode(&batch(3)).len(), encoded_len(&batch(3)));
    }

    #[test]
    fn a_batch_that_was_cut_off_is_forgotten_and_written_over() {
        let segment = segment();
        let end = segment.end;
        segment.file.write_all_at(&[0; 100], end - 8000).unwrap();
        let mut segment = again(&segment);
        let contents = segment.read().unwrap().unwrap();
        assert_eq!(contents.batches.len(), 3);
        segment.resume(&contents);
        segment.append(Kind::Batch, &encode(&batch(9))).unwrap();
        assert_eq!(again(&segment).read().unwrap().unwrap().batches.len(), 4);
    }

    #[test]
    fn a_damaged_batch_before_a_good_one_is_noticed() {
        let segment = segment();
        segment.file.write_all_at(&[1], 2 * BLOCK as u64).unwrap();
        let error = again(&segment).read().unwrap_err();
        assert!(error.what().contains("damaged"), "{error:?}");
    }

    #[test]
    fn records_of_an_earlier_round_are_not_taken_for_new_ones() {
        let mut segment = segment();
        segment.begin(9, b"later").unwrap();
        let contents = again(&segment).read().unwrap().unwrap();
        assert_eq!((contents.generation, contents.batches.len()), (9, 0));
    }
}
