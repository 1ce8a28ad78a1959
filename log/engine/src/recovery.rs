//! What a start finds, and what it makes of that: the tree up to where the durable entries end, published.

use std::{sync::Arc, time::Duration};

use signer_core::{Error, ErrorKind, Result};

use crate::{
    checkpoint::Checkpoint,
    format::Format,
    frontier::{Frontier, Growth, View},
    log::Published,
    sequencer::{LOSSES, sign_and_publish},
    signing::CheckpointSigner,
    storage::{Batch, Recovered, Storage},
    tree::Edge,
};

/// Where a log stands.
pub(crate) struct Found {
    pub(crate) published: Published,
    pub(crate) frontier: Frontier,
    pub(crate) sealed: bool,
}

/// What a start does: brings the tree to where the durable entries end, and publishes that. `known` is a tree of this log that
/// need not be read again.
pub(crate) async fn recover(
    storage: &Arc<dyn Storage>,
    format: Format,
    signer: &mut CheckpointSigner,
    known: Option<&Frontier>,
) -> Result<Found> {
    for _ in 0..LOSSES {
        if let Some(found) = recover_once(storage, format, signer, known).await? {
            return Ok(found);
        }
    }
    Err(Error::new(
        ErrorKind::Busy { retry_after: Duration::from_secs(1) },
        "other servers of this log publish faster than this one can read",
    )
    .next("try again in a moment"))
}

/// `None` when another process has published meanwhile.
async fn recover_once(
    storage: &Arc<dyn Storage>,
    format: Format,
    signer: &mut CheckpointSigner,
    known: Option<&Frontier>,
) -> Result<Option<Found>> {
    let recovered = storage.recover()?;
    let (note, sealed) = (recovered.checkpoint.clone(), recovered.sealed);
    let checkpoint = note.as_deref().map(|note| read_checkpoint(note, signer)).transpose()?;
    let covered = checkpoint.as_ref().map_or(0, |c| c.size);
    // After a crash of the machine, what a folder's journal has may be missing in its tiles.
    let is_folder = recovered.snapshot.is_some();
    let (mut frontier, batches) = begin_with(recovered, covered, format, known, storage)?;
    let size = batches.last().map_or(frontier.size(), Batch::end);
    let growth = replay(&mut frontier, batches, (is_folder || size > covered).then_some(&**storage))?;
    let view = View { frontier: &frontier, growth: &growth, storage: &**storage };
    if let Some(checkpoint) = &checkpoint {
        agree(checkpoint, size, &view)?;
        signer.resume(checkpoint, &view)?;
        if checkpoint.size == size {
            let note = String::from_utf8(note.unwrap_or_default()).unwrap_or_default().into();
            let published = Published { checkpoint: checkpoint.clone(), note };
            return Ok(Some(Found { published, frontier, sealed }));
        }
        tracing::info!("finishing {} entries that were durable and not published", size - checkpoint.size);
    }
    let root = Edge::new(size, &view)?.root();
    let expected = note.as_deref().map(|note| std::str::from_utf8(note).unwrap_or_default());
    let published = sign_and_publish(&**storage, &view, &[], signer, (size, root), expected).await?;
    Ok(published.map(|published| Found { published, frontier, sealed }))
}

fn read_checkpoint(note: &[u8], signer: &CheckpointSigner) -> Result<Checkpoint> {
    Checkpoint::verified(note, signer.key()).map_err(|e| {
        Error::new(e.kind(), "the log's checkpoint is not by this log's key").vendor(e.what()).next(
            "give the log the key and origin that it was made with; if they are the same, the file `checkpoint` is \
             damaged: restore it from a mirror or a backup",
        )
    })
}

/// The tree to begin with, and the batches that are not in it.
fn begin_with(
    recovered: Recovered,
    covered: u64,
    format: Format,
    known: Option<&Frontier>,
    storage: &Arc<dyn Storage>,
) -> Result<(Frontier, Vec<Batch>)> {
    let Recovered { snapshot, batches, .. } = recovered;
    if let Some(snapshot) = snapshot {
        return Ok((Frontier::from_bytes(format, &snapshot)?, batches));
    }
    let of_size = |size: u64| known.filter(|known| known.size() == size).cloned();
    if let Some(known) = of_size(covered) {
        let begins_there = batches.first().is_some_and(|batch| batch.begin == covered);
        return Ok((known, if begins_there { batches } else { Vec::new() }));
    }
    let end = batches.last().map_or(0, Batch::end);
    if let (Some(first), true) = (batches.first(), covered == end)
        && let Some(known) = of_size(first.begin)
    {
        return Ok((known, batches));
    }
    let tree = match covered {
        0 => Frontier::new(format),
        _ => Frontier::from_tiles(format, covered, &**storage)?,
    };
    // What the checkpoint covers is in the tiles.
    Ok((tree, if end > covered { batches } else { Vec::new() }))
}

/// The tree as the durable entries of a folder make it, with its tiles written. The published checkpoint must be one of it.
pub(crate) fn rebuild(
    storage: &dyn Storage,
    format: Format,
    snapshot: Option<Vec<u8>>,
    batches: Vec<Batch>,
    checkpoint: Option<&Checkpoint>,
) -> Result<Frontier> {
    let mut frontier = match (snapshot, checkpoint) {
        (Some(snapshot), _) => Frontier::from_bytes(format, &snapshot)?,
        (None, Some(checkpoint)) => Frontier::from_tiles(format, checkpoint.size, storage)?,
        (None, None) => Frontier::new(format),
    };
    let growth = replay(&mut frontier, batches, Some(storage))?;
    if let Some(checkpoint) = checkpoint {
        let view = View { frontier: &frontier, growth: &growth, storage };
        agree(checkpoint, frontier.size(), &view)?;
    }
    Ok(frontier)
}

/// Puts the batches of a journal into the tree, and writes its tiles if they may be missing in the storage.
fn replay(frontier: &mut Frontier, batches: Vec<Batch>, storage: Option<&dyn Storage>) -> Result<Growth> {
    let mut growth = Growth::default();
    // A journal may be long: its tiles are not held all at once.
    let write = |growth: &mut Growth| {
        let tiles = std::mem::take(&mut growth.tiles);
        storage.map_or(Ok(()), |storage| storage.write_tiles(&tiles))
    };
    let is_empty = batches.is_empty();
    for batch in batches {
        if batch.begin != frontier.size() {
            return Err(Error::internal(format!(
                "the journal goes on at entry {} where {} was expected",
                batch.begin,
                frontier.size()
            ))
            .next("restore the whole log from one backup, or from a mirror"));
        }
        batch.entries.iter().for_each(|entry| frontier.push(entry, &mut growth));
        write(&mut growth)?;
    }
    if !is_empty && storage.is_some() {
        frontier.finish(&mut growth);
        write(&mut growth)?;
    }
    Ok(growth)
}

/// Whether the published checkpoint is one of this tree.
fn agree(checkpoint: &Checkpoint, size: u64, view: &View<'_>) -> Result<()> {
    if checkpoint.size > size {
        return Err(Error::internal(format!(
            "the checkpoint is from the future: it covers {} entries, and {size} are here",
            checkpoint.size
        ))
        .next("entries are missing: restore the whole folder from one backup, or from a mirror"));
    }
    let root = Edge::new(checkpoint.size, view)?.root();
    if root != checkpoint.root {
        return Err(Error::internal(format!(
            "the tiles do not have the root that the checkpoint of {} entries states",
            checkpoint.size
        ))
        .next("run `signer-log check`, and restore the damaged tile from a mirror or a backup"));
    }
    Ok(())
}
