//! Where calls of one backend wait for its PIN. They share one request.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use signer_core::{BackendName, Error, ErrorKind, Pin, PinPrompt, Result};
use signerd_api::{PinEnd, pb};
use tokio::sync::watch;

use super::Asker;
use crate::{events::What, grants::Grants, identity::Identity, place::Place};

/// The desk of one backend.
#[derive(Default)]
pub(crate) struct Desk {
    open: Mutex<Option<Open>>,
    /// Whoever holds this gives a PIN: one at a time, so that an answer never meets a request that another one has changed.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// A request that is not over.
struct Open {
    number: u64,
    prompt: PinPrompt,
    /// Those who wait, by a number of their own.
    askers: Vec<(u64, Asker)>,
    /// All who have waited: whom its end is of interest to.
    connections: Vec<Arc<Identity>>,
    /// PINs that were wrong, which are not tried again, and what the device said last.
    refused: Vec<Pin>,
    why: Option<String>,
    ended: watch::Sender<Option<Result<()>>>,
}

/// What watchers are told of a request.
#[derive(Clone)]
pub(crate) struct PinNews {
    pub(crate) number: u64,
    prompt: PinPrompt,
    askers: Vec<Asker>,
    why: Option<String>,
}

/// A call at the desk. It leaves when this is dropped.
pub(crate) struct Waiting {
    place: Arc<Place>,
    asker: u64,
    timed_out: bool,
    ended: watch::Receiver<Option<Result<()>>>,
}

impl Desk {
    /// Joins the request that is open, or opens one. `None` when no PIN is wanted any more.
    pub(super) fn wait(&self, place: &Arc<Place>, asker: Asker) -> Option<Waiting> {
        let wanted = place.wanted_pin().filter(|wanted| wanted.tries_left != Some(0))?;
        let mut slot = self.lock();
        let open = slot.get_or_insert_with(|| {
            let (what, caller) = (asker.operation, &asker.caller_name);
            tracing::info!(backend = %place.name(), device = wanted.device, "a PIN is asked for, for {caller} to {what}");
            Open {
                number: next_number(),
                prompt: wanted.clone(),
                askers: Vec::new(),
                connections: Vec::new(),
                refused: Vec::new(),
                why: None,
                ended: watch::Sender::new(None),
            }
        });
        // A call that wants the PIN for one key does not make others wait for that key alone.
        if open.prompt.key != wanted.key {
            open.prompt.key = None;
        }
        let number = next_number();
        if !open.connections.iter().any(|c| Arc::ptr_eq(c, &asker.caller)) {
            open.connections.push(asker.caller.clone());
        }
        open.askers.push((number, asker));
        let ended = open.ended.subscribe();
        open.tell(place);
        Some(Waiting { place: place.clone(), asker: number, timed_out: false, ended })
    }

    /// What is open, for a watcher that has just come, and whom it concerns.
    pub(crate) fn news(&self) -> Option<(PinNews, Vec<Arc<Identity>>)> {
        self.lock().as_ref().map(|open| (open.news(), open.connections.clone()))
    }

    /// Whether a PIN may be tried as an answer to a request. Call it with the turn in hand.
    pub(crate) fn check(&self, number: u64, pin: &Pin) -> Result<()> {
        let slot = self.lock();
        let Some(open) = slot.as_ref().filter(|open| open.number == number) else { return Err(is_over()) };
        if open.refused.iter().any(|bad| bad.expose() == pin.expose()) {
            let tries_left = open.prompt.tries_left;
            return Err(Error::new(
                ErrorKind::WrongPin { tries_left },
                "this PIN was refused a moment ago, and is not tried again",
            ));
        }
        Ok(())
    }

    /// Notes how an attempt with a PIN ended, and whether the device takes none any more.
    pub(crate) fn answered(&self, place: &Place, pin: &Pin, result: &Result<()>, blocked: bool) {
        let mut slot = self.lock();
        let Some(open) = slot.as_mut() else { return };
        match result {
            Ok(()) => Self::end(slot, place, PinEnd::Given, Ok(())),
            Err(error) if blocked => Self::end(slot, place, PinEnd::Failed, Err(error.clone())),
            Err(error) => {
                let ErrorKind::WrongPin { tries_left } = error.kind() else { return };
                open.refused.push(pin.clone());
                open.why = Some(error.what().to_owned());
                open.prompt.tries_left = tries_left.or(open.prompt.tries_left);
                open.tell(place);
            }
        }
    }

    /// Somebody says that nobody is going to give the PIN.
    pub(crate) fn refuse(&self, place: &Place, number: u64, by: &str) -> Result<()> {
        let slot = self.lock();
        if slot.as_ref().is_none_or(|open| open.number != number) {
            return Err(is_over());
        }
        let error = Error::new(ErrorKind::PinRequired, format!("{by} was asked for the PIN, and refused"))
            .device(place.name())
            .next(format!("run `signer keys unlock {}`", place.name()));
        Self::end(slot, place, PinEnd::Refused, Err(error));
        Ok(())
    }

    /// The backend is taken down.
    pub(crate) fn close(&self, place: &Place) {
        let error =
            Error::new(ErrorKind::DeviceGone, "the backend was taken down while a PIN was waited for")
                .device(place.name())
                .next("try again");
        Self::end(self.lock(), place, PinEnd::Failed, Err(error));
    }

    fn end(mut slot: MutexGuard<'_, Option<Open>>, place: &Place, end: PinEnd, result: Result<()>) {
        let Some(open) = slot.take() else { return };
        drop(slot);
        tracing::info!(backend = %place.name(), waiting = open.askers.len(), "a PIN is asked for no longer: {}", end.name());
        place.tell_about(What::PinRequestEnded { number: open.number, end }, open.connections);
        open.ended.send_replace(Some(result));
    }

    fn leave(&self, place: &Place, asker: u64, timed_out: bool) {
        let mut slot = self.lock();
        let Some(open) = slot.as_mut() else { return };
        let before = open.askers.len();
        open.askers.retain(|(number, _)| *number != asker);
        if open.askers.len() == before {
            return;
        }
        if open.askers.is_empty() {
            let end = if timed_out { PinEnd::TimedOut } else { PinEnd::Withdrawn };
            Self::end(slot, place, end, Ok(()));
        } else {
            open.tell(place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn news(&self) -> PinNews {
        PinNews {
            number: self.number,
            prompt: self.prompt.clone(),
            askers: self.askers.iter().map(|(_, asker)| asker.clone()).collect(),
            why: self.why.clone(),
        }
    }

    fn tell(&self, place: &Place) {
        place.tell_about(What::PinRequest(Arc::new(self.news())), self.connections.clone());
    }
}

impl Waiting {
    /// Waits for the end of the request.
    pub(super) async fn ended(&mut self) -> Result<()> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::internal("a PIN request ended without a result")),
        }
    }

    /// Says why it leaves.
    pub(super) fn timed_out(&mut self) {
        self.timed_out = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.place.desk.leave(&self.place, self.asker, self.timed_out);
    }
}

impl PinNews {
    /// As a watcher may know it: without keys that it may not see.
    pub(crate) fn to_pb(
        &self,
        backend: &BackendName,
        grants: &Grants,
        watcher: &Arc<Identity>,
    ) -> pb::PinRequest {
        let now = Instant::now();
        let until = self.askers.iter().map(|asker| asker.until).max().unwrap_or(now);
        let device = if self.prompt.device.is_empty() { backend.as_str() } else { &self.prompt.device };
        pb::PinRequest {
            request: self.number,
            device: device.to_owned(),
            tries_left: self.prompt.tries_left,
            timeout_ms: until.saturating_duration_since(now).as_millis() as u64,
            askers: self
                .askers
                .iter()
                .map(|asker| pb::PinAsker {
                    caller: asker.caller_name.clone(),
                    operation: asker.operation.name().to_owned(),
                    key: grants.see(watcher, &asker.names).then(|| asker.key.clone()),
                    purpose: asker.purpose.clone(),
                    label: asker.label.clone(),
                    yours: Arc::ptr_eq(&asker.caller, watcher),
                })
                .collect(),
            refused: self.why.clone(),
        }
    }
}

impl std::fmt::Debug for PinNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinNews({})", self.number)
    }
}

fn is_over() -> Error {
    Error::new(ErrorKind::NotFound, "this PIN request is over, and the PIN was not tried")
}

/// Numbers of requests: those of a daemon that was started again are others.
fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    let before = LAST.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1)));
    now.max(before.unwrap_or_default() + 1)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        config::GrantConfig,
        grants::{AlgorithmSet, Operations},
    };

    /// Who may unlock with a grant for one key hears that somebody asks, and not for which other key.
    #[test]
    fn keys_that_a_watcher_may_not_see_are_not_named() {
        let grant = GrantConfig {
            line: 1,
            callers: vec!["uid:1".parse().unwrap()],
            keys: vec!["hsm/mine".parse().unwrap()],
            operations: Operations::UNLOCK,
            algorithms: AlgorithmSet::ALL,
        };
        let (grants, _) = Grants::compile(&[grant], &BTreeMap::new());
        let asker = |key: &str| Asker {
            caller: Arc::new(Identity::new(Some(2), Vec::new())),
            caller_name: "bob".into(),
            operation: Operations::SIGN,
            key: key.into(),
            names: grants.names_as_asked(&key.parse().unwrap()),
            purpose: "x".into(),
            label: None,
            until: Instant::now() + Duration::from_secs(5),
        };
        let news = PinNews {
            number: 7,
            prompt: PinPrompt::default(),
            askers: vec![asker("hsm/mine"), asker("hsm/secret-project")],
            why: None,
        };
        let watcher = Arc::new(Identity::new(Some(1), Vec::new()));
        let told = news.to_pb(&"hsm".parse().unwrap(), &grants, &watcher);
        assert_eq!(told.device, "hsm", "a device without a name has the backend's");
        let keys: Vec<_> = told.askers.iter().map(|asker| asker.key.as_deref()).collect();
        assert_eq!(keys, [Some("hsm/mine"), None]);
        assert!((4000..=5000).contains(&told.timeout_ms), "{}", told.timeout_ms);
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let numbers: std::collections::BTreeSet<_> = (0..1000).map(|_| next_number()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
