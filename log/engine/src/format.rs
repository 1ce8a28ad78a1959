//! The two ways in which entries lie in their tiles.

use serde::{Deserialize, Serialize};
use signer_core::{Error, Result};

use crate::{
    tile::TileKind,
    tree::{Hash, hash, leaf_hash},
};

/// How a log writes its entries down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `tlog-tiles`: entry bundles; the hash is over the entry itself.
    Entries,
    /// `static-ct-api`: `TileLeaf` structures; the hash is over the `MerkleTreeLeaf` in them (RFC 6962 section 3.4).
    Certificates,
}

/// The longest entry of an entry bundle: its length has 16 bits.
pub const MAX_ENTRY: usize = 65535;

/// One entry as it lies in its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// All its bytes in the tile, length and all.
    pub bytes: &'a [u8],
    format: Format,
    /// How many of the bytes are hashed, from `skip` on.
    skip: usize,
    hashed: usize,
}

impl Format {
    /// In which tiles the entries are.
    pub fn tile_kind(self) -> TileKind {
        match self {
            Self::Entries => TileKind::Entries,
            Self::Certificates => TileKind::Data,
        }
    }

    /// Takes the first entry off the bytes of a tile.
    pub fn split(self, bytes: &[u8]) -> Result<(EntryRef<'_>, &[u8])> {
        let (skip, hashed, length) = match self {
            Self::Entries => entry_lengths(bytes),
            Self::Certificates => tile_leaf_lengths(bytes),
        }
        .ok_or_else(|| Error::internal("a tile of entries is damaged: an entry is cut off"))?;
        let (entry, rest) = bytes.split_at(length);
        Ok((EntryRef { bytes: entry, format: self, skip, hashed }, rest))
    }

    /// All entries of a tile.
    pub fn split_all(self, mut bytes: &[u8]) -> Result<Vec<EntryRef<'_>>> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let (entry, rest) = self.split(bytes)?;
            entries.push(entry);
            bytes = rest;
        }
        Ok(entries)
    }

    /// The first `width` entries of a tile that has at least so many: partial tiles are beginnings of fuller ones.
    pub fn cut(self, bytes: &[u8], width: u16) -> Result<&[u8]> {
        let mut rest = bytes;
        for _ in 0..width {
            rest = self.split(rest)?.1;
        }
        Ok(&bytes[..bytes.len() - rest.len()])
    }
}

impl<'a> EntryRef<'a> {
    /// The hash of the leaf.
    pub fn leaf_hash(&self) -> Hash {
        let hashed = &self.bytes[self.skip..self.skip + self.hashed];
        match self.format {
            Format::Entries => leaf_hash(hashed),
            // MerkleTreeLeaf: version v1, type timestamped_entry, and the TimestampedEntry.
            Format::Certificates => hash(&[&[0, 0, 0], hashed]),
        }
    }

    /// What is the same in two submissions of the same thing.
    pub fn identity(&self) -> Hash {
        match self.format {
            Format::Entries => self.leaf_hash(),
            // Neither the time nor the extensions (the index): entry type and signed entry.
            Format::Certificates => hash(&[&self.bytes[8..self.skip + self.hashed - self.extensions_len()]]),
        }
    }

    /// The entry without what surrounds it in the tile: for `tlog-tiles` what is hashed.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.skip..self.skip + self.hashed]
    }

    /// The fingerprints of the issuers that a certificate's entry names, nearest first.
    pub fn issuers(&self) -> &'a [Hash] {
        let chain = || {
            if self.format != Format::Certificates {
                return None;
            }
            let parts = timestamped_entry(self.bytes)?;
            let rest = if parts.precertificate { opaque(parts.rest, 3)?.1 } else { parts.rest };
            Some(opaque(rest, 2)?.0.as_chunks::<32>().0)
        };
        chain().unwrap_or_default()
    }

    fn extensions_len(&self) -> usize {
        timestamped_entry(self.bytes).map_or(0, |parts| parts.extensions.len() + 2)
    }
}

/// How many bytes are before what is hashed, how many are hashed, and how long the entry is.
type Lengths = Option<(usize, usize, usize)>;

fn entry_lengths(bytes: &[u8]) -> Lengths {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*head));
    (rest.len() >= length).then_some((2, length, length + 2))
}

fn tile_leaf_lengths(bytes: &[u8]) -> Lengths {
    let parts = timestamped_entry(bytes)?;
    let mut rest = parts.rest;
    if parts.precertificate {
        rest = opaque(rest, 3)?.1;
    }
    let (chain, rest) = opaque(rest, 2)?;
    (chain.len() % 32 == 0).then_some((0, bytes.len() - parts.rest.len(), bytes.len() - rest.len()))
}

/// The parts of a `TimestampedEntry` (RFC 6962 section 3.4).
#[derive(Clone, Copy, Debug)]
pub struct TimestampedEntry<'a> {
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// Whether it is a precertificate: then `signed` is a `TBSCertificate`.
    pub precertificate: bool,
    /// The hash of the issuer's key, for a precertificate.
    pub issuer_key_hash: Option<&'a [u8; 32]>,
    /// The certificate, or the `TBSCertificate` without poison.
    pub signed: &'a [u8],
    /// The extensions: the index of the leaf.
    pub extensions: &'a [u8],
    /// What follows.
    pub rest: &'a [u8],
}

/// Takes a `TimestampedEntry` off the beginning.
pub fn timestamped_entry(bytes: &[u8]) -> Option<TimestampedEntry<'_>> {
    let (timestamp, rest) = bytes.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first_chunk::<2>()?;
    let (issuer_key_hash, rest) = match kind {
        [0, 0] => (None, rest),
        [0, 1] => {
            let (hash, rest) = rest.split_first_chunk::<32>()?;
            (Some(hash), rest)
        }
        _ => return None,
    };
    let (signed, rest) = opaque(rest, 3)?;
    let (extensions, rest) = opaque(rest, 2)?;
    Some(TimestampedEntry {
        timestamp: u64::from_be_bytes(*timestamp),
        precertificate: issuer_key_hash.is_some(),
        issuer_key_hash,
        signed,
        extensions,
        rest,
    })
}

/// Takes an opaque vector with a length of so many bytes off the beginning.
fn opaque(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bundles_are_taken_apart() {
        let bundle = [&[0, 3][..], b"abc", &[0, 0], &[0, 1], b"x"].concat();
        let entries = Format::Entries.split_all(&bundle).unwrap();
        assert_eq!(entries.iter().map(EntryRef::body).collect::<Vec<_>>(), [&b"abc"[..], b"", b"x"]);
        assert_eq!(entries[0].leaf_hash(), leaf_hash(b"abc"));
        assert_eq!(Format::Entries.cut(&bundle, 2).unwrap(), &bundle[..7]);
        assert!(Format::Entries.cut(&bundle, 4).is_err());
        assert!(Format::Entries.split_all(&bundle[..bundle.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn foreign_tiles_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..2) {
            let mut tile = bytes.clone();
            if tile.len() > 12 {
                tile[8..12].copy_from_slice(&[0, kind, 0, 0]);
            }
            for format in [Format::Entries, Format::Certificates] {
                for entry in format.split_all(&tile).unwrap_or_default() {
                    let _ = (entry.leaf_hash(), entry.identity());
                }
            }
        }
    }
}
