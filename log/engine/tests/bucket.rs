//! Logs in a bucket: one store, several processes, and a store that breaks in every way it can.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};
use signer_core::{ErrorKind, KeyType, Result};
use signer_log_engine::{
    Bucket, BucketStorage, CheckpointSigner, Format, Limits, Log, Submitted, check, freeze, leaf_hash,
};
use support::{ORIGIN, append, append_all, entry, signer};

const KEY: KeyType = KeyType::EcdsaP256;

/// What a store does wrong, in thousandths of all requests.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Fails, and nothing was done.
    refused: u32,
    /// Does it, and the answer is lost.
    unanswered: u32,
    /// Answers that it failed, and does it a while later.
    late: u32,
    /// Answers a read with what was there before.
    stale: u32,
    /// Ignores the conditions of writes.
    unconditional: bool,
}

/// A store in memory that does not keep its word.
#[derive(Clone)]
struct Flaky {
    inner: Arc<InMemory>,
    faults: Arc<Mutex<Faults>>,
    dice: Arc<AtomicU32>,
    before: Arc<Mutex<HashMap<Path, Arc<InMemory>>>>,
}

impl Flaky {
    fn new(faults: Faults) -> Self {
        Self {
            inner: Arc::new(InMemory::new()),
            faults: Arc::new(Mutex::new(faults)),
            dice: Arc::new(AtomicU32::new(std::process::id())),
            before: Arc::default(),
        }
    }

    fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    fn now(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    fn happens(&self, thousandths: u32) -> bool {
        let roll = self
            .dice
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| {
                Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
            })
            .unwrap();
        (roll >> 8) % 1000 < thousandths
    }

    /// Keeps what is there, for those who get old answers.
    async fn keep(&self, path: &Path) {
        if let Ok(found) = self.inner.get_opts(path, GetOptions::default()).await {
            let old = InMemory::new();
            let bytes = found.bytes().await.unwrap();
            old.put_opts(path, bytes.into(), PutOptions::default()).await.unwrap();
            self.before.lock().unwrap().insert(path.clone(), Arc::new(old));
        }
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "503 Slow Down".into() }
}

impl fmt::Debug for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let faults = self.now();
        if faults.unconditional {
            options.mode = PutMode::Overwrite;
        }
        if self.happens(faults.refused) {
            return Err(broken());
        }
        if self.happens(faults.late) {
            let (this, path) = (self.clone(), path.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = this.inner.put_opts(&path, payload, options).await;
            });
            return Err(broken());
        }
        self.keep(path).await;
        let done = self.inner.put_opts(path, payload, options).await;
        if self.happens(faults.unanswered) { Err(broken()) } else { done }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let faults = self.now();
        if self.happens(faults.refused) {
            return Err(broken());
        }
        let old = self.before.lock().unwrap().get(path).cloned();
        match old {
            Some(old) if self.happens(faults.stale) => old.get_opts(path, options).await,
            _ => self.inner.get_opts(path, options).await,
        }
    }

    async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn open(store: &Flaky, state: Option<PathBuf>) -> Result<Log> {
    let storage = BucketStorage::open(Arc::new(store.clone()), "logs/2026", state)?;
    let signer = CheckpointSigner::new(ORIGIN, signer(KEY).await, false)?;
    Log::open(Arc::new(storage), Format::Entries, signer, Limits::default()).await
}

/// Everything wrong with the log in the store.
async fn wrong(store: &Flaky, log: &Log) -> Vec<String> {
    let bucket = Bucket::new(Arc::new(store.clone()), "logs/2026").unwrap();
    let checkpoint = log.published().checkpoint.clone();
    tokio::task::spawn_blocking(move || check(&bucket, Format::Entries, &checkpoint, 2).wrong).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_a_bucket_grows_and_goes_on() {
    let (store, state) = (Flaky::new(Faults::default()), tempfile::tempdir().unwrap());
    let mut size = 0;
    for round in 0..4_u32 {
        let log = open(&store, Some(state.path().join("index"))).await.unwrap();
        assert_eq!(log.published().checkpoint.size, size);
        let bodies = (0..300_u32).map(|i| format!("{round} {i}").into_bytes());
        for answer in append_all(&log, bodies.collect()).await {
            let answer = answer.unwrap();
            assert_eq!(log.prove(answer.index).await.unwrap().size, log.published().checkpoint.size);
            size += 1;
        }
        // What was there is known, also when the index is made anew.
        let (hash, build) = entry(b"0 7");
        assert!(matches!(log.submit(hash, build).await.unwrap(), Submitted::Duplicate(_)));
        assert_eq!(wrong(&store, &log).await, Vec::<String>::new());
        log.close().await;
        if round == 1 {
            std::fs::remove_dir_all(state.path().join("index")).unwrap();
        }
    }
    // Of the tiles at the edge some partial forms are left, of full ones none.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let bucket = Bucket::new(Arc::new(store.clone()), "logs/2026").unwrap();
    let left = |name: &'static str| bucket.get(name).unwrap().is_some();
    assert!(left("tile/0/000") && !left("tile/0/000.p/255") && !left("tile/entries/000.p/1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_logs_on_one_bucket_are_one_log() {
    let store = Flaky::new(Faults::default());
    let (one, other) = (open(&store, None).await.unwrap(), open(&store, None).await.unwrap());
    let mut answers = Vec::new();
    for round in 0..10_u32 {
        let bodies = |who: &'static str| (0..40).map(move |i| format!("{who} {round} {i}").into_bytes());
        let (a, b) = tokio::join!(
            append_all(&one, bodies("one").collect()),
            append_all(&other, bodies("other").collect())
        );
        answers.extend(a.into_iter().chain(b).map(Result::unwrap));
    }
    let mut indices: Vec<_> = answers.iter().map(|a| a.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..800).collect::<Vec<_>>());
    // Whoever is quiet follows.
    append(&one, b"the last").await.unwrap();
    for _ in 0..100 {
        if other.published().checkpoint.size == 801 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(other.published().checkpoint, one.published().checkpoint);
    assert_eq!(wrong(&store, &one).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_taken_on_the_other_knows() {
    let (store, state) = (Flaky::new(Faults::default()), tempfile::tempdir().unwrap());
    let one = open(&store, Some(state.path().join("1"))).await.unwrap();
    let other = open(&store, Some(state.path().join("2"))).await.unwrap();
    for i in 0..20_u32 {
        let body = format!("the same {i}").into_bytes();
        let submit = async |log: &Log| {
            let (hash, build) = entry(&body);
            match log.submit(hash, build).await.unwrap() {
                Submitted::New(ticket) => ticket.published().await.unwrap().index,
                Submitted::Duplicate(index) => index,
            }
        };
        let (a, b) = tokio::join!(submit(&one), submit(&other));
        assert_eq!(a, b, "the same entry was taken on twice");
    }
    assert_eq!(one.published().checkpoint.size.max(other.published().checkpoint.size), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_forks_whatever_the_store_does() {
    let rounds: u32 = std::env::var("LOG_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let faults = Faults { refused: 30, unanswered: 30, late: 30, stale: 30, unconditional: false };
    let store = Flaky::new(Faults::default());
    let mut acknowledged = HashMap::new();
    for round in 0..rounds {
        store.set(Faults::default());
        let logs = [open(&store, None).await.unwrap(), open(&store, None).await.unwrap()];
        store.set(faults);
        let mut tasks = Vec::new();
        for (at, log) in logs.iter().enumerate() {
            for caller in 0..8 {
                let log = log.clone();
                tasks.push(tokio::spawn(async move {
                    let mut done = Vec::new();
                    for i in 0..12_u32 {
                        let body = format!("{round} {at} {caller} {i}").into_bytes();
                        let answer = tokio::time::timeout(Duration::from_secs(30), append(&log, &body)).await;
                        match answer.expect("an answer comes, whichever") {
                            Ok(answer) => done.push((answer.index, leaf_hash(&body))),
                            Err(e) => assert!(
                                matches!(
                                    e.kind(),
                                    ErrorKind::DeviceGone | ErrorKind::Busy { .. } | ErrorKind::TimedOut
                                ),
                                "{e:?}"
                            ),
                        }
                    }
                    done
                }));
            }
        }
        for task in tasks {
            for (index, hash) in task.await.unwrap() {
                assert!(acknowledged.insert(index, hash).is_none(), "index {index} was given twice");
            }
        }
        // One ends well, of the other nothing is waited for.
        let [one, other] = logs;
        store.set(Faults::default());
        one.close().await;
        drop(other);
    }
    let log = open(&store, None).await.unwrap();
    assert_eq!(wrong(&store, &log).await, Vec::<String>::new());
    assert!(acknowledged.len() > 100, "only {} were acknowledged", acknowledged.len());
    for (index, hash) in &acknowledged {
        let tile = signer_log_engine::TileId::new(
            signer_log_engine::TileKind::Entries,
            index / 256,
            (log.published().checkpoint.size - index / 256 * 256).min(256),
        );
        let storage = log.storage().clone();
        let bytes = tokio::task::spawn_blocking(move || {
            signer_log_engine::read_entry_tile(&*storage, Format::Entries, tile.unwrap()).unwrap()
        })
        .await
        .unwrap();
        let there = Format::Entries.split_all(&bytes).unwrap()[(index % 256) as usize].leaf_hash();
        assert_eq!(there, *hash, "entry {index} was acknowledged and is another one");
    }
    println!("{} acknowledged of {}", acknowledged.len(), log.published().checkpoint.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_writes_is_refused() {
    let store = Flaky::new(Faults { unconditional: true, ..Faults::default() });
    let error = open(&store, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.what().contains("could fork"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_log_stays_frozen_for_all_who_have_it_open() {
    let store = Flaky::new(Faults::default());
    let (one, other) = (open(&store, None).await.unwrap(), open(&store, None).await.unwrap());
    append(&one, b"before").await.unwrap();
    let storage = BucketStorage::open(Arc::new(store.clone()), "logs/2026", None).unwrap();
    let signing = CheckpointSigner::new(ORIGIN, signer(KEY).await, false).unwrap();
    let last = freeze(Arc::new(storage), Format::Entries, signing).await.unwrap();
    assert_eq!((last.size, last.extensions.len()), (1, 1));
    for log in [&one, &other] {
        let (hash, build) = entry(b"after");
        let error = match log.submit(hash, build).await {
            Ok(Submitted::New(ticket)) => ticket.published().await.unwrap_err(),
            Ok(Submitted::Duplicate(_)) => panic!("it is new"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(log.is_frozen());
    }
    assert_eq!(open(&store, None).await.unwrap().published().checkpoint, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_none_stops_the_log_until_it_is_put_right() {
    let store = Flaky::new(Faults::default());
    let log = open(&store, None).await.unwrap();
    append(&log, b"one").await.unwrap();
    let path = Path::from("logs/2026/checkpoint");
    let good = store.get_opts(&path, GetOptions::default()).await.unwrap().bytes().await.unwrap();
    store.put_opts(&path, "something else\n".into(), PutOptions::default()).await.unwrap();
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { append(&log, b"waits").await }
    });
    for _ in 0..200 {
        if log.health().is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(log.health().is_err_and(|e| e.what().contains("checkpoint")));
    let now = store.get_opts(&path, GetOptions::default()).await.unwrap().bytes().await.unwrap();
    assert_eq!(&now[..], b"something else\n", "what is not understood is not written over");
    store.put_opts(&path, good.into(), PutOptions::default()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it goes on").unwrap();
    assert_eq!(answer.unwrap().index, 1);
    log.health().unwrap();
    assert_eq!(wrong(&store, &log).await, Vec::<String>::new());
}
