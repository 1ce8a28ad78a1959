//! What happens to backends and keys, for whoever watches.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use signer_core::{BackendName, Event, KeyName};
use signerd_api::{PinEnd, error_to_pb, pb};
use tokio::sync::broadcast;

use crate::{grants::Grants, identity::Identity, prompts::PinNews};

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    time: SystemTime,
    /// `None` when it concerns the daemon itself.
    pub(crate) backend: Option<BackendName>,
    /// Whose calls it is about, where it is about calls: by the very connections.
    about: Vec<Arc<Identity>>,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Backend(Event),
    KeyCreated(KeyName),
    KeyDeleted(KeyName),
    KeyRotated(KeyName),
    Reloaded,
    PinRequest(Arc<PinNews>),
    PinRequestEnded { number: u64, end: PinEnd },
}

/// Where events go, and come from. A watcher that does not keep up loses the oldest ones.
#[derive(Clone, Debug)]
pub(crate) struct Events(broadcast::Sender<Arc<Occurrence>>);

/// So many events are kept for watchers that are behind.
const KEPT: usize = 256;

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    pub(crate) fn tell(&self, backend: Option<&BackendName>, what: What) {
        self.tell_about(backend, what, Vec::new());
    }

    pub(crate) fn tell_about(&self, backend: Option<&BackendName>, what: What, about: Vec<Arc<Identity>>) {
        // An error means that nobody watches.
        let _ = self.0.send(Arc::new(Occurrence::new(backend, what, about)));
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Occurrence>> {
        self.0.subscribe()
    }
}

impl Occurrence {
    pub(crate) fn new(backend: Option<&BackendName>, what: What, about: Vec<Arc<Identity>>) -> Self {
        Self { time: SystemTime::now(), backend: backend.cloned(), about, what }
    }

    /// Whether it is about a call that came over this very connection.
    pub(crate) fn is_about(&self, connection: &Arc<Identity>) -> bool {
        self.about.iter().any(|about| Arc::ptr_eq(about, connection))
    }

    /// The key that it is about.
    pub(crate) fn key(&self) -> Option<KeyName> {
        match &self.what {
            What::KeyCreated(key) | What::KeyDeleted(key) | What::KeyRotated(key) => Some(key.clone()),
            What::Backend(Event::TouchRequired { prompt, .. }) => prompt.key.parse().ok(),
            What::Backend(Event::TouchEnded { key }) => key.parse().ok(),
            What::Backend(Event::PinRequired(prompt)) => prompt.key.as_ref()?.parse().ok(),
            _ => None,
        }
    }

    /// As a watcher is told of it.
    pub(crate) fn to_pb(&self, lost: u64, grants: &Grants, watcher: &Arc<Identity>) -> pb::Event {
        use pb::event::What as W;
        let backend = self.backend.as_ref().map(ToString::to_string).unwrap_or_default();
        let reference = |key: &KeyName| format!("{backend}/{key}");
        let what = match &self.what {
            What::Backend(Event::Up) => W::Up(pb::Happened {}),
            What::Backend(Event::Down(error)) => W::Down(error_to_pb(error)),
            What::Backend(Event::PinRequired(prompt)) => W::PinRequired(pb::PinPrompt {
                device: prompt.device.clone(),
                key: prompt.key.clone(),
                tries_left: prompt.tries_left,
            }),
            What::Backend(Event::TouchRequired { prompt, caller, purpose, label }) => {
                W::TouchRequired(pb::TouchPrompt {
                    device: prompt.device.clone(),
                    key: format!("{backend}/{}", prompt.key),
                    timeout_ms: prompt.timeout.as_millis() as u64,
                    caller: caller.clone(),
                    purpose: purpose.clone(),
                    label: label.clone(),
                })
            }
            What::Backend(Event::TouchEnded { key }) => W::TouchEnded(format!("{backend}/{key}")),
            What::Backend(Event::DriverRestarting { reason, backoff }) => {
                W::DriverRestarting(pb::DriverRestarting {
                    reason: reason.clone(),
                    backoff_ms: backoff.as_millis() as u64,
                })
            }
            What::KeyCreated(key) => W::KeyCreated(reference(key)),
            What::KeyDeleted(key) => W::KeyDeleted(reference(key)),
            What::KeyRotated(key) => W::KeyRotated(reference(key)),
            What::Reloaded => W::ConfigurationReloaded(pb::Happened {}),
            What::PinRequest(news) => match &self.backend {
                Some(name) => W::PinRequest(news.to_pb(name, grants, watcher)),
                None => W::PinRequest(pb::PinRequest::default()),
            },
            What::PinRequestEnded { number, end } => {
                W::PinRequestEnded(pb::PinRequestEnded { request: *number, outcome: end.name().to_owned() })
            }
        };
        pb::Event {
            time_unix_us: self.time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
            lost,
            what: Some(what),
            yours: self.is_about(watcher),
            backend,
        }
    }
}
