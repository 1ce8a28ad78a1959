//! PIN requests: a call that needs a PIN which the daemon does not have waits until a person gives it.
//!
//! A call first fails with `PinRequired`, having changed nothing and held nobody up. Where somebody listens who may answer, it
//! then waits at its backend's [`Desk`], outside of every queue, and is made once more when the PIN is there. All calls that
//! wait for one backend share one request, which is told to watchers and ends
//!
//! * when the device takes a PIN: all go on;
//! * when whoever is asked refuses: all fail;
//! * when the device takes no PIN any more: all fail;
//! * when the last of them has gone away, or has waited until its deadline.
//!
//! Where nobody listens, or nobody does any more, a call fails at once: a script does not hang.

use std::{sync::Arc, time::Instant};

use signer_core::{Error, ErrorKind, Result};

use crate::{
    grants::{KeyNames, Operations},
    identity::Identity,
    place::Place,
    state::Daemon,
};

mod desk;
mod listeners;

pub(crate) use desk::{Desk, PinNews};
pub(crate) use listeners::{Interest, Listener, Listeners};

/// A call that waits for a PIN, as people are told of it.
#[derive(Clone)]
pub(crate) struct Asker {
    /// Who: the very one of its connection.
    pub(crate) caller: Arc<Identity>,
    pub(crate) caller_name: String,
    pub(crate) operation: Operations,
    /// The key, as it was asked for, and all its names.
    pub(crate) key: String,
    pub(crate) names: KeyNames,
    /// What is to be done, in words.
    pub(crate) purpose: String,
    /// What the caller says it is.
    pub(crate) label: Option<String>,
    /// How long it waits.
    pub(crate) until: Instant,
}

/// Waits until a person has given the PIN whose lack is the reason of `error`. An error when nobody is going to: most often
/// the reason itself.
pub(crate) async fn wait(daemon: &Daemon, place: &Arc<Place>, asker: Asker, error: Error) -> Result<()> {
    let mut changes = daemon.listeners.changes();
    let caller = asker.caller.clone();
    let somebody_answers = || daemon.listeners.answers(&daemon.state().grants, place.name(), &caller);
    if !somebody_answers() {
        return Err(error);
    }
    let until = asker.until;
    let Some(mut waiting) = place.desk.wait(place, asker) else { return Err(error) };
    loop {
        tokio::select! {
            biased;
            ended = waiting.ended() => return ended,
            () = tokio::time::sleep_until(until.into()) => {
                waiting.timed_out();
                return Err(Error::new(ErrorKind::PinRequired, "nobody gave the device's PIN in time")
                    .device(place.name())
                    .next(format!("try again, or run `signer keys unlock {}` first", place.name())));
            }
            // It cannot be closed: the daemon has the other end.
            _ = changes.changed() => if !somebody_answers() {
                return Err(error);
            }
        }
    }
}
