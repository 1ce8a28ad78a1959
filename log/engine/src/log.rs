//! A log that grows: what callers hold.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use signer_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    checkpoint::Checkpoint,
    dedup::{Dedup, Place},
    format::Format,
    frontier::StoredNodes,
    note::NoteKey,
    recovery::{Found, recover},
    sequencer::{Sequencer, Waiting},
    signing::CheckpointSigner,
    storage::{Entry, Objects, Storage},
    tree::{Edge, Hash, verify_inclusion},
};

/// The line that a frozen log's last checkpoint carries, followed by the time.
pub const FROZEN: &str = "Log frozen — ";

/// How much a log takes on at a time.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries that wait to be sequenced; one more is refused with `Busy`.
    pub waiting: usize,
    /// Entries of one batch.
    pub batch_entries: usize,
    /// Bytes of one batch.
    pub batch_bytes: usize,
    /// Whether the log takes on nothing more, for ever.
    pub frozen: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { waiting: 8192, batch_entries: 1024, batch_bytes: 4 << 20, frozen: false }
    }
}

/// A log that this process writes. Cheap to clone; the log is closed with the last clone.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) format: Format,
    pub(crate) dedup: Dedup,
    pub(crate) health: Mutex<Option<Error>>,
    /// Set while entries are durable and cannot be published: nothing more is taken on.
    pub(crate) stuck: AtomicBool,
    pub(crate) published: watch::Sender<Arc<Published>>,
    pub(crate) batches: AtomicU64,
    /// Set when the log takes on nothing more, for ever.
    pub(crate) frozen: AtomicBool,
    key: NoteKey,
    /// Taken when the log is closed.
    submissions: Mutex<Option<mpsc::Sender<Waiting>>>,
    sender: mpsc::WeakSender<Waiting>,
    sequencer: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
}

/// The checkpoint that readers see.
#[derive(Debug)]
pub struct Published {
    /// What it states.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: Arc<str>,
}

impl Published {
    /// Whether the log was closed for ever.
    pub fn is_frozen(&self) -> bool {
        self.checkpoint.extensions.iter().any(|line| line.starts_with(FROZEN))
    }
}

/// An entry that is durable, with the proof of it.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Its index.
    pub index: u64,
    /// How many entries the tree of the proof has.
    pub size: u64,
    /// The root of that tree.
    pub root: Hash,
    /// The inclusion proof.
    pub proof: Vec<Hash>,
    /// The signed checkpoint of that tree, published.
    pub checkpoint: Arc<str>,
}

/// Makes an entry when its index and its time (milliseconds since 1970) are known. Asked again when another process took
/// the index.
pub type Build = Box<dyn Fn(u64, u64) -> Entry + Send>;

/// What became of a submission.
pub enum Submitted {
    /// It is on its way.
    New(Ticket),
    /// The same is in the log, at this index.
    Duplicate(u64),
}

/// Waits for one entry.
pub struct Ticket {
    durable: oneshot::Receiver<(u64, u64)>,
    published: oneshot::Receiver<Result<Appended>>,
}

impl Ticket {
    /// Waits until the entry is durable: its index and time. It is not published yet. `None` if it never will be;
    /// [`Ticket::published`] says why.
    pub async fn durable(&mut self) -> Option<(u64, u64)> {
        (&mut self.durable).await.ok()
    }

    /// Waits until a published checkpoint covers the entry.
    pub async fn published(self) -> Result<Appended> {
        self.published.await.unwrap_or_else(|_| Err(closed()))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::DeviceGone, "the log is being closed").next("try again when it is back")
}

impl Log {
    /// Opens a log: finishes or forgets what the last process left half done, and signs for it. Blocks while it reads.
    pub async fn open(
        storage: Arc<dyn Storage>,
        format: Format,
        mut signer: CheckpointSigner,
        limits: Limits,
    ) -> Result<Self> {
        let key = signer.key().clone();
        let Found { published, frontier, sealed } = recover(&storage, format, &mut signer, None).await?;
        let dedup = Dedup::open(&*storage, format, frontier.size())?;
        // Of its own: what the key's and the witnesses' connections have to do is done by the thread that waits for them.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal("a runtime cannot be started").vendor(e))?;
        let (sender, receiver) = mpsc::channel(limits.waiting);
        let closing = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            storage,
            format,
            dedup,
            health: Mutex::new(None),
            stuck: AtomicBool::new(false),
            published: watch::Sender::new(Arc::new(published)),
            batches: AtomicU64::new(0),
            key,
            frozen: AtomicBool::new(limits.frozen || sealed),
            sender: sender.downgrade(),
            submissions: Mutex::new(Some(sender)),
            sequencer: Mutex::new(None),
            closing: closing.clone(),
        });
        let thread = Sequencer {
            shared: Arc::downgrade(&shared),
            storage: shared.storage.clone(),
            format,
            frontier,
            signer,
            limits,
            runtime,
            closing,
        };
        let thread = std::thread::Builder::new()
            .name("log-sequencer".into())
            .spawn(move || thread.run(receiver))
            .map_err(|e| Error::internal("a thread cannot be started").vendor(e))?;
        *shared.sequencer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Self { shared })
    }

    /// Submits an entry. `Busy` when too many wait, or when the log cannot publish at the moment.
    pub async fn submit(&self, identity: Hash, build: Build) -> Result<Submitted> {
        let shared = &self.shared;
        if self.is_frozen() {
            return Err(Error::new(ErrorKind::Denied, "this log has been frozen")
                .next("switch to the log that has taken its place"));
        }
        if shared.stuck.load(Ordering::Relaxed) {
            return Err(busy(Duration::from_secs(1), &format!("the log cannot publish: {}", self.why())));
        }
        match shared.dedup.take(&identity, &*shared.storage, shared.format)? {
            Place::Published(index) => Ok(Submitted::Duplicate(index)),
            Place::Coming(told) => told.await.unwrap_or_else(|_| Err(closed())).map(Submitted::Duplicate),
            Place::New => {
                let (tell_durable, durable) = oneshot::channel();
                let (tell_published, published) = oneshot::channel();
                let waiting =
                    Waiting { identity, build, durable: Some(tell_durable), published: tell_published };
                let refused = match shared.sender.upgrade() {
                    Some(sender) => match sender.try_send(waiting) {
                        Ok(()) => return Ok(Submitted::New(Ticket { durable, published })),
                        Err(mpsc::error::TrySendError::Full(_)) => {
                            busy(Duration::from_secs(1), "too many entries wait for the log")
                        }
                        Err(mpsc::error::TrySendError::Closed(_)) => closed(),
                    },
                    None => closed(),
                };
                shared.dedup.failed(&[identity], &refused);
                Err(refused)
            }
        }
    }

    fn why(&self) -> String {
        self.health().err().map(|e| e.to_string()).unwrap_or_default()
    }

    /// Why the log does not go on at the moment, if it does not.
    pub fn health(&self) -> Result<()> {
        match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The checkpoint that readers see now.
    pub fn published(&self) -> Arc<Published> {
        self.shared.published.borrow().clone()
    }

    /// Tells of each new checkpoint.
    pub fn watch(&self) -> watch::Receiver<Arc<Published>> {
        self.shared.published.subscribe()
    }

    /// Whether it takes on nothing more.
    pub fn is_frozen(&self) -> bool {
        self.shared.frozen.load(Ordering::Relaxed) || self.shared.published.borrow().is_frozen()
    }

    /// How many batches were published since the start.
    pub fn batches(&self) -> u64 {
        self.shared.batches.load(Ordering::Relaxed)
    }

    /// How many entries wait at the moment.
    pub fn waiting(&self) -> usize {
        self.shared.sender.upgrade().map_or(0, |s| s.max_capacity() - s.capacity())
    }

    /// The key that verifies the checkpoints.
    pub fn key(&self) -> &NoteKey {
        &self.shared.key
    }

    /// How entries are written.
    pub fn format(&self) -> Format {
        self.shared.format
    }

    /// Where the log is kept.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// The index of an entry by its identity, if it is published.
    pub fn find(&self, identity: &Hash) -> Result<Option<u64>> {
        self.shared.dedup.find(identity, &*self.shared.storage, self.shared.format)
    }

    /// Proves that the entry of an index is in the published tree, from the tiles.
    pub async fn prove(&self, index: u64) -> Result<Appended> {
        let (storage, published) = (self.shared.storage.clone(), self.published());
        let format = self.shared.format;
        let prove = move || {
            let (size, root) = (published.checkpoint.size, published.checkpoint.root);
            let proof = prove_stored(&*storage, format, (size, &root), index)?.0;
            Ok(Appended { index, size, root, proof, checkpoint: published.note.clone() })
        };
        tokio::task::spawn_blocking(prove).await.unwrap_or_else(|_| Err(Error::internal("a proof panicked")))
    }

    /// Ends the log: what waits is finished first. Returns when the storage is free for another process.
    pub async fn close(self) {
        let shared = self.shared.clone();
        let _ = tokio::task::spawn_blocking(move || shared.end()).await;
    }
}

/// The inclusion proof of an entry from the tiles in storage, verified, and the entry as it is in its tile.
pub fn prove_stored(
    storage: &dyn Objects,
    format: Format,
    (size, root): (u64, &Hash),
    index: u64,
) -> Result<(Vec<Hash>, Vec<u8>)> {
    let nodes = StoredNodes::new(storage, size);
    let proof = Edge::new(size, &nodes)?.inclusion_proof(index, &nodes)?;
    let width = (size - index / crate::WIDTH * crate::WIDTH).min(crate::WIDTH);
    let id = crate::TileId::new(format.tile_kind(), index / crate::WIDTH, width)
        .ok_or_else(|| Error::internal("no such tile"))?;
    let tile = crate::storage::read_entry_tile(storage, format, id)?;
    let entries = format.split_all(&tile)?;
    let entry = entries
        .get((index % crate::WIDTH) as usize)
        .ok_or_else(|| Error::internal(format!("{id} has too few entries")))?;
    verify_inclusion(&entry.leaf_hash(), index, size, &proof, root).map_err(|e| {
        Error::internal(format!("entry {index} cannot be proven: a tile is damaged"))
            .vendor(e.what())
            .next("run `signer-log check`, and restore the tile from a mirror or a backup")
    })?;
    Ok((proof, entry.bytes.to_vec()))
}

fn busy(retry_after: Duration, what: &str) -> Error {
    Error::new(ErrorKind::Busy { retry_after }, what.to_owned()).next("try again in a moment")
}

impl Shared {
    fn end(&self) {
        self.closing.store(true, Ordering::Relaxed);
        drop(self.submissions.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.sequencer.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({} {})", self.shared.key.name(), self.published().checkpoint.size)
    }
}
