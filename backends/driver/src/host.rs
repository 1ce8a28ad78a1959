//! The daemon's side: a backend whose work is done in driver processes.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use signer_core::{
    Ability, Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Event, EventSink, Evidence,
    Generate, GenerateRequest, Import, ImportRequest, KeyInfo, KeyName, KeyPage, KeySelector, ListRequest,
    Pin, PinPrompt, Result, Rotate, Signer, StoreCertificate, Unlock, UnlockRequest, Watch,
};

use tokio::task::AbortHandle;

use crate::{
    convert,
    pb::{self, from_driver::Body as Answer, to_driver::Body as Request},
};

mod key;
mod link;
mod pins;
mod process;
mod sealed;
mod slot;

use key::DriverKey;
use link::{CallError, Link, STUCK};
use pins::Vault;
use slot::Slot;

/// Reads a backend's configured PIN afresh: `None` when the configuration leaves it to a person.
pub type PinLoader = Arc<dyn Fn() -> Result<Option<Pin>> + Send + Sync>;

/// How a backend is run in driver processes.
#[derive(Clone)]
pub struct DriverConfig {
    /// The backend's configured name, for messages to people.
    pub backend: String,
    /// The driver program.
    pub program: PathBuf,
    /// Its arguments. Never a secret: anybody can read them.
    pub arguments: Vec<String>,
    /// Its environment, beside `PATH`, `HOME`, `LANG` and the like. Never a secret either.
    pub environment: Vec<(String, String)>,
    /// What the driver is told of its configuration.
    pub options: serde_json::Value,
    /// How many processes serve the backend at most; the second starts when the first is busy.
    pub processes: usize,
    /// How many threads serve in each process.
    pub threads: usize,
    /// Whether to spin for a moment before sleeping, on both sides of the link: half the latency for a lone caller.
    pub spin: bool,
    /// How many requests may wait or be worked on before another is answered `Busy`.
    pub queue: usize,
    /// Where the PIN comes from.
    pub pin: Option<PinLoader>,
    /// How long a PIN that a person gave is kept after it served last; `None` for as long as the daemon runs.
    pub pin_ttl: Option<Duration>,
}

/// A driver that worked on something for so long without a word hangs, and is killed.
const HANG: Duration = Duration::from_secs(20);
/// The same for making a key, which takes long: RSA on a slow card.
const SLOW_HANG: Duration = Duration::from_mins(3);
/// A driver that has not answered the handshake for so long is killed.
const START_LIMIT: Duration = Duration::from_secs(15);
/// A caller without a deadline waits so long for a driver that is started again and again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A caller waits so long for another process when the running ones seem to be stuck.
const STUCK_PATIENCE: Duration = Duration::from_secs(2);
/// A request that killed so many drivers is not given to another.
const MAX_DEATHS: u32 = 5;
/// Requests are packed on one process while the work in flight there is under so many nanoseconds: for quick
/// signatures one busy process is faster than two half-idle ones, slow ones gain from every processor.
const PACK_NS: u64 = 720_000;
/// What a signature is thought to cost before one was measured.
const FIRST_GUESS_NS: u32 = 50_000;

/// A PIN's time is looked at so often: the machine may have slept, and then the timer has not gone on.
const NAP: Duration = Duration::from_secs(20);
/// So soon after its time a PIN is forgotten.
const SOON: Duration = Duration::from_millis(10);

/// A backend that runs in driver processes.
pub struct DriverBackend {
    shared: Arc<Shared>,
    /// Sees to it that PINs are forgotten in time.
    forgetting: AbortHandle,
}

/// What the backend, its keys and its processes share.
struct Shared {
    config: DriverConfig,
    slots: Vec<Arc<Slot>>,
    vault: Arc<Vault>,
    abilities: Vec<Ability>,
    next_handle: AtomicU32,
    /// Requests that wait or are worked on.
    queued: AtomicUsize,
    restarts: Arc<AtomicU64>,
    sinks: Arc<Sinks>,
}

#[derive(Default)]
struct Sinks(Mutex<Vec<EventSink>>);

impl Sinks {
    fn tell(&self, event: &Event) {
        for sink in lock(&self.0).iter() {
            sink(event.clone());
        }
    }
}

impl DriverBackend {
    /// Starts the first process and learns what the backend can do. Call it in a Tokio runtime that lives as long as
    /// the backend. The device itself may be absent.
    pub async fn start(config: DriverConfig) -> Result<Arc<Self>> {
        let sinks = Arc::new(Sinks::default());
        let restarts = Arc::new(AtomicU64::new(0));
        let (loader, ttl) = (config.pin.clone(), config.pin_ttl);
        let vault = Arc::new(Vault::new(config.backend.clone(), loader, ttl, sinks.clone()));
        let starting = Arc::new(tokio::sync::Mutex::new(()));
        let slots: Vec<_> = (0..config.processes.max(1))
            .map(|_| Slot::new(&config, &vault, &sinks, &restarts, &starting))
            .collect();
        let abilities = slots[0].start_now().await?;
        let shared = Arc::new(Shared {
            config,
            slots,
            vault,
            abilities,
            next_handle: AtomicU32::new(1),
            queued: AtomicUsize::new(0),
            restarts,
            sinks,
        });
        let forgetting = tokio::spawn(forget_in_time(Arc::downgrade(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, forgetting }))
    }

    /// What the PIN was wanted for when it was asked for last, as long as a person could help by giving one: `None` when
    /// none was needed, when it is there, and when what is wrong is the configured one.
    pub fn wanted_pin(&self) -> Option<PinPrompt> {
        self.shared.vault.wanted()
    }

    /// Whether the device takes no PIN any more.
    pub fn pin_is_blocked(&self) -> bool {
        self.shared.vault.is_blocked()
    }

    /// Forgets the PIN that a person gave, and locks the device.
    pub async fn lock(&self) {
        self.shared.vault.forget("as somebody has asked for".to_owned());
        if self.shared.vault.must_lock() {
            self.shared.lock().await;
        }
    }

    /// Ends the driver processes. Requests that are in flight fail.
    pub async fn stop(&self) {
        for slot in &self.shared.slots {
            slot.stop().await;
        }
    }

    /// The process numbers of the drivers that run now.
    pub fn processes(&self) -> Vec<u32> {
        self.shared.slots.iter().filter_map(|slot| slot.link().map(|link| link.pid())).collect()
    }

    /// How often a driver was started again.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Relaxed)
    }

    /// How many requests wait or are worked on.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Relaxed)
    }

    fn has(&self, ability: Ability) -> Option<&Self> {
        self.shared.abilities.contains(&ability).then_some(self)
    }
}

/// Forgets PINs when their time is over.
async fn forget_in_time(backend: Weak<Shared>) {
    loop {
        let Some(shared) = backend.upgrade() else { return };
        if shared.vault.time_left().is_some_and(|left| left.is_zero()) {
            tracing::info!(backend = shared.config.backend, "the PIN is forgotten: its time is over");
            shared.vault.forget_in_time();
        }
        if shared.vault.must_lock() {
            shared.lock().await;
        }
        let vault = shared.vault.clone();
        drop(shared);
        match vault.time_left() {
            None => vault.news.notified().await,
            Some(left) => {
                let _ = tokio::time::timeout(left.clamp(SOON, NAP), vault.news.notified()).await;
            }
        }
    }
}

impl Drop for DriverBackend {
    fn drop(&mut self) {
        self.forgetting.abort();
        self.shared.slots.iter().for_each(|slot| slot.kill());
    }
}

/// A place in a backend's queue.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    fn enter(&self) -> Result<Place<'_>> {
        let place = Place(&self.queued);
        if self.queued.fetch_add(1, Relaxed) >= self.config.queue {
            drop(place);
            return Err(Error::new(
                ErrorKind::Busy { retry_after: Duration::from_millis(50) },
                format!("{} requests wait already", self.config.queue),
            )
            .device(&self.config.backend)
            .next("try again later, or raise `queue` of the backend"));
        }
        Ok(place)
    }

    /// The process that should do work of so many nanoseconds: the first that is not busy, else the least busy one.
    /// Waits for one to come up, until `until`; for a moment also when all that are up seem to be stuck.
    async fn pick(&self, work_ns: u32, until: Instant) -> Result<Arc<Link>> {
        let stuck_until = Instant::now() + STUCK_PATIENCE;
        loop {
            if let Some((load, link)) = self.least_busy(work_ns)
                && load < STUCK
            {
                return Ok(link);
            }
            // Registered before the next look, so that nothing that happens in between is missed.
            let mut changed = Vec::new();
            let mut failed = None;
            for slot in &self.slots {
                changed.push(slot.changed());
                failed = failed.or_else(|| slot.failure());
                slot.wake();
            }
            let wait_until = match self.least_busy(work_ns) {
                Some((load, link)) if load < STUCK || failed.is_some() => return Ok(link),
                Some((_, link))
                    if Instant::now() >= stuck_until || self.slots.iter().all(|s| s.link().is_some()) =>
                {
                    return Ok(link);
                }
                Some(_) => stuck_until,
                None => until,
            };
            if let Some(error) = failed {
                return Err(error);
            }
            let any = futures_util::future::select_all(changed.iter_mut().map(|w| Box::pin(w.changed())));
            if tokio::time::timeout_at(wait_until.into(), any).await.is_err() && Instant::now() >= until {
                return Err(self.not_up());
            }
        }
    }

    fn least_busy(&self, work_ns: u32) -> Option<(u64, Arc<Link>)> {
        let mut best: Option<(u64, Arc<Link>)> = None;
        for slot in &self.slots {
            let Some(link) = slot.link() else { continue };
            let Some(load) = link.load_ns() else { continue };
            if load == 0 || load.saturating_add(work_ns.into()) <= PACK_NS {
                return Some((load, link));
            }
            if best.as_ref().is_none_or(|(least, _)| load < *least) {
                best = Some((load, link));
            }
        }
        // All that run are busy: have another one started, for the requests to come.
        if let Some(idle) = self.slots.iter().find(|slot| slot.is_idle()) {
            idle.wake();
        }
        best
    }

    fn not_up(&self) -> Error {
        Error::new(ErrorKind::DeviceGone, "no driver process is up")
            .device(&self.config.backend)
            .next("signing resumes by itself when it is; the daemon's log says why it is not")
    }

    /// Asks any process, again when one dies meanwhile: for what harms nobody when it is done twice.
    async fn ask(&self, request: Request) -> Result<Answer> {
        let _place = self.enter()?;
        let until = Instant::now() + PATIENCE;
        let mut deaths = 0;
        while deaths < MAX_DEATHS {
            let link = self.pick(FIRST_GUESS_NS, until).await?;
            match link.call(request.clone(), FIRST_GUESS_NS, None, HANG, None).await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Answer(error)) => return Err(error.device(&self.config.backend)),
                Err(CallError::Died(_)) => deaths += 1,
                Err(CallError::NotSent) => {}
            }
        }
        Err(self.deadly())
    }

    /// Asks one process, once: for what changes something.
    async fn change(&self, request: Request) -> Result<Answer> {
        let _place = self.enter()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let link = self.pick(FIRST_GUESS_NS, until).await?;
            match link.call(request.clone(), FIRST_GUESS_NS, None, SLOW_HANG, None).await {
                Ok(answer) => {
                    self.vault.serve();
                    return Ok(answer);
                }
                Err(CallError::Answer(error)) => return Err(error.device(&self.config.backend)),
                Err(CallError::Died(reason)) => {
                    let what = format!("the driver process {reason} in the middle of it");
                    return Err(Error::new(ErrorKind::DeviceGone, what)
                        .device(&self.config.backend)
                        .may_have_happened());
                }
                Err(CallError::NotSent) => {}
            }
        }
    }

    /// Has all processes give up their login: those that do not know how are ended, and started anew.
    async fn lock(&self) {
        for link in self.slots.iter().filter_map(|slot| slot.link()) {
            let answer = link.call(Request::Lock(pb::Lock {}), 0, None, HANG, None).await;
            if let Err(CallError::Answer(error)) = answer {
                tracing::debug!(
                    backend = self.config.backend,
                    "the driver is ended to lock the device: {error}"
                );
                link.close();
            }
        }
        // Whoever watches over the backend looks how it is.
        self.sinks.tell(&Event::Down(
            Error::new(ErrorKind::PinRequired, "the device was locked").device(&self.config.backend),
        ));
    }

    fn deadly(&self) -> Error {
        Error::internal(format!("this request ended {MAX_DEATHS} driver processes"))
            .device(&self.config.backend)
            .next("the daemon's log says how they ended; it is not tried again")
    }

    fn unexpected(&self) -> Error {
        Error::internal("the driver gave an answer of another kind").device(&self.config.backend)
    }
}

impl Backend for DriverBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move {
            match self.shared.ask(Request::Describe(pb::Describe {})).await? {
                Answer::Described(info) => Ok(convert::info_from_pb(info)),
                _ => Err(self.shared.unexpected()),
            }
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move {
            let list = pb::List { page_size: request.page_size as u64, page_token: request.page_token };
            match self.shared.ask(Request::List(list)).await? {
                Answer::Page(page) => convert::page_from_pb(page),
                _ => Err(self.shared.unexpected()),
            }
        })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            let signer: Arc<dyn Signer> = Arc::new(DriverKey::open(&self.shared, key).await?);
            Ok(signer)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { done(&self.shared, &self.shared.ask(Request::Health(pb::Health {})).await?) })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        self.has(Ability::Generate).map(|this| this as _)
    }
    fn import(&self) -> Option<&dyn Import> {
        self.has(Ability::Import).map(|this| this as _)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        self.has(Ability::Delete).map(|this| this as _)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.has(Ability::Rotate).map(|this| this as _)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        self.has(Ability::StoreCertificate).map(|this| this as _)
    }
    fn attest(&self) -> Option<&dyn Attest> {
        self.has(Ability::Attest).map(|this| this as _)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        self.has(Ability::Unlock).map(|this| this as _)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

fn done(shared: &Shared, answer: &Answer) -> Result<()> {
    match answer {
        Answer::Done(_) => Ok(()),
        _ => Err(shared.unexpected()),
    }
}

fn key(shared: &Shared, answer: Answer) -> Result<KeyInfo> {
    match answer {
        Answer::Key(info) => convert::key_from_pb(info),
        _ => Err(shared.unexpected()),
    }
}

impl Generate for DriverBackend {
    fn generate(&self, r: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        let request = pb::Generate {
            name: r.name.to_string(),
            key_type: r.key_type.name().to_owned(),
            id: r.id,
            policy: convert::policy_to_pb(&r.policy),
        };
        Box::pin(async move { key(&self.shared, self.shared.change(Request::Generate(request)).await?) })
    }
}

impl Import for DriverBackend {
    fn import(&self, r: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        let request = pb::Import {
            name: r.name.to_string(),
            pkcs8: r.key.pkcs8_der().to_vec(),
            id: r.id,
            policy: convert::policy_to_pb(&r.policy),
        };
        Box::pin(async move { key(&self.shared, self.shared.change(Request::Import(request)).await?) })
    }
}

impl Delete for DriverBackend {
    fn delete<'a>(&'a self, selector: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        let request = pb::Delete { selector: selector.to_string() };
        Box::pin(async move { done(&self.shared, &self.shared.change(Request::Delete(request)).await?) })
    }
}

impl Rotate for DriverBackend {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        let request = pb::Rotate { name: name.to_string() };
        Box::pin(async move { key(&self.shared, self.shared.change(Request::Rotate(request)).await?) })
    }
}

impl StoreCertificate for DriverBackend {
    fn store_certificate<'a>(
        &'a self,
        selector: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        let request =
            pb::StoreCertificate { selector: selector.to_string(), certificate: certificate.to_vec() };
        Box::pin(
            async move { done(&self.shared, &self.shared.change(Request::StoreCertificate(request)).await?) },
        )
    }
}

impl Attest for DriverBackend {
    fn attest<'a>(&'a self, selector: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        let request = pb::Attest { selector: selector.to_string() };
        Box::pin(async move {
            match self.shared.ask(Request::Attest(request)).await? {
                Answer::Evidence(evidence) => convert::evidence_from_pb(evidence),
                _ => Err(self.shared.unexpected()),
            }
        })
    }
}

impl Unlock for DriverBackend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.shared.vault.give(&request.pin, request.use_last_try);
            let answer = self.shared.change(Request::Unlock(pb::Unlock {})).await;
            // A health check may have had the lease before this request: then the device has refused the PIN already, and
            // this request was lent the one from before.
            match self.shared.vault.verdict(&request.pin) {
                Some(error) => Err(error.device(&self.shared.config.backend)),
                None => done(&self.shared, &answer?),
            }
        })
    }
}

impl Watch for DriverBackend {
    fn watch(&self, sink: EventSink) {
        lock(&self.shared.sinks.0).push(sink);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
