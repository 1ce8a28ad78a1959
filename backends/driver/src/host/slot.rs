//! The place of one driver process: starts it when it is needed, and again when it ended.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use signer_core::{Ability, Error, ErrorKind, Event, Result};
use tokio::sync::watch;

use super::{CallError, DriverConfig, Link, START_LIMIT, Sinks, Vault, lock, process};
use crate::{
    PROTOCOL_VERSION,
    pb::{self, from_driver::Body as Answer, to_driver::Body as Request},
};

/// Spin of the driver's side.
const SPIN_US: u32 = 100;
/// A driver that ran for so long was healthy: its end counts as the first.
const HEALTHY: Duration = Duration::from_secs(1);
/// Times between starts, by how many ends there were in a row.
const BACKOFF_MS: [u64; 7] = [0, 50, 100, 200, 500, 1000, 5000];
/// Callers are told at once that there is no driver after so many starts failed in a row.
const GIVE_UP_AFTER: usize = 3;

pub(super) struct Slot {
    config: DriverConfig,
    vault: Arc<Vault>,
    sinks: Arc<Sinks>,
    restarts: Arc<AtomicU64>,
    /// Held while a process of this backend starts: many libraries do not like to be started twice at once.
    starting: Arc<tokio::sync::Mutex<()>>,
    link: Mutex<Option<Arc<Link>>>,
    /// Why the last starts failed, after several in a row.
    failure: Mutex<Option<Error>>,
    changed: watch::Sender<u64>,
    begun: AtomicBool,
    stopped: AtomicBool,
}

impl Slot {
    pub(super) fn new(
        config: &DriverConfig,
        vault: &Arc<Vault>,
        sinks: &Arc<Sinks>,
        restarts: &Arc<AtomicU64>,
        starting: &Arc<tokio::sync::Mutex<()>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            vault: vault.clone(),
            sinks: sinks.clone(),
            restarts: restarts.clone(),
            starting: starting.clone(),
            link: Mutex::default(),
            failure: Mutex::default(),
            changed: watch::Sender::new(0),
            begun: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    /// The process that runs now.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    /// Whether no process was ever needed here.
    pub(super) fn is_idle(&self) -> bool {
        !self.begun.load(Relaxed)
    }

    /// Says that a process is needed.
    pub(super) fn wake(self: &Arc<Self>) {
        if !self.begun.swap(true, Relaxed) {
            let slot = self.clone();
            tokio::spawn(async move { slot.supervise(None).await });
        }
    }

    /// Hears when a process came up, or could not be started.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Why there is no process, after several starts failed in a row.
    pub(super) fn failure(&self) -> Option<Error> {
        if self.stopped.load(Relaxed) {
            return Some(
                Error::new(ErrorKind::DeviceGone, "the backend was stopped").device(&self.config.backend),
            );
        }
        lock(&self.failure).clone()
    }

    /// Starts the first process and returns what the backend can do.
    pub(super) async fn start_now(self: &Arc<Self>) -> Result<Vec<Ability>> {
        self.begun.store(true, Relaxed);
        let (started, abilities) = self.start().await?;
        let slot = self.clone();
        tokio::spawn(async move { slot.supervise(Some(started)).await });
        Ok(abilities)
    }

    /// Ends the process and starts no other.
    pub(super) async fn stop(&self) {
        let running = self.link();
        self.kill();
        if running.is_some() {
            let mut changed = self.changed();
            let _ = tokio::time::timeout(Duration::from_secs(2), async {
                while self.link().is_some() && changed.changed().await.is_ok() {}
            })
            .await;
        }
    }

    /// The same without waiting.
    pub(super) fn kill(&self) {
        self.stopped.store(true, Relaxed);
        if let Some(link) = self.link() {
            link.close();
        }
    }

    async fn supervise(self: Arc<Self>, mut first: Option<Started>) {
        let mut ends = 0;
        while !self.stopped.load(Relaxed) {
            let started = match first.take() {
                Some(started) => Ok(started),
                None => self.start().await.map(|(started, _)| started),
            };
            let reason = match started {
                Ok(started) => {
                    let since = Instant::now();
                    let reason = started.run().await;
                    *lock(&self.link) = None;
                    self.changed.send_modify(|n| *n += 1);
                    if since.elapsed() > HEALTHY {
                        ends = 0;
                    }
                    reason
                }
                Err(error) => {
                    if ends + 1 >= GIVE_UP_AFTER {
                        *lock(&self.failure) = Some(error.clone());
                        self.changed.send_modify(|n| *n += 1);
                    }
                    error.to_string()
                }
            };
            if self.stopped.load(Relaxed) {
                break;
            }
            let backoff = Duration::from_millis(BACKOFF_MS[ends.min(BACKOFF_MS.len() - 1)]);
            ends += 1;
            self.restarts.fetch_add(1, Relaxed);
            tracing::warn!(
                backend = self.config.backend,
                reason,
                ?backoff,
                "a driver process is started again"
            );
            self.sinks.tell(&Event::DriverRestarting { reason, backoff });
            tokio::time::sleep(backoff).await;
        }
    }

    /// Starts a process and shakes hands with it.
    async fn start(self: &Arc<Self>) -> Result<(Started, Vec<Ability>)> {
        let _one_at_a_time = self.starting.lock().await;
        let config = &self.config;
        let (child, socket) = process::spawn(config)?;
        let pid = child.id().unwrap_or_default();
        let fail = |what: String| Error::new(ErrorKind::DeviceGone, what).device(&config.backend);
        let link = Link::new(&config.backend, socket, pid, config.spin, &self.vault, &self.sinks)
            .map_err(|e| fail("the driver's socket cannot be used".into()).vendor(e))?;
        let runner = {
            let link = link.clone();
            tokio::spawn(async move { link.run().await })
        };
        let started = Started { child, runner };
        let configure = pb::Configure {
            version: PROTOCOL_VERSION,
            backend: config.backend.clone(),
            options_json: config.options.to_string(),
            spin_us: if config.spin { SPIN_US } else { 0 },
            threads: config.threads.max(1) as u32,
        };
        let answer = link.call(Request::Configure(configure), 0, None, START_LIMIT, None);
        let configured = match tokio::time::timeout(START_LIMIT, answer).await {
            Ok(Ok(Answer::Configured(configured))) => configured,
            Ok(Ok(_)) => return Err(fail("the driver does not speak the protocol".into())),
            Ok(Err(CallError::Answer(error))) => return Err(error.device(&config.backend)),
            Ok(Err(CallError::Died(_) | CallError::NotSent)) => {
                return Err(fail(format!("the driver {} ended while starting", config.program.display()))
                    .next("the daemon's log has what it said"));
            }
            Err(_) => {
                return Err(fail(format!("the driver did not start within {} s", START_LIMIT.as_secs())));
            }
        };
        if configured.version != PROTOCOL_VERSION {
            return Err(fail(format!(
                "the driver speaks protocol version {}, this daemon {PROTOCOL_VERSION}",
                configured.version
            ))
            .next("install both from the same release"));
        }
        tracing::debug!(backend = config.backend, pid, "a driver process is up");
        *lock(&self.link) = Some(link);
        *lock(&self.failure) = None;
        self.changed.send_modify(|n| *n += 1);
        Ok((started, configured.abilities.iter().filter_map(|a| Ability::from_name(a)).collect()))
    }
}

/// A process that was started. Dropping it kills the process.
struct Started {
    child: tokio::process::Child,
    runner: tokio::task::JoinHandle<String>,
}

impl Started {
    /// Waits for the end and says how it came.
    async fn run(mut self) -> String {
        let mut reason = (&mut self.runner).await.unwrap_or_else(|_| "was abandoned".to_owned());
        let _ = self.child.start_kill();
        if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await {
            reason = format!("{reason} ({status})");
        }
        reason
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.runner.abort();
    }
}
