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
    /// Whether it is about a call on the very connection of this watcher.
    pub yours: bool,
    /// What.
    pub happening: Happening,
}

/// Whose prompts a watcher puts before a person. A call that needs a PIN waits for it only where some watcher answers for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompts {
    /// Nobody's: it looks on.
    #[default]
    None,
    /// Those of the calls on its own connection: of the clones of its client.
    Own,
    /// Everybody's.
    All,
}

impl From<Prompts> for pb::Prompts {
    fn from(prompts: Prompts) -> Self {
        match prompts {
            Prompts::None => Self::None,
            Prompts::Own => Self::Own,
            Prompts::All => Self::All,
        }
    }
}

/// Calls that wait until somebody gives a PIN.
#[derive(Clone, Debug)]
pub struct PinRequest {
    /// Its number, for [`Client::answer_pin`](crate::Client::answer_pin).
    pub number: u64,
    /// The device as its owner knows it.
    pub device: String,
    /// Tries left before the device locks, where it is known.
    pub tries_left: Option<u32>,
    /// How long the most patient call waits.
    pub timeout: Duration,
    /// Who waits, and for what.
    pub askers: Vec<PinAsker>,
    /// What was wrong with the last PIN that was given.
    pub refused: Option<String>,
}

/// A call that waits for a PIN.
#[derive(Clone, Debug)]
pub struct PinAsker {
    /// Who asks, as the daemon knows the caller.
    pub caller: String,
    /// What for, as grants name it: `sign`, `create`, …
    pub operation: String,
    /// Which key: its reference. `None` when it concerns none, or one that the watcher may not see.
    pub key: Option<String>,
    /// What is to be done, in words.
    pub purpose: String,
    /// What the caller says it is. Nobody has checked it.
    pub label: Option<String>,
    /// Whether the call came over the very connection of this watcher.
    pub yours: bool,
}

/// How a PIN request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinEnd {
    /// The device took the PIN.
    Given,
    /// Whoever was asked said no.
    Refused,
    /// Nobody gave it in time.
    TimedOut,
    /// All who asked have gone away.
    Withdrawn,
    /// The device takes no PIN any more.
    Failed,
}

impl PinEnd {
    /// Every end.
    pub const ALL: [Self; 5] = [Self::Given, Self::Refused, Self::TimedOut, Self::Withdrawn, Self::Failed];

    /// The name that travels and is shown: `given`, `timed-out`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Withdrawn => "withdrawn",
            Self::Failed => "failed",
        }
    }
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
    /// Calls wait for a PIN. Told again, with the same number, when there is something new about it.
    PinRequest(PinRequest),
    /// A PIN request is over.
    PinRequestEnded {
        /// Its number.
        number: u64,
        /// How it ended; `None` for an end that only a newer daemon knows.
        end: Option<PinEnd>,
    },
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
            Self::PinRequest(_) => "pin-request",
            Self::PinRequestEnded { .. } => "pin-request-ended",
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
                label: t.label,
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
            Some(What::PinRequest(request)) => Happening::PinRequest(request.into()),
            Some(What::PinRequestEnded(ended)) => Happening::PinRequestEnded {
                number: ended.request,
                end: PinEnd::ALL.into_iter().find(|end| end.name() == ended.outcome),
            },
            None => Happening::Unknown,
        };
        Self {
            time: time_from_us(event.time_unix_us),
            backend: Some(event.backend).filter(|b| !b.is_empty()),
            lost: event.lost,
            yours: event.yours,
            happening,
        }
    }
}

impl From<pb::PinRequest> for PinRequest {
    fn from(request: pb::PinRequest) -> Self {
        let asker = |asker: pb::PinAsker| PinAsker {
            caller: asker.caller,
            operation: asker.operation,
            key: asker.key,
            purpose: asker.purpose,
            label: asker.label,
            yours: asker.yours,
        };
        Self {
            number: request.request,
            device: request.device,
            tries_left: request.tries_left,
            timeout: Duration::from_millis(request.timeout_ms),
            askers: request.askers.into_iter().map(asker).collect(),
            refused: request.refused,
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
