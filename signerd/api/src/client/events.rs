//! What happens to backends and keys, as the daemon tells it.

use std::time::{Duration, SystemTime};

use signer_core::{Event, PinPrompt, Result, TouchPrompt};
use tonic::Streaming;

use crate::{convert::time_from_us, error_from_pb, error_from_status, pb};

/// Something that happened.
#[derive(Clone, Debug)]
pub struct DaemonEvent {
    /// When.
    pub time: SystemTime,
    /// To which backend; `None` when it concerns the daemon itself.
    pub backend: Option<String>,
    /// So many events before this one are missing: they came faster than they were read.
    pub lost: u64,
    /// What.
    pub happening: Happening,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Happening {
    /// Something happened to a backend by itself.
    Backend(Event),
    /// A key was made or imported: its reference.
    KeyCreated(String),
    /// A key was destroyed: its reference.
    KeyDeleted(String),
    /// A key has a new version: its reference.
    KeyRotated(String),
    /// The daemon has read its configuration again.
    ConfigurationReloaded,
    /// Something that only a newer daemon knows.
    Unknown,
}

impl Happening {
    /// The name that is shown: `up`, `down`, `pin-required`, `driver-restarting`, `key-created`, …
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backend(Event::Up) => "up",
            Self::Backend(Event::Down(_)) => "down",
            Self::Backend(Event::PinRequired(_)) => "pin-required",
            Self::Backend(Event::TouchRequired { .. }) => "touch-required",
            Self::Backend(Event::TouchEnded { .. }) => "touch-ended",
            Self::Backend(Event::DriverRestarting { .. }) => "driver-restarting",
            Self::KeyCreated(_) => "key-created",
            Self::KeyDeleted(_) => "key-deleted",
            Self::KeyRotated(_) => "key-rotated",
            Self::ConfigurationReloaded => "configuration-reloaded",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn into_backend_event(self) -> Option<Event> {
        match self {
            Self::Backend(event) => Some(event),
            _ => None,
        }
    }
}

impl From<pb::Event> for DaemonEvent {
    fn from(event: pb::Event) -> Self {
        use pb::event::What;
        let happening = match event.what {
            Some(What::Up(_)) => Happening::Backend(Event::Up),
            Some(What::Down(error)) => Happening::Backend(Event::Down(error_from_pb(error))),
            Some(What::PinRequired(p)) => Happening::Backend(Event::PinRequired(PinPrompt {
                device: p.device,
                key: p.key,
                tries_left: p.tries_left,
            })),
            Some(What::TouchRequired(t)) => Happening::Backend(Event::TouchRequired {
                prompt: TouchPrompt {
                    device: t.device,
                    key: t.key,
                    timeout: Duration::from_millis(t.timeout_ms),
                },
                caller: t.caller,
                purpose: t.purpose,
            }),
            Some(What::TouchEnded(key)) => Happening::Backend(Event::TouchEnded { key }),
            Some(What::DriverRestarting(d)) => Happening::Backend(Event::DriverRestarting {
                reason: d.reason,
                backoff: Duration::from_millis(d.backoff_ms),
            }),
            Some(What::KeyCreated(key)) => Happening::KeyCreated(key),
            Some(What::KeyDeleted(key)) => Happening::KeyDeleted(key),
            Some(What::KeyRotated(key)) => Happening::KeyRotated(key),
            Some(What::ConfigurationReloaded(_)) => Happening::ConfigurationReloaded,
            None => Happening::Unknown,
        };
        Self {
            time: time_from_us(event.time_unix_us),
            backend: Some(event.backend).filter(|b| !b.is_empty()),
            lost: event.lost,
            happening,
        }
    }
}

/// Events as they come.
pub struct EventStream(Streaming<pb::Event>);

impl EventStream {
    pub(super) fn new(stream: Streaming<pb::Event>) -> Self {
        Self(stream)
    }

    /// Waits for the next event; `None` when the daemon has ended the stream.
    pub async fn next(&mut self) -> Option<Result<DaemonEvent>> {
        let answer = self.0.message().await.map_err(|s| error_from_status(&s));
        answer.map(|event| event.map(DaemonEvent::from)).transpose()
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventStream")
    }
}
