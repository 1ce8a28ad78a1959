//! PINs that people give, and calls that wait for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, Result};
use signerd_api::pb;

use super::{Service, Wanted};
use crate::{
    call::Call,
    grants::Operations,
    place::Place,
    prompts::{self, Asker},
    state::Daemon,
};

/// So long before its deadline a call is told that nobody gave the PIN, so that it hears of it.
const MARGIN: Duration = Duration::from_millis(25);

/// What a call is about that may turn out to need a PIN.
#[derive(Clone, Copy)]
pub(super) struct Asks<'a> {
    operation: Operations,
    key: &'a str,
    work: Work<'a>,
}

#[derive(Clone, Copy)]
enum Work<'a> {
    Sign { algorithm: &'a str, wanted: &'a Wanted },
    Other(&'a str),
}

impl<'a> Asks<'a> {
    pub(super) fn to_sign(key: &'a str, algorithm: &'a str, wanted: &'a Wanted) -> Self {
        Self { operation: Operations::SIGN, key, work: Work::Sign { algorithm, wanted } }
    }

    /// Something else; in words, what.
    pub(super) fn to(operation: Operations, key: &'a str, what: &'a str) -> Self {
        Self { operation, key, work: Work::Other(what) }
    }

    /// What is to be done, in words.
    fn purpose(&self) -> String {
        let (algorithm, wanted) = match self.work {
            Work::Other(what) => return what.to_owned(),
            Work::Sign { algorithm, wanted } => (algorithm, wanted),
        };
        let algorithm = if algorithm.is_empty() { "a signature" } else { algorithm };
        match wanted {
            Wanted::Digest(digest) => {
                let hash = HashAlgorithm::ALL.into_iter().find(|hash| hash.len() == digest.len());
                match hash.map(|hash| Digest::new(hash, digest)) {
                    Some(Ok(digest)) => format!("{algorithm} of the digest {digest:?}"),
                    _ => format!("{algorithm} of a digest of {} bytes", digest.len()),
                }
            }
            Wanted::Message(message) => format!("{algorithm} of a message of {} bytes", message.len()),
        }
    }
}

impl Daemon {
    /// Does something, and again when a person has given the PIN that it turned out to lack. `PinRequired` and `Locked` mean
    /// that nothing was done.
    pub(super) async fn with_pin<T, F: Future<Output = Result<T>>>(
        &self,
        call: &Call,
        asks: Asks<'_>,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut last = None;
        loop {
            let error = match attempt().await {
                Err(error) if lacks_pin(&error) => error,
                done => return done,
            };
            let state = self.state();
            let Some(place) = state.waiting_for_pin(&call.caller, asks.operation, asks.key) else {
                return Err(error);
            };
            let caller_name = call.caller.describe().await;
            if place.wanted_pin().is_none() {
                // It was given while this call was on its way, most likely; or it is not a PIN that helps.
                let unlocks = place.unlocks();
                if error.kind() != ErrorKind::PinRequired || last.replace(unlocks) == Some(unlocks) {
                    return Err(error);
                }
                continue;
            }
            let until = call.deadline.checked_sub(MARGIN).unwrap_or(call.deadline);
            if until <= Instant::now() {
                return Err(error);
            }
            let asker = Asker {
                caller: call.caller.clone(),
                caller_name,
                operation: asks.operation,
                key: asks.key.to_owned(),
                names: asks.key.parse().map(|key| state.grants.names_as_asked(&key))?,
                purpose: asks.purpose(),
                label: call.label(),
                until,
            };
            prompts::wait(self, &place, asker, error).await?;
        }
    }
}

fn lacks_pin(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PinRequired | ErrorKind::Locked) && !error.is_uncertain()
}

impl Service {
    /// A backend that the caller may unlock.
    pub(super) async fn unlockable(&self, call: &Call, backend: &str) -> Result<Arc<Place>> {
        let state = self.daemon.state();
        let name = backend.parse()?;
        if !state.grants.allow_backend(&call.caller, Operations::UNLOCK, &name) {
            return Err(state.denied(&call.caller, Operations::UNLOCK, name.as_str(), None).await);
        }
        state.place(&name)
    }

    pub(super) async fn refuse(&self, call: &Call, request: &pb::RefusePinRequest) -> Result<()> {
        let place = self.unlockable(call, &request.backend).await?;
        let by = call.caller.describe().await;
        place.desk.refuse(&place, request.request, &by)
    }

    pub(super) async fn lock_backend(&self, call: Call, request: &pb::LockRequest) -> Result<()> {
        let place = self.unlockable(&call, &request.backend).await?;
        let caller = call.caller.describe().await;
        tracing::info!(%caller, backend = %place.name(), "locked");
        place.lock().await
    }
}
