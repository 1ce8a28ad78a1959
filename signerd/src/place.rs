//! One configured backend while the daemon runs: what was started for it, its queue, and how it is.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use signer_core::{
    Ability, Backend, BackendInfo, BackendName, Error, ErrorKind, Event, KeySelector, Pin, PinPrompt, Result,
    Signer, UnlockRequest,
};
use signer_driver::DriverBackend;
use tokio::sync::Notify;

use crate::{
    compose,
    config::{BackendConfig, BackendKind, SecretSource},
    events::{Events, What},
    identity::Identity,
    metrics::Metrics,
    prompts::Desk,
    start,
};

/// A configured backend.
pub(crate) struct Place {
    config: BackendConfig,
    settings: Settings,
    running: RwLock<Running>,
    /// Counts changes to keys: what was opened before the last one is opened again.
    epoch: AtomicU64,
    in_flight: AtomicUsize,
    /// Counts signatures: a busy backend may be late with its health check.
    successes: AtomicU64,
    /// Counts PINs that were accepted: what a health check saw before the last one is old news.
    unlocks: AtomicU64,
    trouble: Mutex<Trouble>,
    /// What it last said of itself.
    info: Mutex<BackendInfo>,
    /// Asks for a health check now.
    pub(crate) wake: Notify,
    /// Where calls wait for its PIN.
    pub(crate) desk: Desk,
    events: Events,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a backend takes from the rest of the configuration. Another one means another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) queue: usize,
    pub(crate) state: Box<Path>,
}

/// What was started.
pub(crate) enum Running {
    /// Nothing yet, or not any more; with the reason.
    Down(Error),
    Up {
        backend: Arc<dyn Backend>,
        driver: Option<Arc<DriverBackend>>,
    },
}

struct Trouble {
    now: Option<Error>,
    /// The prompt that watchers were told last, so that they are told once.
    prompt: Option<PinPrompt>,
}

impl Place {
    pub(crate) fn new(
        config: BackendConfig,
        settings: Settings,
        events: Events,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let starting = Error::new(ErrorKind::DeviceGone, "the backend is being started").device(&config.name);
        let info = BackendInfo { kind: config.kind_name().to_owned(), ..BackendInfo::default() };
        Arc::new(Self {
            running: RwLock::new(Running::Down(starting.clone())),
            epoch: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            successes: AtomicU64::new(0),
            unlocks: AtomicU64::new(0),
            trouble: Mutex::new(Trouble { now: Some(starting), prompt: None }),
            info: Mutex::new(info),
            wake: Notify::new(),
            desk: Desk::default(),
            config,
            settings,
            events,
            metrics,
        })
    }

    /// Whether this place is what that configuration wants.
    pub(crate) fn is_for(&self, config: &BackendConfig, settings: &Settings) -> bool {
        self.config == *config && self.settings == *settings
    }

    pub(crate) fn name(&self) -> &BackendName {
        &self.config.name
    }

    pub(crate) fn kind(&self) -> &str {
        self.config.kind_name()
    }

    /// Whether the backend works inside the daemon, and so may block it.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.config.kind, BackendKind::Software(_))
    }

    pub(crate) fn queue_limit(&self) -> usize {
        self.settings.queue
    }

    // What was started.

    /// Starts what is configured. It may be called again after it failed.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<()> {
        let started = start::backend(&self.config, &self.settings).await;
        self.started(started)
    }

    fn started(self: &Arc<Self>, started: Result<Running>) -> Result<()> {
        let (running, result) = match started {
            Ok(running) => (running, Ok(())),
            Err(error) => {
                let error = error.device(self.name());
                (Running::Down(error.clone()), Err(error))
            }
        };
        if let Running::Up { backend, .. } = &running
            && let Some(watch) = backend.watch()
        {
            let place = Arc::downgrade(self);
            watch.watch(Arc::new(move |event| {
                if let Some(place) = place.upgrade() {
                    place.happened(event);
                }
            }));
        }
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
        self.changed();
        if let Err(error) = &result {
            self.set_trouble(Some(error.clone()));
        }
        result
    }

    /// The backend, wrapped as all of them are; or why there is none.
    pub(crate) fn backend(&self) -> Result<Arc<dyn Backend>> {
        match &*self.running.read().unwrap_or_else(PoisonError::into_inner) {
            Running::Up { backend, .. } => Ok(compose::backend(self.is_inside(), backend.clone())),
            Running::Down(error) => Err(error.clone()),
        }
    }

    /// Finds a key in the first of these places that has it: also gives the change of that place's keys that was the
    /// last one before.
    pub(crate) async fn find(
        places: &[Arc<Self>],
        selector: &KeySelector,
    ) -> Result<(Arc<Self>, u64, Arc<dyn Signer>)> {
        let mut reason = None;
        for place in places {
            let epoch = place.epoch();
            let opened = match place.backend() {
                Ok(backend) => backend.open(selector).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(signer) => return Ok((place.clone(), epoch, signer)),
                Err(error) => {
                    let error = error.device(place.name());
                    if error.kind() != ErrorKind::NotFound {
                        place.failed(&error);
                        reason.get_or_insert(error);
                    } else if !matches!(selector, KeySelector::Address(_)) {
                        reason.get_or_insert(error);
                    }
                }
            }
        }
        Err(reason.unwrap_or_else(|| {
            Error::new(ErrorKind::NotFound, "no backend has a key with this address")
                .next("`signer keys list` shows the keys that there are")
        }))
    }

    /// The driver processes, where there are some.
    pub(crate) fn driver(&self) -> Option<Arc<DriverBackend>> {
        match &*self.running.read().unwrap_or_else(PoisonError::into_inner) {
            Running::Up { driver, .. } => driver.clone(),
            Running::Down(_) => None,
        }
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.driver().map_or(0, |d| d.restarts())
    }

    /// What it can do now.
    pub(crate) fn abilities(&self) -> Vec<Ability> {
        let mut abilities = self.backend().map(|b| b.abilities()).unwrap_or_default();
        if self.waits_for_passphrase() && !abilities.contains(&Ability::Unlock) {
            abilities.push(Ability::Unlock);
        }
        abilities
    }

    /// Whether it is a software backend whose passphrase a person gives.
    fn waits_for_passphrase(&self) -> bool {
        matches!(&self.config.kind, BackendKind::Software(t) if t.passphrase == Some(SecretSource::Prompt))
    }

    /// Gives it a PIN.
    pub(crate) async fn unlock(self: &Arc<Self>, request: UnlockRequest) -> Result<()> {
        let result = if self.waits_for_passphrase() {
            self.open_with(request.pin).await
        } else {
            match self.backend() {
                Ok(backend) => {
                    let unlock = Ability::Unlock.require(backend.unlock(), self.name().as_str())?;
                    unlock.unlock(request).await
                }
                Err(error) => Err(error),
            }
        };
        if result.is_ok() {
            self.unlocks.fetch_add(1, SeqCst);
            self.set_trouble(None);
        }
        self.wake.notify_one();
        result
    }

    /// Gives it a PIN, as the answer to a request for one if `number` is that of one, and tells those who wait for it how it
    /// ended.
    pub(crate) async fn give_pin(
        self: &Arc<Self>,
        request: UnlockRequest,
        number: Option<u64>,
    ) -> Result<()> {
        let _turn = self.desk.turn.lock().await;
        if let Some(number) = number {
            self.desk.check(number, &request.pin)?;
        }
        let pin = request.pin.clone();
        let result = self.unlock(request).await;
        let blocked = self.driver().is_some_and(|driver| driver.pin_is_blocked());
        self.desk.answered(self, &pin, &result, blocked);
        result
    }

    /// Has it give up its login, and forget the PIN that a person gave.
    pub(crate) async fn lock(self: &Arc<Self>) -> Result<()> {
        let _turn = self.desk.turn.lock().await;
        if self.waits_for_passphrase() {
            let locked = Error::new(ErrorKind::PinRequired, "the key files were locked")
                .device(self.name())
                .next(format!("signer keys unlock {}", self.name()));
            let _ = self.started(Err(locked));
        } else if let Some(driver) = self.driver() {
            driver.lock().await;
        } else {
            return Ability::Unlock.require(None, self.name().as_str());
        }
        self.wake.notify_one();
        Ok(())
    }

    /// What a PIN is wanted for, as long as a person could help by giving one.
    pub(crate) fn wanted_pin(&self) -> Option<PinPrompt> {
        if !self.waits_for_passphrase() {
            return self.driver()?.wanted_pin();
        }
        match &*self.running.read().unwrap_or_else(PoisonError::into_inner) {
            Running::Down(error) if error.kind() == ErrorKind::PinRequired => Some(PinPrompt::default()),
            _ => None,
        }
    }

    pub(crate) fn unlocks(&self) -> u64 {
        self.unlocks.load(SeqCst)
    }

    async fn open_with(self: &Arc<Self>, passphrase: Pin) -> Result<()> {
        let running = start::software_with(&self.config, passphrase).await?;
        // A wrong passphrase must not replace a right one.
        if let Running::Up { backend, .. } = &running {
            compose::backend(true, backend.clone()).health().await?;
        }
        self.started(Ok(running))
    }

    // Its queue.

    /// A place in its queue, or `Busy`.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Ticket> {
        let ticket = Ticket(self.clone());
        if self.in_flight.fetch_add(1, Relaxed) < self.settings.queue {
            return Ok(ticket);
        }
        Err(Error::new(
            ErrorKind::Busy { retry_after: Duration::from_millis(50) },
            format!("{} requests wait for this backend already", self.settings.queue),
        )
        .device(self.name())
        .next("try again later, or raise queue in [limits]"))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    // What happens to it.

    /// The number of the last change to its keys.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Something was done to its keys: whatever was opened is opened again.
    pub(crate) fn changed(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    /// A signature was made.
    pub(crate) fn succeeded(&self) {
        self.successes.fetch_add(1, Relaxed);
    }

    pub(crate) fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    /// A request failed: its health is worth a look, when the device is the reason.
    pub(crate) fn failed(&self, error: &Error) {
        match error.kind() {
            ErrorKind::DeviceGone
            | ErrorKind::PinRequired
            | ErrorKind::Locked
            | ErrorKind::WrongPin { .. } => {
                self.wake.notify_one();
            }
            // The key that was opened is not there any more, or not the same.
            ErrorKind::NotFound => self.changed(),
            _ => {}
        }
    }

    /// Tells those who watch.
    pub(crate) fn tell(&self, what: What) {
        self.events.tell(Some(&self.config.name), what);
    }

    /// The same of something that is about the calls of these connections.
    pub(crate) fn tell_about(&self, what: What, about: Vec<Arc<Identity>>) {
        self.events.tell_about(Some(&self.config.name), what, about);
    }

    /// The event of its driver or device.
    fn happened(&self, event: Event) {
        match event {
            Event::Up | Event::Down(_) => self.wake.notify_one(),
            Event::PinRequired(prompt) => {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                if trouble.prompt.as_ref() == Some(&prompt) {
                    return;
                }
                trouble.prompt = Some(prompt.clone());
                drop(trouble);
                tracing::warn!(backend = %self.name(), device = %prompt.device, "a PIN is needed: signer keys unlock {}", self.name());
                self.tell(What::Backend(Event::PinRequired(prompt)));
            }
            // Told by whoever asks for the signature, who knows for whom.
            Event::TouchRequired { .. } | Event::TouchEnded { .. } => {}
            Event::DriverRestarting { reason, backoff } => {
                tracing::warn!(backend = %self.name(), ?backoff, "the driver is started again: {reason}");
                self.tell(What::Backend(Event::DriverRestarting { reason, backoff }));
                self.wake.notify_one();
            }
        }
    }

    /// What is wrong with it; `None` when it is healthy.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).now.clone()
    }

    /// Whether its last health check went well.
    pub(crate) fn is_healthy(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).now.is_none()
    }

    /// Notes how it is, and tells when that is new. Returns whether it was.
    pub(crate) fn set_trouble(&self, error: Option<Error>) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut trouble.now, error.clone());
        if error.is_none() {
            trouble.prompt = None;
        }
        drop(trouble);
        match (before, error) {
            (Some(_), None) => {
                tracing::info!(backend = %self.name(), "up");
                self.tell(What::Backend(Event::Up));
                true
            }
            (None, Some(error)) => {
                tracing::warn!(backend = %self.name(), "down: {error}");
                self.tell(What::Backend(Event::Down(error)));
                true
            }
            (Some(before), Some(error)) if before.kind() != error.kind() || before.what() != error.what() => {
                tracing::warn!(backend = %self.name(), "still down: {error}");
                self.tell(What::Backend(Event::Down(error)));
                true
            }
            _ => false,
        }
    }

    /// What it says of itself, or what it said last when it does not answer in time.
    pub(crate) async fn describe(&self, patience: Duration) -> BackendInfo {
        if let Ok(backend) = self.backend()
            && let Ok(Ok(info)) = tokio::time::timeout(patience, backend.describe()).await
        {
            *self.info.lock().unwrap_or_else(PoisonError::into_inner) = info;
        }
        self.info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends its driver processes.
    pub(crate) async fn stop(&self) {
        self.desk.close(self);
        if let Some(driver) = self.driver() {
            driver.stop().await;
        }
    }

    /// Waits until nothing is in flight, until a moment.
    pub(crate) async fn drained(&self, until: Instant) {
        while self.in_flight() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A request's place in a backend's queue.
pub(crate) struct Ticket(Arc<Place>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
