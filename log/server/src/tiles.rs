//! What can be read: the checkpoint, the tiles that it covers, and issuers. Static, and said to be so.

use bytes::Bytes;
use signer_core::{Error, Result};
use signer_log_engine::{Format, Log, TileId, TileKind, WIDTH};

/// An object, and how it is served.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) bytes: Bytes,
    /// Its content type.
    pub(crate) kind: &'static str,
    /// Whether it never changes.
    pub(crate) immutable: bool,
}

const TILE: &str = "application/octet-stream";

/// Looks an object up by the path that the specifications give it. `None` for what the published tree has not.
pub(crate) async fn find(log: &Log, name: &str) -> Result<Option<Found>> {
    let published = log.published();
    if name == "checkpoint" {
        let bytes = Bytes::copy_from_slice(published.note.as_bytes());
        return Ok(Some(Found { bytes, kind: "text/plain; charset=utf-8", immutable: false }));
    }
    if let Ok(id) = name.parse::<TileId>() {
        if !covered(id, log.format(), published.checkpoint.size) {
            return Ok(None);
        }
        let format = log.format();
        return Ok(read(log, name.to_owned())
            .await?
            .map(|bytes| cut(bytes, id, format))
            .transpose()?
            .map(|bytes| Found { bytes, kind: TILE, immutable: true }));
    }
    let fingerprint = name.strip_prefix("issuer/").filter(|_| log.format() == Format::Certificates);
    if fingerprint
        .is_some_and(|f| f.len() == 64 && f.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    {
        let found = read(log, name.to_owned()).await?;
        return Ok(found.map(|bytes| Found {
            bytes: bytes.into(),
            kind: "application/pkix-cert",
            immutable: true,
        }));
    }
    Ok(None)
}

/// Whether a tree of this size has the tile: a wider one may be there and not be published yet.
fn covered(id: TileId, format: Format, size: u64) -> bool {
    let (level, fits) = match id.kind {
        TileKind::Hashes(level) => (u32::from(level), true),
        kind => (0, kind == format.tile_kind()),
    };
    let there = size.checked_shr(8 * level).unwrap_or(0);
    let end = id.index.checked_mul(WIDTH).and_then(|begin| begin.checked_add(u64::from(id.width)));
    fits && end.is_some_and(|end| end <= there)
}

async fn read(log: &Log, name: String) -> Result<Option<Vec<u8>>> {
    let storage = log.storage().clone();
    let read = move || {
        if let Some(bytes) = storage.read(&name)? {
            return Ok(Some(bytes));
        }
        // A partial form goes away when the tile is full; whoever asks for it gets the beginning of the full one.
        match name.parse::<TileId>() {
            Ok(id) if !id.is_full() => storage.read(&id.full().to_string()),
            _ => Ok(None),
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(Error::internal("a reader panicked")))
}

/// As many as the address says, of a tile that may have more.
fn cut(bytes: Vec<u8>, id: TileId, format: Format) -> Result<Bytes> {
    let length = match id.kind {
        TileKind::Hashes(_) => usize::from(id.width) * 32,
        _ => format.cut(&bytes, id.width)?.len(),
    };
    if length > bytes.len() {
        return Err(Error::internal(format!("the log is damaged: {id} is too short"))
            .next("run `signer-log check`, and restore the tile from a mirror or a backup"));
    }
    Ok(Bytes::from(bytes).slice(..length))
}
