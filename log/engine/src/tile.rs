//! Tiles: how C2SP `tlog-tiles` cuts a tree into files, and one tile's hashes in memory.

use std::{fmt, str::FromStr};

use signer_core::{Error, Result};

use crate::tree::{Hash, node_hash};

/// How many hashes or entries a full tile has.
pub const WIDTH: u64 = 256;
/// How many levels of the tree one tile spans.
pub(crate) const HEIGHT: u32 = 8;
/// The highest tile level of the specification.
const MAX_LEVEL: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes, at a tile level: `tile/0/…`.
    Hashes(u8),
    /// Log entries with their lengths (`tlog-tiles`): `tile/entries/…`.
    Entries,
    /// `TileLeaf` structures (`static-ct-api`): `tile/data/…`.
    Data,
}

/// The address of a tile: `tile/<kind>/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// What it holds.
    pub kind: TileKind,
    /// Which one of its level.
    pub index: u64,
    /// How many hashes or entries: 1 to 256.
    pub width: u16,
}

impl TileId {
    /// The address of a tile. `None` if the width or the level is none.
    pub fn new(kind: TileKind, index: u64, width: u64) -> Option<Self> {
        let level_fits = !matches!(kind, TileKind::Hashes(level) if level > MAX_LEVEL);
        ((1..=WIDTH).contains(&width) && level_fits).then_some(Self { kind, index, width: width as u16 })
    }

    /// Whether all 256 are there.
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The same tile with all 256.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: WIDTH as u16, ..self }
    }

    /// The tile without a width, the folder of whose partial forms is `….p`.
    pub(crate) fn stem(&self) -> String {
        let mut digits = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            digits = format!("x{:03}/{digits}", rest % 1000);
            rest /= 1000;
        }
        match self.kind {
            TileKind::Hashes(level) => format!("tile/{level}/{digits}"),
            TileKind::Entries => format!("tile/entries/{digits}"),
            TileKind::Data => format!("tile/data/{digits}"),
        }
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stem())?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TileId {
    type Err = Error;

    /// Reads the one form that the specification allows.
    fn from_str(path: &str) -> Result<Self> {
        let read = || {
            let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
            let kind = match kind {
                "entries" => TileKind::Entries,
                "data" => TileKind::Data,
                level => TileKind::Hashes(plain_number(level).filter(|l| *l <= u64::from(MAX_LEVEL))? as u8),
            };
            let (digits, width) = match rest.split_once(".p/") {
                Some((digits, width)) => (digits, plain_number(width).filter(|w| *w < WIDTH)?),
                None => (rest, WIDTH),
            };
            let mut index = 0_u64;
            let elements: Vec<_> = digits.split('/').collect();
            for (at, element) in elements.iter().enumerate() {
                let last = at + 1 == elements.len();
                let three = if last { *element } else { element.strip_prefix('x')? };
                if three.len() != 3 || !three.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                index = index.checked_mul(1000)?.checked_add(three.parse().ok()?)?;
            }
            Self::new(kind, index, width).filter(|id| id.to_string() == path)
        };
        read().ok_or_else(|| Error::bad_request("this is not the path of a tile"))
    }
}

/// A number as the specification writes it: digits without a leading zero.
fn plain_number(text: &str) -> Option<u64> {
    let plain = text.len() <= 3
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// The tiles of hashes that a tree of `size` entries has at its right edge and nowhere else: one a level at most.
pub fn partial_tiles(size: u64) -> Vec<TileId> {
    let mut tiles = Vec::new();
    let (mut left, mut level) = (size, 0);
    while left > 0 {
        tiles.extend(TileId::new(TileKind::Hashes(level), left / WIDTH, left % WIDTH));
        left /= WIDTH;
        level += 1;
    }
    tiles
}

/// The hashes of one tile, and of all complete subtrees above them within the tile.
#[derive(Clone, Debug, Default)]
pub(crate) struct TileNodes {
    /// `rows[j]` are the complete subtrees of `2^j` of the tile's own hashes.
    rows: [Vec<Hash>; HEIGHT as usize],
}

impl TileNodes {
    /// Reads the bytes of a tile.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || hashes.len() as u64 > WIDTH {
            return Err(Error::internal(format!("a tile of {} bytes is damaged", bytes.len())));
        }
        let mut tile = Self::default();
        for hash in hashes {
            tile.push(*hash);
        }
        Ok(tile)
    }

    /// Appends a hash; one that is there in excess of 256 would be a defect of the caller.
    pub(crate) fn push(&mut self, hash: Hash) {
        debug_assert!(self.len() < WIDTH);
        self.rows[0].push(hash);
        for j in 0..HEIGHT as usize - 1 {
            let [left, right] = self.rows[j].as_chunks::<2>().0.last().copied().unwrap_or_default();
            if self.rows[j].len() % 2 == 1 {
                break;
            }
            self.rows[j + 1].push(node_hash(&left, &right));
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.rows[0].len() as u64
    }

    pub(crate) fn hashes(&self) -> &[Hash] {
        &self.rows[0]
    }

    /// The hash of the full tile as a whole.
    pub(crate) fn root(&self) -> Option<Hash> {
        match self.rows[HEIGHT as usize - 1][..] {
            [left, right] => Some(node_hash(&left, &right)),
            _ => None,
        }
    }

    /// Subtree `at` of `2^row` hashes.
    pub(crate) fn node(&self, row: u32, at: u64) -> Option<Hash> {
        self.rows.get(row as usize)?.get(at as usize).copied()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.rows[0].concat()
    }
}

/// Where in the tiles a complete subtree is: tile level, tile index, row in the tile, place in the row.
pub(crate) fn place(level: u32, index: u64) -> (u8, u64, u32, u64) {
    let row = level % HEIGHT;
    let in_row = HEIGHT - row;
    ((level / HEIGHT) as u8, index >> in_row, row, index & ((1 << in_row) - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let id = TileId::new(TileKind::Hashes(1), 1_234_067, 256).unwrap();
        assert_eq!(id.to_string(), "tile/1/x001/x234/067");
        let partial = TileId::new(TileKind::Entries, 273, 112).unwrap();
        assert_eq!(partial.to_string(), "tile/entries/273.p/112");
        for good in ["tile/0/000", "tile/63/x001/000.p/1", "tile/data/999.p/255"] {
            assert_eq!(good.parse::<TileId>().unwrap().to_string(), good);
        }
        for bad in [
            "tile/00/000",
            "tile/64/000",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/",
            "tile/0",
            "tile/0/x001",
            "tile/0/../000",
            "tile/other/000",
            "tile/0/000/",
            "/tile/0/000",
            "tile/0/+12",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert!(bad.parse::<TileId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_edge_of_the_specifications_example() {
        let tiles: Vec<_> = partial_tiles(70_000).iter().map(ToString::to_string).collect();
        assert_eq!(tiles, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        assert_eq!(
            partial_tiles(256).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["tile/1/000.p/1"]
        );
    }

    proptest! {
        #[test]
        fn every_path_is_read_back(level in 0_u8..64, index: u64, width in 1_u64..257) {
            let id = TileId::new(TileKind::Hashes(level), index, width).unwrap();
            prop_assert_eq!(id.to_string().parse::<TileId>().unwrap(), id);
        }

        #[test]
        fn foreign_paths_never_panic(path in "tile/[0-9a-z/.]{0,40}") {
            let _ = path.parse::<TileId>();
        }
    }
}
