//! A log whose entries are answered when they are durable; tiles and checkpoint follow in the background.
//!
//! A [`crate::Log`] answers with a proof, so each of its batches waits for a signature. Whoever needs to know only that an
//! entry will not be lost, and adds entries faster than a device signs, wants a `Ledger`. The order of writes is that of
//! [`crate::storage`] with step 5 after step 1: the entries are durable in their final order, the callers are answered, and
//! steps 2 to 4 are done for many batches at once, at most once in [`LedgerLimits::publish_every`]. What that gives up is
//! time: an entry is not covered by a signature yet when its caller goes on. [`Condition::unsigned_since`] says for how long
//! that has been so; how long is too long is for the caller to judge.
//!
//! Nothing else is given up. A start finds all durable entries in the journal and finishes what is missing, as for any log.
//! The journal begins one of its files anew only when the tiles of what is in it are durable; so tiles that are still in
//! memory are written first ([`Storage::has_room`]). That bounds what memory holds when tiles cannot be written: once the
//! journal is full, [`Ledger::append`] fails until they can.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    task::{Context, Poll},
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use signer_core::{BoxFuture, Error, ErrorKind, Result, Signer};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    checkpoint::Checkpoint,
    format::Format,
    frontier::{Frontier, Growth},
    log::{Build, Published},
    note::NoteKey,
    recovery::rebuild,
    signing::now_millis,
    storage::{Batch, Recovered, Storage, Swap},
    tile::TileId,
};

mod publisher;

/// A write that took no longer may be done by whoever wants it: [`Ledger::append_here`].
const QUICK: Duration = Duration::from_millis(1);

/// How much a ledger takes on at a time, and how often it signs.
#[derive(Clone, Debug)]
pub struct LedgerLimits {
    /// Entries that wait to be made durable; one more is refused with `Busy`.
    pub waiting: usize,
    /// Entries of one batch.
    pub batch_entries: usize,
    /// Bytes of one batch.
    pub batch_bytes: usize,
    /// The least time between two checkpoints.
    pub publish_every: Duration,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            waiting: 8192,
            batch_entries: 4096,
            batch_bytes: 4 << 20,
            publish_every: Duration::from_secs(1),
        }
    }
}

/// Opens the key that signs checkpoints. Asked for until there is one: a device may come later than the first entries.
pub type OpenKey = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Signer>>> + Send>;

/// How a ledger is.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// How many entries are durable.
    pub durable: u64,
    /// How many of them the newest checkpoint covers; `None` when there has never been one.
    pub signed: Option<u64>,
    /// Since when there have been entries that no checkpoint covers.
    pub unsigned_since: Option<Instant>,
    /// Why entries cannot be made durable, if the last could not.
    pub append_error: Option<Error>,
    /// Why there is no newer checkpoint, if the last try failed.
    pub publish_error: Option<Error>,
}

/// A log that this process writes, answering when entries are durable.
pub struct Ledger {
    shared: Arc<Shared>,
    submissions: Mutex<Option<mpsc::Sender<Waiting>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What both threads work with.
struct Shared {
    storage: Arc<dyn Storage>,
    origin: String,
    tree: Mutex<Tree>,
    /// Tiles that are not in the storage yet. Locked while they are written, before `tree`.
    unwritten: Mutex<Vec<(TileId, Vec<u8>)>>,
    condition: Mutex<Condition>,
    /// The size of the tree when callers were told last; read without a lock.
    durable: AtomicU64,
    published: watch::Sender<Option<Arc<Published>>>,
    publish_every: Mutex<Duration>,
    /// Held by whoever makes entries durable. What is guarded is the time of the newest ones, in milliseconds since 1970.
    turn: Mutex<u64>,
    /// Whether the last write was a quick one.
    quick: AtomicBool,
    /// Wakes the publisher. What is guarded is whether the ledger is being closed.
    bell: (Mutex<bool>, Condvar),
    /// The thread that makes entries durable; whether it waits for more of them; whether it shall not.
    sequencer: OnceLock<Thread>,
    resting: AtomicBool,
    hurry: AtomicBool,
    /// No more tries: whoever closes the ledger does not wait any longer.
    give_up: AtomicBool,
}

struct Tree {
    frontier: Frontier,
    growth: Growth,
    /// The size at which partial tiles were taken last.
    taken: u64,
}

struct Waiting {
    build: Build,
    /// Until when it may wait for others.
    until: Instant,
    durable: oneshot::Sender<Result<(u64, u64)>>,
}

/// Waits until an entry is durable: its index and its time in milliseconds since 1970.
#[derive(Debug)]
pub struct Durable(oneshot::Receiver<Result<(u64, u64)>>);

impl Future for Durable {
    type Output = Result<(u64, u64)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or_else(|_| Err(closed())))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::DeviceGone, "the log is being closed").next("try again when it is back")
}

/// Another process writes, in spite of the lock.
fn overtaken() -> Error {
    Error::new(ErrorKind::Denied, "somebody else writes this log")
        .next("stop whatever else does, run `signer-log check`, and start again")
}

impl Ledger {
    /// Opens a ledger: finishes or forgets what the last process left half done. Blocks while it reads. `key` verifies the
    /// checkpoint that is there; without it, that is done when the key has been opened, before anything is signed.
    pub fn open(
        storage: Arc<dyn Storage>,
        format: Format,
        origin: &str,
        key: Option<&NoteKey>,
        open_key: OpenKey,
        limits: &LedgerLimits,
    ) -> Result<Self> {
        // Others would be found out only by a compare-and-swap that has failed, after callers were answered.
        if storage.shared().is_some() {
            return Err(Error::bad_request(
                "such a log has one writer, and several may write to this storage",
            )
            .next("keep it in a folder"));
        }
        let Recovered { snapshot, batches, checkpoint: note, sealed } = storage.recover()?;
        if sealed {
            return Err(Error::new(ErrorKind::Denied, "the log is closed for ever").next("begin another one"));
        }
        let published = note.as_deref().map(|note| read_checkpoint(note, origin, key)).transpose()?;
        let checkpoint = published.as_ref().map(|p| &p.checkpoint);
        let frontier = rebuild(&*storage, format, snapshot, batches, checkpoint)?;
        let size = frontier.size();
        let signed = checkpoint.map(|c| c.size);
        let condition = Condition {
            durable: size,
            signed,
            unsigned_since: (signed.unwrap_or_default() < size).then(Instant::now),
            ..Condition::default()
        };
        let shared = Arc::new(Shared {
            storage,
            origin: origin.to_owned(),
            tree: Mutex::new(Tree { frontier, growth: Growth::default(), taken: size }),
            unwritten: Mutex::default(),
            condition: Mutex::new(condition),
            durable: AtomicU64::new(size),
            published: watch::Sender::new(published.map(Arc::new)),
            publish_every: Mutex::new(limits.publish_every),
            turn: Mutex::new(0),
            quick: AtomicBool::new(false),
            bell: (Mutex::new(false), Condvar::new()),
            sequencer: OnceLock::new(),
            resting: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
        });
        let (sender, receiver) = mpsc::channel(limits.waiting);
        let sequencer = Sequencer { shared: shared.clone(), limits: limits.clone() };
        let publisher = publisher::Publisher::new(shared.clone(), open_key, Handle::current());
        let threads = vec![
            start("ledger-append", move || sequencer.run(receiver))?,
            start("ledger-publish", move || publisher.run())?,
        ];
        let _ = shared.sequencer.set(threads[0].thread().clone());
        Ok(Self { shared, submissions: Mutex::new(Some(sender)), threads: Mutex::new(threads) })
    }

    /// Appends an entry. What is given back waits until it is durable; it is appended whether or not somebody waits.
    /// `Busy` when too many wait.
    ///
    /// An entry that nobody waits for yet may have `patience`: others that come meanwhile are made durable by the same
    /// write. [`Ledger::hurry`] ends it.
    pub fn append(&self, build: Build, patience: Duration) -> Result<Durable> {
        let (durable, told) = oneshot::channel();
        let until = Instant::now() + patience;
        let submissions = lock(&self.submissions);
        match submissions.as_ref().map(|s| s.try_send(Waiting { build, until, durable })) {
            Some(Ok(())) => {
                drop(submissions);
                // Not a word for all: the entry says itself that it does not wait, and may be durable already.
                if patience.is_zero() {
                    self.wake();
                }
                Ok(Durable(told))
            }
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                let kind = ErrorKind::Busy { retry_after: Duration::from_millis(100) };
                Err(Error::new(kind, "too many entries wait for the log").next("try again in a moment"))
            }
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Err(closed()),
        }
    }

    /// As [`Ledger::append`] without patience, and on this thread where that is one quick write: nobody else's entries are
    /// being made durable, the journal has room, and the last write took at most a millisecond. Blocks for that write. It
    /// spares a lone caller the way to another thread and back, which takes as long as the write.
    pub fn append_here(&self, build: Build) -> Result<Durable> {
        let shared = &*self.shared;
        {
            // Held to the end: closing waits for this entry.
            let submissions = lock(&self.submissions);
            if submissions.is_none() {
                return Err(closed());
            }
            if shared.quick.load(Ordering::Relaxed)
                && let Ok(mut time) = shared.turn.try_lock()
            {
                *time = now_millis().max(*time);
                let begin = shared.durable.load(Ordering::Relaxed);
                let batch = Batch { begin, entries: vec![build(begin, *time)] };
                if shared.storage.has_room(&batch) {
                    let (told, durable) = oneshot::channel();
                    let _ = told.send(shared.stage(&batch).map(|()| (begin, *time)));
                    return Ok(Durable(durable));
                }
            }
        }
        self.append(build, Duration::ZERO)
    }

    /// Somebody waits now for what was appended: no more patience.
    pub fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Lets the sequencer look, if it rests. What it is to find must be there.
    fn wake(&self) {
        let shared = &*self.shared;
        fence(Ordering::SeqCst);
        if shared.resting.load(Ordering::SeqCst)
            && let Some(thread) = shared.sequencer.get()
        {
            thread.unpark();
        }
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        let mut condition = lock(&self.shared.condition).clone();
        condition.durable = self.shared.durable.load(Ordering::Acquire);
        condition
    }

    /// The checkpoint that readers see now, if there ever was one.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.shared.published.borrow().clone()
    }

    /// The last entry, if there is one at hand: of a log whose last tile of entries is full there is none.
    pub fn last(&self) -> Option<Vec<u8>> {
        lock(&self.shared.tree).frontier.last()
    }

    /// Changes the least time between two checkpoints.
    pub fn publish_every(&self, time: Duration) {
        *lock(&self.shared.publish_every) = time;
        self.shared.bell.1.notify_all();
    }

    /// Ends the ledger: what waits is made durable, and signed for if that takes no longer than `patience`. Blocks; the
    /// runtime that the key works on has to go on meanwhile. The storage is free for another process afterwards.
    pub fn close(&self, patience: Duration) {
        let until = Instant::now() + patience;
        drop(lock(&self.submissions).take());
        let mut threads = std::mem::take(&mut *lock(&self.threads)).into_iter();
        // The last entries first, then what signs for them.
        wait_for(threads.next(), until);
        self.shared.ring();
        let publisher = threads.next();
        let left = wait_for(publisher, until);
        self.shared.give_up.store(true, Ordering::Relaxed);
        wait_for(left, Instant::now() + patience / 4);
    }
}

/// Waits until a thread has ended, until a moment; gives it back if it has not.
fn wait_for(thread: Option<JoinHandle<()>>, until: Instant) -> Option<JoinHandle<()>> {
    let thread = thread?;
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !thread.is_finished() {
        return Some(thread);
    }
    let _ = thread.join();
    None
}

impl Drop for Ledger {
    /// Nobody waits here: the key may be served by this very thread.
    fn drop(&mut self) {
        drop(lock(&self.submissions).take());
        self.shared.give_up.store(true, Ordering::Relaxed);
        self.shared.ring();
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} {})", self.shared.origin, self.shared.durable.load(Ordering::Relaxed))
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|e| Error::internal("a thread cannot be started").vendor(e))
}

fn read_checkpoint(note: &[u8], origin: &str, key: Option<&NoteKey>) -> Result<Published> {
    let checkpoint = match key {
        Some(key) => Checkpoint::verified(note, key)?,
        None => Checkpoint::from_text(crate::Note::parse(note)?.text())?,
    };
    if checkpoint.origin != origin {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("the log here is called {:?}, not {origin:?}", checkpoint.origin),
        )
        .next("use the origin that the log was made with, or another folder"));
    }
    Ok(Published { checkpoint, note: String::from_utf8_lossy(note).as_ref().into() })
}

impl Shared {
    /// Tells the publisher that the end has come.
    fn ring(&self) {
        *lock(&self.bell.0) = true;
        self.bell.1.notify_all();
    }

    /// Step 1. Afterwards the batch is in the tree, or was never there.
    fn stage(&self, batch: &Batch) -> Result<()> {
        let began = Instant::now();
        let snapshot = || lock(&self.tree).frontier.to_bytes();
        let staged = if self.storage.has_room(batch) {
            self.storage.stage(batch, &snapshot)
        } else {
            self.write_tiles().and_then(|_| self.storage.stage(batch, &snapshot))
        };
        let staged = staged.and_then(|swap| match swap {
            Swap::Done => Ok(()),
            Swap::Overtaken => Err(overtaken()),
        });
        if let Err(error) = staged {
            tracing::warn!("a batch is refused: {error}");
            self.quick.store(false, Ordering::Relaxed);
            lock(&self.condition).append_error = Some(error.clone());
            return Err(error);
        }
        self.quick.store(began.elapsed() <= QUICK, Ordering::Relaxed);
        {
            let mut tree = lock(&self.tree);
            let Tree { frontier, growth, .. } = &mut *tree;
            batch.entries.iter().for_each(|entry| frontier.push(entry, growth));
        }
        self.durable.store(batch.begin + batch.entries.len() as u64, Ordering::Release);
        let mut condition = lock(&self.condition);
        condition.append_error = None;
        if condition.unsigned_since.is_none() {
            condition.unsigned_since = Some(Instant::now());
            drop(condition);
            // The publisher sleeps until there is something to sign.
            drop(lock(&self.bell.0));
            self.bell.1.notify_all();
        }
        Ok(())
    }

    /// Step 2 for all that is durable. Gives the tree of it.
    fn write_tiles(&self) -> Result<Frontier> {
        let mut unwritten = lock(&self.unwritten);
        let frontier = {
            let mut tree = lock(&self.tree);
            let Tree { frontier, growth, taken } = &mut *tree;
            if *taken != frontier.size() {
                frontier.finish(growth);
                *taken = frontier.size();
            }
            let new = std::mem::take(growth).tiles;
            // A longer form of a tile takes the place of one that could not be written so far.
            unwritten.retain(|(id, _)| !new.iter().any(|(n, _)| (n.kind, n.index) == (id.kind, id.index)));
            unwritten.extend(new);
            frontier.clone()
        };
        self.storage.write_tiles(&unwritten)?;
        unwritten.clear();
        Ok(frontier)
    }
}

/// The thread that puts entries in order and makes them durable.
struct Sequencer {
    shared: Arc<Shared>,
    limits: LedgerLimits,
}

impl Sequencer {
    fn run(self, mut incoming: mpsc::Receiver<Waiting>) {
        while let Some(first) = incoming.blocking_recv() {
            let mut turn = lock(&self.shared.turn);
            let time = now_millis().max(*turn);
            *turn = time;
            let begin = self.shared.durable.load(Ordering::Relaxed);
            let mut batch = Batch { begin, entries: Vec::new() };
            let (mut waiting, mut bytes) = (Vec::new(), 0);
            let (mut next, mut until) = (Some(first), None);
            loop {
                if let Some(one) = next.take() {
                    let entry = (one.build)(begin + batch.entries.len() as u64, time);
                    bytes += entry.data.len();
                    batch.entries.push(entry);
                    waiting.push(one.durable);
                    until = Some(until.map_or(one.until, |until: Instant| until.min(one.until)));
                }
                let room = batch.entries.len() < self.limits.batch_entries && bytes < self.limits.batch_bytes;
                if !room {
                    break;
                }
                next = incoming.try_recv().ok();
                if next.is_none() && !self.rest(until, &incoming) {
                    // What came in the last moment.
                    next = incoming.try_recv().ok();
                    if next.is_none() {
                        break;
                    }
                    until = Some(Instant::now());
                }
            }
            // Whoever was in a hurry until now has an entry in this batch, or in one that follows at once.
            self.shared.hurry.store(false, Ordering::SeqCst);
            let staged = self.shared.stage(&batch);
            drop(turn);
            for (at, durable) in waiting.into_iter().enumerate() {
                // Nobody may be waiting any more.
                let _ = durable.send(staged.clone().map(|()| (begin + at as u64, time)));
            }
        }
    }

    /// Waits for more entries, as long as all that are there have patience; `false` when that is over.
    fn rest(&self, until: Option<Instant>, incoming: &mpsc::Receiver<Waiting>) -> bool {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return false };
        let shared = &*self.shared;
        shared.resting.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Whoever is in a hurry, or has sent an entry, has done so before this look, or sees that this thread rests.
        if !shared.hurry.load(Ordering::SeqCst) && incoming.is_empty() {
            std::thread::park_timeout(left);
        }
        shared.resting.store(false, Ordering::SeqCst);
        !shared.hurry.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
