//! Ledgers: entries are durable first, and signed for later.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, KeyType, Result, SignRequest, Signature, Signer};
use signer_log_engine::{
    Checkpoint, Folder, Format, Ledger, LedgerLimits, LocalStorage, NoteKey, Objects, check,
};
use support::{ORIGIN, entry, signer};

const KEY: KeyType = KeyType::Ed25519;

/// A key that can go away.
#[derive(Clone)]
struct Switch {
    signer: Arc<dyn Signer>,
    away: Arc<AtomicBool>,
}

impl Signer for Switch {
    fn info(&self) -> &KeyInfo {
        self.signer.info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        if self.away.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(Error::new(ErrorKind::DeviceGone, "the key is away"))));
        }
        self.signer.sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.signer.health()
    }
}

struct Place {
    folder: tempfile::TempDir,
    key: Switch,
}

impl Place {
    async fn new() -> Self {
        let key = Switch { signer: signer(KEY).await, away: Arc::default() };
        Self { folder: tempfile::tempdir().unwrap(), key }
    }

    fn note_key(&self) -> NoteKey {
        NoteKey::of_log(ORIGIN, self.key.info().public_key.clone()).unwrap()
    }

    fn open(&self) -> Result<Ledger> {
        let key = self.key.clone();
        let open_key = Box::new(move || -> BoxFuture<'static, Result<Arc<dyn Signer>>> {
            let key = key.clone();
            Box::pin(async move {
                if key.away.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::DeviceGone, "the key is away"));
                }
                Ok(Arc::new(key) as Arc<dyn Signer>)
            })
        });
        let limits = LedgerLimits { publish_every: Duration::from_millis(20), ..LedgerLimits::default() };
        let storage = Arc::new(LocalStorage::open(self.folder.path())?);
        Ledger::open(storage, Format::Entries, ORIGIN, None, open_key, &limits)
    }

    fn away(&self, away: bool) {
        self.key.away.store(away, Ordering::Relaxed);
    }

    /// Everything as a stranger with the public key reads it.
    fn proven(&self) -> u64 {
        let folder = Folder::new(self.folder.path());
        let note = folder.read("checkpoint").unwrap().expect("there is a checkpoint");
        let checkpoint = Checkpoint::verified(&note, &self.note_key()).unwrap();
        let findings = check(&folder, Format::Entries, &checkpoint, 2);
        assert_eq!(findings.wrong, Vec::<String>::new());
        checkpoint.size
    }
}

async fn append(ledger: &Ledger, body: String) -> Result<u64> {
    let (_, build) = entry(body.as_bytes());
    Ok(ledger.append(build, Duration::ZERO)?.await?.0)
}

async fn close(ledger: Ledger) {
    tokio::task::spawn_blocking(move || ledger.close(Duration::from_secs(1))).await.unwrap();
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_durable_at_once_and_signed_for_soon() {
    let place = Place::new().await;
    let ledger = place.open().unwrap();
    for i in 0..1000 {
        assert_eq!(append(&ledger, format!("entry {i}")).await.unwrap(), i);
    }
    until("it is not signed for", || ledger.condition().signed == Some(1000)).await;
    assert!(ledger.condition().unsigned_since.is_none());
    assert_eq!(place.proven(), 1000);
    // What came last is signed for at the end.
    append(&ledger, "the last".into()).await.unwrap();
    close(ledger).await;
    assert_eq!(place.proven(), 1001);
    let ledger = place.open().unwrap();
    assert_eq!(ledger.last().unwrap(), b"the last");
    assert_eq!(append(&ledger, "after that".into()).await.unwrap(), 1001);
    close(ledger).await;
    assert_eq!(place.proven(), 1002);
}

/// Those that have patience share a write; it ends when somebody waits.
#[tokio::test(flavor = "multi_thread")]
async fn entries_wait_for_each_other_until_somebody_waits() {
    let place = Place::new().await;
    let ledger = place.open().unwrap();
    append(&ledger, "warm".into()).await.unwrap();
    let long = Duration::from_secs(20);
    let began = Instant::now();
    let patient: Vec<_> =
        (0..50).map(|i| ledger.append(entry(format!("{i}").as_bytes()).1, long).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ledger.condition().durable, 1, "nobody waited, and it was written");
    append(&ledger, "in a hurry".into()).await.unwrap();
    for one in patient {
        one.await.unwrap();
    }
    // The same without another entry, and without anybody.
    let one = ledger.append(entry(b"one").1, long).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    ledger.hurry();
    one.await.unwrap();
    ledger.append(entry(b"two").1, Duration::from_millis(5)).unwrap().await.unwrap();
    assert!(began.elapsed() < long);
    close(ledger).await;
    assert_eq!(place.proven(), 54);
}

/// A lone caller's thread writes itself where the disk is quick, and whoever else appends meanwhile loses nothing by it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_alone_writes_himself() {
    let place = Place::new().await;
    let ledger = Arc::new(place.open().unwrap());
    append(&ledger, "how quick the disk is".into()).await.unwrap();
    let writers = Arc::new(Mutex::new(Vec::new()));
    // A write that was slow is left to the other thread next time.
    for index in 1..=1000 {
        let (writers, (_, build)) = (writers.clone(), entry(format!("alone {index}").as_bytes()));
        let noted = move |index, time| {
            writers.lock().unwrap().push(std::thread::current().id());
            build(index, time)
        };
        assert_eq!(ledger.append_here(Box::new(noted)).unwrap().await.unwrap().0, index);
    }
    let here = std::thread::current().id();
    let written_here = writers.lock().unwrap().iter().filter(|writer| **writer == here).count();
    assert!(written_here > 100, "{written_here} of 1000 were written here");

    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut indices = Vec::new();
                for round in 0..200 {
                    let (_, build) = entry(format!("{task} {round}").as_bytes());
                    let durable = match task % 2 {
                        0 => ledger.append_here(build),
                        _ => ledger.append(build, Duration::from_micros(300)),
                    };
                    indices.push(durable.unwrap().await.unwrap().0);
                }
                indices
            })
        })
        .collect();
    let mut indices = Vec::new();
    for task in tasks {
        indices.extend(task.await.unwrap());
    }
    indices.sort_unstable();
    assert!(indices.into_iter().eq(1001..2601), "an index is missing, or was given twice");
    let ledger = Arc::into_inner(ledger).unwrap();
    close(ledger).await;
    assert_eq!(place.proven(), 2601);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_ledger_goes_on_and_says_since_when() {
    let place = Place::new().await;
    place.away(true);
    let ledger = place.open().unwrap();
    let began = Instant::now();
    for i in 0..600 {
        append(&ledger, format!("entry {i}")).await.unwrap();
    }
    until("no error", || ledger.condition().publish_error.is_some()).await;
    let condition = ledger.condition();
    assert_eq!((condition.durable, condition.signed), (600, None));
    assert!(condition.unsigned_since.unwrap() >= began);
    assert!(condition.publish_error.unwrap().what().contains("away"));
    // The next start knows nothing of the key either, and has the entries.
    close(ledger).await;
    let ledger = place.open().unwrap();
    assert_eq!(ledger.condition().durable, 600);
    assert!(ledger.condition().unsigned_since.is_some());
    assert_eq!(append(&ledger, "entry 600".into()).await.unwrap(), 600);
    place.away(false);
    until("it is not signed for", || ledger.condition().signed == Some(601)).await;
    assert!(ledger.condition().publish_error.is_none());
    assert_eq!(place.proven(), 601);
    // It goes away between two checkpoints, and comes again.
    place.away(true);
    append(&ledger, "entry 601".into()).await.unwrap();
    until("no error", || ledger.condition().publish_error.is_some()).await;
    place.away(false);
    until("it is not signed for", || ledger.condition().signed == Some(602)).await;
    close(ledger).await;
}

/// The journal is begun anew although nothing can be signed: the tiles are written first.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_turns_without_the_key() {
    let place = Place::new().await;
    place.away(true);
    let mut size = 0;
    for round in 0..3 {
        let ledger = place.open().unwrap();
        assert_eq!(ledger.condition().durable, size);
        for i in 0..4 {
            let bodies = (0..150).map(|j| format!("{round} {i} {j} {}", "x".repeat(60_000)));
            let waiting: Vec<_> =
                bodies.map(|body| ledger.append(entry(body.as_bytes()).1, Duration::ZERO).unwrap()).collect();
            for one in waiting {
                one.await.unwrap();
                size += 1;
            }
        }
        close(ledger).await;
    }
    assert_eq!(length(&place.folder.path().join(".state/journal.0")), 32 << 20);
    place.away(false);
    let ledger = place.open().unwrap();
    until("it is not signed for", || ledger.condition().signed == Some(size)).await;
    close(ledger).await;
    assert_eq!(place.proven(), size);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_power_cut_takes_come_again_from_the_journal() {
    let place = Place::new().await;
    let ledger = place.open().unwrap();
    for i in 0..300 {
        append(&ledger, format!("entry {i}")).await.unwrap();
    }
    close(ledger).await;
    let old = std::fs::read(place.folder.path().join("checkpoint")).unwrap();
    let ledger = place.open().unwrap();
    for i in 300..700 {
        append(&ledger, format!("entry {i}")).await.unwrap();
    }
    close(ledger).await;
    std::fs::remove_dir_all(place.folder.path().join("tile")).unwrap();
    std::fs::write(place.folder.path().join("checkpoint"), old).unwrap();
    let ledger = place.open().unwrap();
    until("it is not signed for", || ledger.condition().signed == Some(700)).await;
    close(ledger).await;
    assert_eq!(place.proven(), 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_or_another_name_is_refused() {
    let mut place = Place::new().await;
    let ledger = place.open().unwrap();
    append(&ledger, "entry".into()).await.unwrap();
    until("it is not signed for", || ledger.condition().signed == Some(1)).await;
    close(ledger).await;
    place.key.signer = signer(KeyType::EcdsaP256).await;
    let ledger = place.open().unwrap();
    append(&ledger, "another".into()).await.unwrap();
    until("no error", || ledger.condition().publish_error.is_some()).await;
    let error = ledger.condition().publish_error.unwrap();
    assert!(error.what().contains("not by this log's key"), "{error}");
    close(ledger).await;
    // With the key known, that is seen at once; so is another name.
    let storage = || Arc::new(LocalStorage::open(place.folder.path()).unwrap());
    let never = || -> signer_log_engine::OpenKey { Box::new(|| Box::pin(std::future::pending())) };
    let limits = LedgerLimits::default();
    let key = place.note_key();
    assert!(Ledger::open(storage(), Format::Entries, ORIGIN, Some(&key), never(), &limits).is_err());
    let error =
        Ledger::open(storage(), Format::Entries, "other.example", None, never(), &limits).unwrap_err();
    assert!(error.what().contains("log.example"), "{error}");
    // The right one finishes what the wrong one could not.
    place.key.signer = signer(KEY).await;
    let ledger = place.open().unwrap();
    until("it is not signed for", || ledger.condition().signed == Some(2)).await;
    close(ledger).await;
    assert_eq!(place.proven(), 2);
}
