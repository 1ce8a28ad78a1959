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
    recovery::{Found, recover},
    signing::{CheckpointSigner, now_millis},
    storage::{Batch, Entry, Storage, Swap},
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
pub(crate) const LOSSES: u32 = 20;

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

/// Somebody else writes this log, or it would fork: going on would make it worse.
pub(crate) fn is_hopeless(error: &Error) -> bool {
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
