//! The one thread that puts entries in order, in the order of writes that [`crate::storage`] argues.
//!
//! Batches need no timer: what came while the last batch was made durable and signed is the next batch. A lone caller
//! waits for its own write and signature; under load the batches grow by themselves.

use std::{
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use signer_core::{Error, ErrorKind, Result};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    checkpoint::Checkpoint,
    format::Format,
    frontier::{Frontier, Growth, View},
    log::{Appended, Build, Limits, Published, Shared},
    signing::{CheckpointSigner, now_millis},
    storage::{Batch, Recovered, Storage},
    tree::{Edge, Hash, consistency_proof},
};

/// One entry that waits for its turn.
pub(crate) struct Waiting {
    pub(crate) identity: Hash,
    pub(crate) build: Build,
    pub(crate) durable: Option<oneshot::Sender<(u64, u64)>>,
    pub(crate) published: oneshot::Sender<Result<Appended>>,
}

pub(crate) struct Sequencer {
    pub(crate) shared: Weak<Shared>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) frontier: Frontier,
    pub(crate) signer: CheckpointSigner,
    pub(crate) limits: Limits,
    pub(crate) runtime: Handle,
    pub(crate) closing: Arc<AtomicBool>,
}

/// Pauses between tries to publish what is durable already.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Sequencer {
    pub(crate) fn run(mut self, mut incoming: mpsc::Receiver<Waiting>) {
        let mut time = 0;
        while let Some(first) = incoming.blocking_recv() {
            time = now_millis().max(time);
            let mut batch = Batch { begin: self.frontier.size(), entries: Vec::new() };
            let mut waiting = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(mut one) = next {
                let index = batch.begin + batch.entries.len() as u64;
                let entry = std::mem::replace(&mut one.build, Box::new(|_, _| unreachable!("built once")))(
                    index, time,
                );
                bytes += entry.data.len();
                batch.entries.push(entry);
                waiting.push(one);
                let room = batch.entries.len() < self.limits.batch_entries && bytes < self.limits.batch_bytes;
                next = if room { incoming.try_recv().ok() } else { None };
            }
            if !self.append(&batch, waiting, time) {
                break;
            }
        }
    }

    /// One batch, from beginning to end. `false` when the log has to end.
    fn append(&mut self, batch: &Batch, mut waiting: Vec<Waiting>, time: u64) -> bool {
        // 1. The entries are durable, or none of them is in the log.
        if let Err(e) = self.storage.stage(batch, &|| self.frontier.to_bytes()) {
            tracing::warn!("a batch is refused: {e}");
            self.set_health(Some(&e));
            let identities: Vec<_> = waiting.iter().map(|w| w.identity).collect();
            if let Some(shared) = self.shared.upgrade() {
                shared.dedup.failed(&identities, &e);
            }
            for one in waiting {
                let _ = one.published.send(Err(e.clone()));
            }
            return true;
        }
        for (at, one) in waiting.iter_mut().enumerate() {
            if let Some(durable) = one.durable.take() {
                let _ = durable.send((batch.begin + at as u64, time));
            }
        }
        let mut growth = Growth::default();
        batch.entries.iter().for_each(|entry| self.frontier.push(entry, &mut growth));
        self.frontier.finish(&mut growth);
        // 2 to 4. Now they must be published: there is no way back, only again.
        let Some(published) = self.publish_until_it_works(&mut growth) else { return false };
        // 5. The callers are answered.
        self.answer(batch, waiting, &growth, &published);
        true
    }

    fn publish_until_it_works(&mut self, growth: &mut Growth) -> Option<Published> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.publish(growth) {
                Ok(published) => {
                    self.set_health(None);
                    if let Some(shared) = self.shared.upgrade() {
                        shared.stuck.store(false, Ordering::Relaxed);
                    }
                    return Some(published);
                }
                Err(error) => error,
            };
            tracing::warn!("durable entries cannot be published yet: {error}");
            self.set_health(Some(&error));
            if let Some(shared) = self.shared.upgrade() {
                shared.stuck.store(true, Ordering::Relaxed);
            }
            // Somebody else writes this log, or it would fork: going on would make it worse.
            let hopeless = error.kind() == ErrorKind::Denied
                && error.advice().is_some_and(|a| a.contains("signer-log check"));
            if hopeless || self.closing.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn publish(&mut self, growth: &mut Growth) -> Result<Published> {
        // 2. Whoever will read the checkpoint finds its tiles.
        self.storage.write_tiles(&growth.tiles)?;
        let view = View { frontier: &self.frontier, growth, storage: &*self.storage };
        // 3. Signed only if it extends what was signed last.
        let size = self.frontier.size();
        let root = Edge::new(size, &view)?.root();
        let expected = self.shared.upgrade().map(|s| s.published.borrow().note.clone());
        let published = sign_and_publish(
            &*self.storage,
            &view,
            &mut self.signer,
            (size, root),
            expected.as_deref(),
            &self.runtime,
        )?;
        // Written: a further try would not have to do it again.
        growth.tiles.clear();
        Ok(published)
    }

    fn answer(&self, batch: &Batch, waiting: Vec<Waiting>, growth: &Growth, published: &Published) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.batches.fetch_add(1, Ordering::Relaxed);
        let (size, root) = (published.checkpoint.size, published.checkpoint.root);
        let checkpoint = published.note.clone();
        shared.published.send_replace(Arc::new(Published {
            checkpoint: published.checkpoint.clone(),
            note: checkpoint.clone(),
        }));
        let view = View { frontier: &self.frontier, growth, storage: &*self.storage };
        let edge = Edge::new(size, &view);
        let mut entries = Vec::with_capacity(waiting.len());
        for (at, one) in waiting.into_iter().enumerate() {
            let index = batch.begin + at as u64;
            let proof =
                edge.as_ref().map_err(Clone::clone).and_then(|edge| edge.inclusion_proof(index, &view));
            entries.push((one.identity, index));
            let answer =
                proof.map(|proof| Appended { index, size, root, proof, checkpoint: checkpoint.clone() });
            // Nobody may be waiting any more.
            let _ = one.published.send(answer);
        }
        shared.dedup.published(entries);
    }

    fn set_health(&self, error: Option<&Error>) {
        if let Some(shared) = self.shared.upgrade() {
            *shared.health.lock().unwrap_or_else(PoisonError::into_inner) = error.cloned();
        }
    }
}

/// Steps 3 and 4 for a tree whose tiles are written.
pub(crate) fn sign_and_publish(
    storage: &dyn Storage,
    view: &View<'_>,
    signer: &mut CheckpointSigner,
    (size, root): (u64, Hash),
    expected: Option<&str>,
    runtime: &Handle,
) -> Result<Published> {
    let proof = consistency_proof(signer.size(), size, view)?;
    let note = runtime.block_on(signer.sign(size, root, Vec::new(), &proof))?;
    // 4. By compare-and-swap: if somebody else has published since, nothing of ours is seen.
    storage.publish(expected.map(str::as_bytes), note.as_bytes())?;
    let checkpoint =
        Checkpoint { origin: signer.key().name().to_owned(), size, root, extensions: Vec::new() };
    Ok(Published { checkpoint, note: note.into() })
}

/// What a start does: brings the tree to where the durable entries end, and publishes that.
pub(crate) async fn recover(
    storage: &Arc<dyn Storage>,
    format: Format,
    mut signer: CheckpointSigner,
) -> Result<(Published, Frontier, CheckpointSigner)> {
    let Recovered { snapshot, batches, checkpoint } = storage.recover()?;
    let note = checkpoint;
    let checkpoint = match &note {
        Some(note) => Some(signer.resume(note).map_err(|e| {
            Error::new(e.kind(), "the log's checkpoint is not by this log's key").vendor(e.what()).next(
                "give the log the key and origin that it was made with; if they are the same, the file `checkpoint` is \
                 damaged: restore it from a mirror or a backup",
            )
        })?),
        None => None,
    };
    let (frontier, growth) = rebuild(&**storage, format, snapshot, &batches, checkpoint.as_ref())?;
    let view = View { frontier: &frontier, growth: &growth, storage: &**storage };
    let size = frontier.size();
    if let Some(checkpoint) = &checkpoint {
        if checkpoint.size == size {
            let note = String::from_utf8(note.unwrap_or_default()).unwrap_or_default().into();
            return Ok((Published { checkpoint: checkpoint.clone(), note }, frontier, signer));
        }
        tracing::info!("finishing {} entries that were durable and not published", size - checkpoint.size);
    }
    let root = Edge::new(size, &view)?.root();
    let proof = consistency_proof(signer.size(), size, &view)?;
    let new = signer.sign(size, root, Vec::new(), &proof).await?;
    storage.publish(note.as_deref(), new.as_bytes())?;
    let checkpoint =
        Checkpoint { origin: signer.key().name().to_owned(), size, root, extensions: Vec::new() };
    Ok((Published { checkpoint, note: new.into() }, frontier, signer))
}

/// The tree as the durable entries make it, with its tiles written. The published checkpoint must be one of it.
pub(crate) fn rebuild(
    storage: &dyn Storage,
    format: Format,
    snapshot: Option<Vec<u8>>,
    batches: &[Batch],
    checkpoint: Option<&Checkpoint>,
) -> Result<(Frontier, Growth)> {
    let mut frontier = match (snapshot, checkpoint) {
        (Some(snapshot), _) => Frontier::from_bytes(format, &snapshot)?,
        (None, Some(checkpoint)) => Frontier::from_tiles(format, checkpoint.size, storage)?,
        (None, None) => Frontier::new(format),
    };
    let mut growth = Growth::default();
    for batch in batches {
        if batch.begin != frontier.size() {
            return Err(Error::internal(format!(
                "the journal goes on at entry {} where {} was expected",
                batch.begin,
                frontier.size()
            ))
            .next("restore the whole folder from one backup, or from a mirror"));
        }
        batch.entries.iter().for_each(|entry| frontier.push(entry, &mut growth));
    }
    if !batches.is_empty() {
        frontier.finish(&mut growth);
        storage.write_tiles(&growth.tiles)?;
    }
    if let Some(checkpoint) = checkpoint {
        let view = View { frontier: &frontier, growth: &growth, storage };
        agree(checkpoint, frontier.size(), &view)?;
    }
    Ok((frontier, growth))
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

/// Closes a log for ever: everything durable is published, and the last checkpoint says that it is the last. The log must
/// not be open. A log of tree heads (RFC 6962) has no room for the line; whoever serves it has to know.
pub async fn freeze(
    storage: Arc<dyn Storage>,
    format: Format,
    signer: CheckpointSigner,
) -> Result<Checkpoint> {
    let tree_heads = signer.key().kind() == crate::NoteKind::TreeHead;
    let (published, _, mut signer) = recover(&storage, format, signer).await?;
    if tree_heads || published.is_frozen() {
        return Ok(published.checkpoint);
    }
    let line = format!("{}{}", crate::log::FROZEN, unix_date(now_millis() / 1000));
    let (size, root) = (published.checkpoint.size, published.checkpoint.root);
    let note = signer.sign(size, root, vec![line.clone()], &[]).await?;
    storage.publish(Some(published.note.as_bytes()), note.as_bytes())?;
    Ok(Checkpoint { extensions: vec![line], ..published.checkpoint })
}

/// A time as `date` writes it in UTC: `Fri Nov 27 01:35:05 UTC 2026`.
fn unix_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!(
        "{} {} {:>2} {:02}:{:02}:{:02} UTC {year}",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        left + 1,
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_date() {
        assert_eq!(super::unix_date(0), "Thu Jan  1 00:00:00 UTC 1970");
        assert_eq!(super::unix_date(951_782_400), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(super::unix_date(1_795_743_305), "Fri Nov 27 01:35:05 UTC 2026");
    }
}
