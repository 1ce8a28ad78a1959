//! How backends and keys are: found out in the background, told on the standard gRPC health service.
//!
//! Names: `""` for the daemon itself, `audit` for its audit log where there is one, `backend/NAME`, and `key/REFERENCE` for configured keys, keys that were used
//! since the start, and any key that somebody with a grant asks for. Who has no grant on a backend or key is told
//! that there is no such name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{BackendName, Error, ErrorKind, Result};
use tokio::{sync::watch, time::timeout};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    config::KeyConfig,
    keys::Entry,
    place::Place,
    state::{Daemon, State},
};

/// Between two checks of a healthy backend.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two checks while something is wrong that may pass by itself.
const EAGER: Duration = Duration::from_millis(250);
/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two checks, whoever asks for one.
const REST: Duration = Duration::from_millis(50);
/// So many keys of a backend are looked at in one check.
const KEYS_AT_ONCE: usize = 32;

/// The status of everything that has been checked.
#[derive(Default)]
pub(crate) struct Board(Mutex<HashMap<String, watch::Sender<ServingStatus>>>);

impl Board {
    pub(crate) fn set(&self, name: &str, healthy: bool) {
        let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
        let mut board = self.lock();
        match board.get(name) {
            Some(sender) => {
                sender.send_if_modified(|now| std::mem::replace(now, status) != status);
            }
            None => {
                board.insert(name.to_owned(), watch::Sender::new(status));
            }
        }
    }

    /// The status of a name, and what becomes of it.
    pub(crate) fn watch(&self, name: &str) -> Option<watch::Receiver<ServingStatus>> {
        self.lock().get(name).map(watch::Sender::subscribe)
    }

    /// The same for a name that is not known yet.
    pub(crate) fn watch_unknown(&self, name: &str) -> watch::Receiver<ServingStatus> {
        let mut board = self.lock();
        board
            .entry(name.to_owned())
            .or_insert_with(|| watch::Sender::new(ServingStatus::ServiceUnknown))
            .subscribe()
    }

    /// Forgets names that no configuration has any more, and keys that nobody uses.
    fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|name, sender| {
            let keep = wanted(name);
            if !keep {
                sender.send_replace(ServingStatus::ServiceUnknown);
            }
            keep || sender.receiver_count() > 0
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<ServingStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches over one backend until it is taken out of the configuration: starts it again when that failed, checks it
/// and its keys, and notes how they are.
pub(crate) async fn watch_over(daemon: Arc<Daemon>, place: Arc<Place>) {
    let mut round = 0;
    let mut failures = 0_u32;
    loop {
        let healthy = check(&daemon, &place, round).await;
        round += 1;
        failures = if healthy { 0 } else { failures.saturating_add(1) };
        let pause = match place.trouble().map(|e| e.kind()) {
            // In the second case a person has to do something; that wakes this up.
            None | Some(ErrorKind::PinRequired | ErrorKind::WrongPin { .. } | ErrorKind::Locked) => INTERVAL,
            // A driver that cannot be started at all: less and less often.
            Some(_) if place.backend().is_err() => (EAGER * 2_u32.pow(failures.min(5))).min(INTERVAL),
            Some(_) => EAGER,
        };
        tokio::time::sleep(REST).await;
        let _ = timeout(pause, place.wake.notified()).await;
    }
}

async fn check(daemon: &Daemon, place: &Arc<Place>, round: usize) -> bool {
    let result = loop {
        let unlocks = place.unlocks();
        let result = check_backend(place).await;
        if result.is_ok() || place.unlocks() == unlocks {
            break result;
        }
    };
    let healthy = result.is_ok();
    let news = place.set_trouble(result.err());
    daemon.board.set(&format!("backend/{}", place.name()), healthy);
    let state = daemon.state();
    let keys = keys_to_check(&state, place, round, news).await;
    for entry in keys {
        let working = healthy && check_key(&state, &entry).await.is_ok();
        daemon.board.set(&format!("key/{}", entry.asked()), working);
    }
    for group in state.groups.values().filter(|group| group.is_in(place)) {
        group.check(place, healthy, PATIENCE).await;
        daemon.board.set(&format!("key/{}", group.name()), group.is_healthy());
    }
    if !healthy {
        // Configured keys of a backend that is away can't even be opened.
        for name in configured(&state, place.name()) {
            daemon.board.set(&format!("key/{name}"), false);
        }
    }
    daemon.board.keep(|name| state.knows(name));
    healthy
}

/// Talks to the device.
async fn check_backend(place: &Arc<Place>) -> Result<()> {
    if place.backend().is_err() {
        place.start().await?;
    }
    let signed_before = place.successes();
    match timeout(PATIENCE, async { place.backend()?.health().await }).await {
        Ok(Err(e))
            if matches!(e.kind(), ErrorKind::Busy { .. } | ErrorKind::TimedOut)
                && place.successes() > signed_before =>
        {
            Ok(())
        }
        Ok(result) => result.map_err(|e| e.device(place.name())),
        // It signs, and has no time for questions.
        Err(_) if place.successes() > signed_before => Ok(()),
        Err(_) => {
            let what = format!("a health check had no answer for {} s", PATIENCE.as_secs());
            Err(Error::new(ErrorKind::DeviceGone, what).device(place.name()))
        }
    }
}

/// Finds the key. What is not there any more is not kept.
async fn check_key(state: &State, entry: &Entry) -> Result<()> {
    let signed_before = entry.place().successes();
    let result = match timeout(PATIENCE, entry.signer().health()).await {
        Ok(result) => result,
        Err(_) if entry.place().successes() > signed_before => Ok(()),
        Err(_) => Err(Error::new(ErrorKind::TimedOut, "the key did not answer a health check")),
    };
    if let Err(error) = &result {
        tracing::debug!(key = entry.reference(), "health: {error}");
        if error.kind() == ErrorKind::NotFound {
            state.keys.remove(entry.asked());
        }
    }
    result
}

/// Configured keys of a place and those that were used: all of them when something has changed, else some each time.
async fn keys_to_check(state: &Arc<State>, place: &Arc<Place>, round: usize, news: bool) -> Vec<Arc<Entry>> {
    for name in configured(state, place.name()) {
        if state.keys.fresh(&name).is_none() && place.trouble().is_none() {
            // Whether it can be opened is what its status says.
            if let Ok(Err(error)) = timeout(PATIENCE, state.open_configured(&name)).await {
                tracing::debug!(key = name, "health: {error}");
            }
        }
    }
    let mut keys = state.keys.of(place);
    if keys.len() > KEYS_AT_ONCE && !news {
        keys.sort_by(|a, b| a.asked().cmp(b.asked()));
        let start = (round * KEYS_AT_ONCE) % keys.len();
        keys.rotate_left(start);
        keys.truncate(KEYS_AT_ONCE);
    }
    keys
}

/// Configured keys of a backend, apart from those that several places hold.
fn configured<'a>(state: &'a State, backend: &'a BackendName) -> impl Iterator<Item = String> + 'a {
    use signer_core::KeyRef;
    let here = move |key: &KeyConfig| matches!(&key.members[..], [KeyRef::InBackend { backend: b, .. }] if b == backend);
    state.config.keys.iter().filter(move |(_, key)| here(key)).map(|(name, _)| name.to_string())
}

/// Checks a key now, for somebody who asks for it.
pub(crate) async fn check_now(daemon: &Daemon, state: &State, entry: &Arc<Entry>, until: Instant) -> bool {
    let check = check_key(state, entry);
    let healthy = matches!(tokio::time::timeout_at(until.into(), check).await, Ok(Ok(())));
    daemon.board.set(&format!("key/{}", entry.asked()), healthy);
    healthy
}
