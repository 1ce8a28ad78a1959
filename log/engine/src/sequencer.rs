//! The one thread that puts entries in order, in the order of writes that [`crate::storage`] argues.
//!
//! Batches need no timer: what came while the last batch was made durable and signed is the next batch. A lone caller
//! waits for its own write and signature; under load the batches grow by themselves.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use signer_core::{Error, ErrorKind, Result};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use crate::{
    checkpoint::Checkpoint,
    format::{Format, timestamped_entry},
    frontier::{Frontier, Growth, StoredNodes, View},
    log::{Appended, Build, Limits, Published, Shared, prove_stored},
    signing::{CheckpointSigner, now_millis},
    storage::{Batch, Entry, Recovered, Storage, Swap},
    tile::TileId,
    tree::{Edge, Hash, Nodes, consistency_proof, verify_inclusion},
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
    pub(crate) format: Format,
    pub(crate) frontier: Frontier,
    pub(crate) signer: CheckpointSigner,
    pub(crate) limits: Limits,
    pub(crate) runtime: Runtime,
    pub(crate) closing: Arc<AtomicBool>,
}

/// Pauses between tries to publish what is durable already.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a batch may lose its place to another process before its callers are asked to come again.
const LOSSES: u32 = 20;

/// What comes next.
enum Next {
    Entry(Waiting),
    /// Nothing came for a while.
    Quiet,
    End,
}

impl Sequencer {
    pub(crate) fn run(mut self, mut incoming: mpsc::Receiver<Waiting>) {
        let mut time = 0;
        loop {
            let first = match self.next(&mut incoming) {
                Next::Entry(first) => first,
                Next::Quiet if self.follow() => continue,
                Next::Quiet | Next::End => break,
            };
            time = now_millis().max(time);
            let mut batch = Batch { begin: self.frontier.size(), entries: Vec::new() };
            let mut waiting = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(one) = next {
                let entry = (one.build)(batch.begin + batch.entries.len() as u64, time);
                bytes += entry.data.len();
                batch.entries.push(entry);
                waiting.push(one);
                let room = batch.entries.len() < self.limits.batch_entries && bytes < self.limits.batch_bytes;
                next = if room { incoming.try_recv().ok() } else { None };
            }
            if !self.append(batch, waiting, time) {
                break;
            }
        }
    }

    fn next(&self, incoming: &mut mpsc::Receiver<Waiting>) -> Next {
        let next = async {
            match self.storage.shared() {
                None => Some(incoming.recv().await),
                Some(pause) => tokio::time::timeout(pause, incoming.recv()).await.ok(),
            }
        };
        match self.runtime.block_on(next) {
            Some(next) => next.map_or(Next::End, Next::Entry),
            None => Next::Quiet,
        }
    }

    /// One batch, from beginning to end. `false` when the log has to end.
    fn append(&mut self, mut batch: Batch, mut waiting: Vec<Waiting>, time: u64) -> bool {
        // 1. The entries are durable, or nobody relies on them.
        let mut losses = 0;
        loop {
            let error = match self.storage.stage(&batch, &|| self.frontier.to_bytes()) {
                Ok(Swap::Done) => break,
                Ok(Swap::Overtaken) if losses < LOSSES => match self.catch_up() {
                    Ok(()) => {
                        losses += 1;
                        waiting = self.answer_known(waiting);
                        if waiting.is_empty() {
                            return true;
                        }
                        let begin = self.frontier.size();
                        let entries = waiting.iter().zip(begin..).map(|(one, at)| (one.build)(at, time));
                        batch = Batch { begin, entries: entries.collect() };
                        continue;
                    }
                    Err(error) => error,
                },
                Ok(Swap::Overtaken) => Error::new(
                    ErrorKind::Busy { retry_after: Duration::from_secs(1) },
                    "other servers of this log are always first",
                )
                .next("try again in a moment"),
                Err(error) => error,
            };
            self.refuse(waiting, &error);
            return !is_hopeless(&error);
        }
        for (one, index) in waiting.iter_mut().zip(batch.begin..) {
            if let Some(durable) = one.durable.take() {
                let _ = durable.send((index, time));
            }
        }
        let mut growth = Growth::default();
        batch.entries.iter().for_each(|entry| self.frontier.push(entry, &mut growth));
        self.frontier.finish(&mut growth);
        // 2 to 4. Now they must be published: there is no way back, only again.
        let Some((published, by)) = self.publish_until_it_works(&mut growth) else { return false };
        // 5. The callers are answered.
        let (begin, count) = (batch.begin, batch.entries.len());
        let size = published.checkpoint.size;
        let proofs = match by {
            By::Us => {
                let view = View { frontier: &self.frontier, growth: &growth, storage: &*self.storage };
                proofs(size, &view, begin, count)
            }
            By::Another => {
                let nodes = StoredNodes::new(&*self.storage, size);
                let proofs = proofs(size, &nodes, begin, count).into_iter().zip(&batch.entries).zip(begin..);
                let checkpoint = &published.checkpoint;
                proofs.map(|((proof, entry), index)| ours(proof?, entry, index, checkpoint)).collect()
            }
        };
        self.answer(begin, waiting, proofs, &published);
        true
    }

    /// Nobody may rely on these.
    fn refuse(&self, waiting: Vec<Waiting>, error: &Error) {
        tracing::warn!("a batch is refused: {error}");
        // That others are first, or that the log is frozen, is no illness.
        if is_hopeless(error) || !matches!(error.kind(), ErrorKind::Busy { .. } | ErrorKind::Denied) {
            self.set_health(Some(error));
        }
        let identities: Vec<_> = waiting.iter().map(|w| w.identity).collect();
        if let Some(shared) = self.shared.upgrade() {
            shared.dedup.failed(&identities, error);
        }
        for one in waiting {
            let _ = one.published.send(Err(error.clone()));
        }
    }

    fn publish_until_it_works(&mut self, growth: &mut Growth) -> Option<(Arc<Published>, By)> {
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
            if is_hopeless(&error) || self.closing.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn publish(&mut self, growth: &mut Growth) -> Result<(Arc<Published>, By)> {
        let view = View { frontier: &self.frontier, growth, storage: &*self.storage };
        let size = self.frontier.size();
        // 2 to 4. Signed only if it extends what was signed last. That may be beyond this tree: a catch-up that broke off after it
        // had seen what others published. Then there is nothing to sign, and the catch-up has to be finished.
        let published = if self.signer.size() > size {
            self.storage.write_tiles(&growth.tiles)?;
            None
        } else {
            let root = Edge::new(size, &view)?.root();
            let expected = self.shared.upgrade().map(|s| s.published.borrow().note.clone());
            let signed = sign_and_publish(
                &*self.storage,
                &view,
                &growth.tiles,
                &mut self.signer,
                (size, root),
                expected.as_deref(),
            );
            self.runtime.block_on(signed)?
        };
        // Written: a further try would not have to do it again.
        growth.tiles.clear();
        if let Some(published) = published {
            let published = Arc::new(published);
            if let Some(shared) = self.shared.upgrade() {
                shared.published.send_replace(published.clone());
            }
            return Ok((published, By::Us));
        }
        // Another process has finished our batch, and perhaps more.
        self.catch_up()?;
        let shared = self.shared.upgrade().ok_or_else(|| Error::internal("the log is being closed"))?;
        let published = shared.published.borrow().clone();
        if published.checkpoint.size < size {
            return Err(Error::new(ErrorKind::DeviceGone, "the storage gives old checkpoints"));
        }
        Ok((published, By::Another))
    }

    fn answer(
        &self,
        begin: u64,
        waiting: Vec<Waiting>,
        proofs: Vec<Result<Vec<Hash>>>,
        published: &Published,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.batches.fetch_add(1, Ordering::Relaxed);
        let mut entries = Vec::with_capacity(waiting.len());
        for ((one, proof), index) in waiting.into_iter().zip(proofs).zip(begin..) {
            entries.push((one.identity, index));
            // Nobody may be waiting any more.
            let _ = one.published.send(proof.map(|proof| appended(index, proof, published)));
        }
        shared.dedup.published(entries);
    }

    /// Answers those whose entry another process has put into the log since; gives the others.
    fn answer_known(&self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        let Some(shared) = self.shared.upgrade() else { return waiting };
        let published = shared.published.borrow().clone();
        let tree = (published.checkpoint.size, &published.checkpoint.root);
        let mut unknown = Vec::new();
        for one in waiting {
            let known = shared.dedup.find(&one.identity, &*self.storage, self.format);
            let Ok(Some(index)) = known else {
                unknown.push(one);
                continue;
            };
            let proven = prove_stored(&*self.storage, self.format, tree, index);
            if let (Ok((_, entry)), Some(durable)) = (&proven, one.durable) {
                let time = timestamped_entry(entry).map_or(0, |parts| parts.timestamp);
                let _ = durable.send((index, time));
            }
            let _ = one.published.send(proven.map(|(proof, _)| appended(index, proof, &published)));
        }
        unknown
    }

    /// Looks whether another process has appended something. `false` when the log has to end.
    fn follow(&mut self) -> bool {
        let published = self.shared.upgrade().map(|s| s.published.borrow().note.clone());
        let result = match self.storage.read("checkpoint") {
            Ok(note) if note.as_deref() == published.as_ref().map(|note| note.as_bytes()) => Ok(()),
            Ok(_) => self.catch_up(),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            tracing::warn!("the log cannot be followed: {error}");
        }
        self.set_health(result.as_ref().err());
        !result.is_err_and(|error| is_hopeless(&error))
    }

    /// Takes over what other processes have appended, and finishes what one of them has left half done.
    fn catch_up(&mut self) -> Result<()> {
        let known = self.frontier.size();
        let recovered = recover(&self.storage, self.format, &mut self.signer, Some(&self.frontier));
        let Found { published, frontier, sealed } = self.runtime.block_on(recovered)?;
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        shared.dedup.learn(&*self.storage, self.format, known, frontier.size())?;
        self.frontier = frontier;
        shared.published.send_replace(Arc::new(published));
        if sealed && !shared.frozen.swap(true, Ordering::Relaxed) {
            tracing::info!("the log has been frozen");
        }
        Ok(())
    }

    fn set_health(&self, error: Option<&Error>) {
        if let Some(shared) = self.shared.upgrade() {
            *shared.health.lock().unwrap_or_else(PoisonError::into_inner) = error.cloned();
        }
    }
}

/// The proof of an entry that another process has published, if it proves that entry.
fn ours(proof: Vec<Hash>, entry: &Entry, index: u64, tree: &Checkpoint) -> Result<Vec<Hash>> {
    verify_inclusion(&entry.leaf_hash, index, tree.size, &proof, &tree.root).map_err(|e| {
        Error::internal(format!("entry {index} was durable, and another one is in the log"))
            .vendor(e.what())
            .next("run `signer-log check`, and find out who writes into the log's storage")
    })?;
    Ok(proof)
}

/// Who has published what covers a batch.
#[derive(Clone, Copy)]
enum By {
    Us,
    Another,
}

fn is_hopeless(error: &Error) -> bool {
    error.kind() == ErrorKind::Denied && error.advice().is_some_and(|a| a.contains("signer-log check"))
}

fn appended(index: u64, proof: Vec<Hash>, published: &Published) -> Appended {
    let (size, root) = (published.checkpoint.size, published.checkpoint.root);
    Appended { index, size, root, proof, checkpoint: published.note.clone() }
}

/// The inclusion proofs of entries that follow each other.
fn proofs(size: u64, nodes: &impl Nodes, begin: u64, count: usize) -> Vec<Result<Vec<Hash>>> {
    let edge = Edge::new(size, nodes);
    let prove = |index| edge.as_ref().map_err(Clone::clone)?.inclusion_proof(index, nodes);
    (begin..).take(count).map(prove).collect()
}

/// Steps 2 to 4. `tiles` are those that are not written yet: that is done while the key works, because nobody sees the
/// signature before it is over. `None` when another process has published since.
pub(crate) async fn sign_and_publish(
    storage: &dyn Storage,
    view: &View<'_>,
    tiles: &[(TileId, Vec<u8>)],
    signer: &mut CheckpointSigner,
    (size, root): (u64, Hash),
    expected: Option<&str>,
) -> Result<Option<Published>> {
    let proof = consistency_proof(signer.size(), size, view)?;
    let (note, written) =
        beside(signer.sign(size, root, Vec::new(), &proof), || storage.write_tiles(tiles)).await;
    written?;
    let note = signer.cosigned(note?, size, view).await?;
    // 4. By compare-and-swap: if somebody else has published since, nothing of ours is seen.
    if storage.publish(expected.map(str::as_bytes), note.as_bytes())? == Swap::Overtaken {
        return Ok(None);
    }
    let checkpoint =
        Checkpoint { origin: signer.key().name().to_owned(), size, root, extensions: Vec::new() };
    Ok(Some(Published { checkpoint, note: note.into() }))
}

/// Turns of the runtime until what a future asks for is on its way: that of the connection, and the one that it leaves to others
/// before it writes.
const TURNS: usize = 3;

/// Does something that takes its time after a future has asked for what it waits for.
async fn beside<T, U>(future: impl Future<Output = T>, work: impl FnOnce() -> U) -> (T, U) {
    let mut future = pin!(future);
    for _ in 0..TURNS {
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return (done, work());
        }
        tokio::task::yield_now().await;
    }
    let worked = work();
    (future.await, worked)
}

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

/// Closes a log for ever: everything durable is published, and the last checkpoint says that it is the last. A log in a folder
/// must not be open. A log of tree heads (RFC 6962) has no room for the line; whoever serves it has to know.
pub async fn freeze(
    storage: Arc<dyn Storage>,
    format: Format,
    mut signer: CheckpointSigner,
) -> Result<Checkpoint> {
    let tree_heads = signer.key().kind() == crate::NoteKind::TreeHead;
    for _ in 0..LOSSES {
        let Found { published, frontier, sealed } = recover(&storage, format, &mut signer, None).await?;
        // From here on nobody can stage anything more.
        if !sealed && storage.seal()? == Swap::Overtaken {
            continue;
        }
        if tree_heads || published.is_frozen() {
            storage.settle()?;
            return Ok(published.checkpoint);
        }
        let line = format!("{}{}", crate::log::FROZEN, unix_date(now_millis() / 1000));
        let (size, root) = (published.checkpoint.size, published.checkpoint.root);
        let note = signer.sign(size, root, vec![line.clone()], &[]).await?;
        let growth = Growth::default();
        let view = View { frontier: &frontier, growth: &growth, storage: &*storage };
        let note = signer.cosigned(note, size, &view).await?;
        if storage.publish(Some(published.note.as_bytes()), note.as_bytes())? == Swap::Done {
            storage.settle()?;
            return Ok(Checkpoint { extensions: vec![line], ..published.checkpoint });
        }
    }
    Err(Error::new(
        ErrorKind::Busy { retry_after: Duration::from_secs(1) },
        "other servers of this log are always first",
    )
    .next("stop them, and freeze the log again"))
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
