//! The audit log: what was done with which key, for whom, written down before anybody gets a result.
//!
//! A request that uses a key goes this way ([`Audit::around`]): the device is asked, and while it works the record is made
//! durable; what the device gave leaves only when both are done. A slow device hides the disk altogether. What comes at once
//! (an error of the queue, a signature in this process) is waited for first, so that its record says how it ended; what has
//! to be waited for is recorded as `begun`, and if it then fails, or nobody waits for it any more, a second record says so.
//! A `begun` without a second record is a signature that left, or may have: the machine can die between the two.
//!
//! A change of keys cannot be withheld once it has happened, so its record is durable before the device is asked
//! ([`Audit::before`]), and a second one says how it ended.
//!
//! Where nothing can be recorded, no signature leaves and no key is changed ([`Audit::ready`]). Durable records without a
//! signed checkpoint are good for a while, `max_unsigned`: the device with the log's key may be away for a moment.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use signer_core::{BoxFuture, Error, ErrorKind, Result};
use signer_log_engine::{
    Build, Condition, Durable, Entry, Format, Ledger, LedgerLimits, LocalStorage, MAX_ENTRY, leaf_hash,
};
use signerd_api::{
    audit::{Record, utc_millis},
    error_to_pb, pb,
};

use crate::{config::AuditConfig, state::Daemon};

mod content;
mod denials;
mod event;
mod key;
mod watch;

pub(crate) use event::{Event, KeyOf};
pub(crate) use key::OwnKey;
pub(crate) use watch::watch_over;

use denials::Denials;

/// How long the end of the daemon waits for the last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(2);

/// The daemon's audit log.
pub(crate) struct Audit {
    ledger: Ledger,
    /// What may change while the daemon runs.
    config: RwLock<AuditConfig>,
    key: OwnKey,
    /// The time of the newest record, in milliseconds: the clock may be set back, the log may not.
    time: Arc<AtomicU64>,
    denials: Mutex<Denials>,
    /// Requests that use a key just now.
    under_way: AtomicUsize,
    /// Requests that were refused because they could not be recorded, since that was told last.
    refused: AtomicU64,
}

impl Audit {
    /// Opens the log; finishes what a daemon that was killed has left. Blocks while it reads. The error is for people.
    pub(crate) fn open(config: &AuditConfig) -> Result<Arc<Self>> {
        let directory = &config.directory;
        let advice = "the audit log cannot be opened, and without it nothing may be signed";
        let failed = |e: Error| {
            let error = Error::new(e.kind(), format!("{advice}: {}", e.what())).device(directory.display());
            let error = e.vendor_code().into_iter().fold(error, Error::vendor);
            error.next(e.advice().unwrap_or("look at the folder that [audit] names"))
        };
        let group = match &config.group {
            None => None,
            Some(name) => Some(crate::identity::gid_of(name).ok_or_else(|| {
                failed(
                    Error::bad_request(format!("no group is called {name:?}"))
                        .next("correct group in [audit]"),
                )
            })?),
        };
        let storage = Arc::new(LocalStorage::open_for(directory, group).map_err(failed)?);
        let daemon: Arc<OnceLock<Weak<Daemon>>> = Arc::default();
        let key = OwnKey::new(config.key.clone(), daemon);
        let limits = LedgerLimits { publish_every: config.checkpoint_every, ..LedgerLimits::default() };
        let ledger = Ledger::open(storage, Format::Entries, &config.origin, None, key.opener(), &limits)
            .map_err(failed)?;
        let last = ledger.last().and_then(|text| utc_millis(&Record::from_json(&text).ok()?.time));
        Ok(Arc::new(Self {
            ledger,
            config: RwLock::new(config.clone()),
            key,
            time: Arc::new(AtomicU64::new(last.unwrap_or_default())),
            denials: Mutex::default(),
            under_way: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// The daemon whose keys the log's own key is among.
    pub(crate) fn belongs_to(&self, daemon: &Arc<Daemon>) {
        self.key.belongs_to(daemon);
    }

    /// What the configuration says now. Folder, key and origin stay until the daemon is started again.
    pub(crate) fn reconfigure(&self, now: &AuditConfig) {
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *config = AuditConfig {
            directory: config.directory.clone(),
            key: config.key.clone(),
            origin: config.origin.clone(),
            group: config.group.clone(),
            ..now.clone()
        };
        self.ledger.publish_every(config.checkpoint_every);
    }

    /// The log's own key.
    pub(crate) fn key(&self) -> &OwnKey {
        &self.key
    }

    /// How the log is.
    pub(crate) fn condition(&self) -> Condition {
        self.ledger.condition()
    }

    /// How it is, for `signer status`.
    pub(crate) fn status(&self) -> pb::AuditLog {
        let condition = self.condition();
        let health = self.trouble();
        let config = self.config();
        pb::AuditLog {
            directory: config.directory.display().to_string(),
            origin: config.origin.clone(),
            records: condition.durable,
            signed: condition.signed.unwrap_or_default(),
            health: health.as_ref().map(error_to_pb),
        }
    }

    fn config(&self) -> RwLockReadGuard<'_, AuditConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing may be signed at the moment, if that is so.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let condition = self.ledger.condition();
        let max = self.config().max_unsigned;
        let unsigned = condition.unsigned_since.map(|since| since.elapsed());
        let (why, cause) = if let Some(error) = condition.append_error {
            ("cannot be written".to_owned(), Some(error))
        } else if condition.signed.is_none() {
            ("has no key yet".to_owned(), condition.publish_error)
        } else if let Some(age) = unsigned.filter(|age| *age > max) {
            (
                format!("has records that are not signed for since {} s", age.as_secs()),
                condition.publish_error,
            )
        } else {
            return None;
        };
        Some(self.refusal(&why, cause.as_ref()))
    }

    fn refusal(&self, why: &str, cause: Option<&Error>) -> Error {
        let config = self.config();
        let what = match cause {
            Some(cause) => format!("nothing may be signed, because the audit log {why}: {}", cause.what()),
            None => format!("nothing may be signed, because the audit log {why}"),
        };
        let error = Error::new(ErrorKind::DeviceGone, what);
        let Some(cause) = cause else { return error.device(config.directory.display()) };
        // Whose device it is: the disk, or the one that holds the log's key.
        let error = match (cause.device_name(), cause.key_name()) {
            (Some(device), _) => error.device(device),
            (None, Some(_)) => error,
            (None, None) => error.device(config.directory.display()),
        };
        let error = cause.key_name().into_iter().fold(error, Error::key);
        let error = cause.vendor_code().into_iter().fold(error, Error::vendor);
        error.next(cause.advice().unwrap_or("`signer status` says when it is over"))
    }

    /// Whether something may be done that has to be recorded. Fail closed: an error says why not.
    pub(crate) fn ready(&self) -> Result<()> {
        match self.trouble() {
            None => Ok(()),
            Some(error) => {
                self.refused.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// Does something whose result can be withheld: a signature, an attestation. See the top of this file.
    pub(crate) async fn around<T>(
        self: &Arc<Self>,
        event: Event,
        mut work: BoxFuture<'_, Result<T>>,
    ) -> Result<T> {
        self.ready()?;
        let under_way = UnderWay::count(&self.under_way);
        if let Some(result) = (&mut work).now_or_never() {
            match &result {
                Ok(_) => {
                    let entry = self.entry(event.ended(&result));
                    let written = if under_way.is_alone() {
                        self.ledger.append_here(entry)
                    } else {
                        self.ledger.append(entry, Duration::ZERO)
                    };
                    self.settled(written).await?;
                }
                // Turned away before any key was used: a caller in a hurry must not fill the log.
                Err(e) if matches!(e.kind(), ErrorKind::Busy { .. } | ErrorKind::BadRequest) => {}
                Err(_) => drop(self.append(event.ended(&result))),
            }
            return result;
        }
        let mut begun = Begun { audit: self.clone(), written: None, index: None, event: Some(event.clone()) };
        // Where the device has its request already, and nobody but this caller waits for this thread.
        let written = if under_way.is_alone() && event.is_at_its_device() {
            self.ledger.append_here(self.entry(event.begun()))
        } else {
            self.ledger.append(self.entry(event.begun()), event.patience())
        };
        begun.written = Some(written.map_err(|e| self.unrecorded(&e))?);
        let is_durable = AtomicBool::new(false);
        let recorded = async {
            let recorded = begun.recorded().await;
            is_durable.store(true, Relaxed);
            recorded
        };
        let done = async {
            let result = work.await;
            if !is_durable.load(Relaxed) {
                self.ledger.hurry();
            }
            result
        };
        let (recorded, result) = futures_util::join!(recorded, done);
        let event = begun.event.take();
        let index = recorded?;
        if let (Err(_), Some(mut event)) = (&result, event) {
            event.of = Some(index);
            drop(self.append(event.ended(&result)));
        }
        result
    }

    /// Records a change before it is made. What is given back records how it ends.
    pub(crate) async fn before(self: &Arc<Self>, mut event: Event) -> Result<Change> {
        // The log may be waiting for this very PIN, or for its own key.
        if !event.helps_the_log {
            self.ready()?;
        }
        event.of = Some(self.settled(self.append(event.begun())).await?);
        Ok(Change { audit: self.clone(), event: Some(event) })
    }

    /// Records that somebody was denied something. Nobody waits for it: nothing has left.
    pub(crate) fn denied(&self, event: Event) {
        if !self.config().denied {
            return;
        }
        let Some(before) = lock(&self.denials).note(&event) else { return };
        drop(self.append(event.denied().with_suppressed(before)));
    }

    /// Records that somebody looked at keys, if that is wanted.
    pub(crate) fn read(&self, event: Event) {
        if self.config().reads {
            drop(self.append(event));
        }
    }

    /// Records something of the daemon itself, and waits for it.
    pub(crate) async fn tell(&self, event: Event) -> Result<()> {
        self.written(event).await
    }

    async fn written(&self, event: Event) -> Result<()> {
        self.settled(self.append(event)).await.map(drop)
    }

    /// Waits until a record is durable, and says where it is.
    async fn settled(&self, written: Result<Durable>) -> Result<u64> {
        let unrecorded = |e: Error| self.unrecorded(&e);
        let (index, _) = written.map_err(unrecorded)?.await.map_err(unrecorded)?;
        Ok(index)
    }

    fn append(&self, event: Event) -> Result<Durable> {
        self.ledger.append(self.entry(event), Duration::ZERO)
    }

    /// What makes the record of it, at its place in the log.
    fn entry(&self, event: Event) -> Build {
        let time = self.time.clone();
        Box::new(move |sequence, now| {
            let now = time.fetch_max(now, Relaxed).max(now);
            let text = event.record(sequence, now).to_json();
            debug_assert!(text.len() <= MAX_ENTRY);
            let mut data = Vec::with_capacity(2 + text.len());
            data.extend((text.len() as u16).to_be_bytes());
            data.extend(&text);
            Entry { data: data.into(), leaf_hash: leaf_hash(&text) }
        })
    }

    /// What a caller is told whose request could not be recorded.
    fn unrecorded(&self, error: &Error) -> Error {
        self.refused.fetch_add(1, Relaxed);
        if matches!(error.kind(), ErrorKind::Busy { .. }) {
            return error.clone();
        }
        self.refusal("cannot be written", Some(error))
    }

    /// Ends the log: nothing that is durable stays without a checkpoint, if the key is there.
    pub(crate) async fn close(self: &Arc<Self>) {
        drop(self.append(Event::of_daemon("stop")));
        let this = self.clone();
        let _ = tokio::task::spawn_blocking(move || this.ledger.close(LAST_CHECKPOINT)).await;
    }
}

/// A request that uses a key, counted until it ends.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn count(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }

    fn is_alone(&self) -> bool {
        self.0.load(Relaxed) == 1
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A record of something that is under way. Dropped before the end, it says that nobody has waited for it.
struct Begun {
    audit: Arc<Audit>,
    written: Option<Durable>,
    index: Option<u64>,
    event: Option<Event>,
}

impl Begun {
    async fn recorded(&mut self) -> Result<u64> {
        let Some(written) = &mut self.written else { return Err(Error::internal("nothing was recorded")) };
        let (index, _) = written.await.map_err(|e| self.audit.unrecorded(&e))?;
        self.written = None;
        self.index = Some(index);
        Ok(index)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut event) = self.event.take() else { return };
        let (audit, index, written) = (self.audit.clone(), self.index, self.written.take());
        let abandon = move |index| {
            event.of = Some(index);
            drop(audit.append(event.abandoned()));
        };
        match (index, written, tokio::runtime::Handle::try_current()) {
            (Some(index), _, _) => abandon(index),
            (None, Some(written), Ok(runtime)) => {
                runtime.spawn(async move {
                    if let Ok((index, _)) = written.await {
                        abandon(index);
                    }
                });
            }
            _ => {}
        }
    }
}

/// A change that is recorded as begun.
pub(crate) struct Change {
    audit: Arc<Audit>,
    event: Option<Event>,
}

impl Change {
    /// Records how it ended, and waits until that is durable. It has happened: a failure here is only told.
    pub(crate) async fn ended<T>(mut self, result: &Result<T>, key: Option<KeyOf>) {
        let Some(mut event) = self.event.take() else { return };
        event.key = key.or(event.key);
        if let Err(error) = self.audit.written(event.ended(result)).await {
            tracing::error!("how a change of keys ended is not in the audit log: {error}");
        }
    }
}

impl Drop for Change {
    /// The work has panicked, or the daemon ends.
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            drop(self.audit.append(event.abandoned()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
