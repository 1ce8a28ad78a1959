//! Faults on command.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

/// What goes wrong with the next requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For so many requests.
    #[serde(default = "once")]
    pub count: u64,
    /// Milliseconds of the slow kinds.
    #[serde(default)]
    pub ms: u64,
    /// Seconds for a `Retry-After` header.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// Only for this operation, as `/_seen` names it: `aws.Sign`, `google.asymmetricSign`, `azure.sign`, `azure.token`.
    #[serde(default)]
    pub on: Option<String>,
}

fn once() -> u64 {
    1
}

impl Fault {
    /// That, for one request.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, count: 1, ms: 0, retry_after: None, on: None }
    }

    /// For so many requests.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// Until another fault is set, or none.
    #[must_use]
    pub fn for_ever(self) -> Self {
        self.times(u64::MAX)
    }

    /// How slow.
    #[must_use]
    pub fn ms(mut self, ms: u64) -> Self {
        self.ms = ms;
        self
    }

    /// With a `Retry-After` header of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Only for this operation.
    #[must_use]
    pub fn on(mut self, operation: &str) -> Self {
        self.on = Some(operation.to_owned());
        self
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The service asks for fewer requests: 429, at AWS 400 `ThrottlingException`.
    Throttle,
    /// The service is not available: 503.
    Unavailable,
    /// The service has a defect: 500.
    Internal,
    /// A gateway in between answers 502 with a page.
    Gateway,
    /// The answer comes after `ms`.
    Slow,
    /// No answer ever.
    Hang,
    /// The connection is cut without an answer.
    Close,
    /// 200 with a page, as a captive portal gives it.
    Garbage,
    /// 200 that says JSON and is none.
    NotJson,
    /// Half of the answer, then the connection is cut.
    Truncate,
    /// The answer a byte at a time, `ms` between two.
    SlowBytes,
    /// A checksum in the answer is wrong (Google).
    Badcrc,
    /// The answer says that another version of the key made it.
    WrongVersion,
    /// One bit of the signature is wrong; checksums fit it.
    WrongSignature,
    /// Another key answers, as if the key had been replaced.
    ChangedKey,
    /// The caller may not do that: 403, at AWS 400 `AccessDeniedException`.
    Denied,
    /// The caller's token or session has expired: 401, at AWS 400 `ExpiredTokenException`.
    Expired,
    /// The key is disabled.
    Disabled,
    /// The key waits for its destruction.
    PendingDeletion,
    /// There is no such key: 404, at AWS 400 `NotFoundException`.
    NotFound,
    /// Somebody else changed it at the same time: 409.
    Conflict,
    /// The request is malformed: 400.
    BadRequest,
}

/// The one fault that is set.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The fault for a request, used up by one.
    pub(crate) fn take(&self, operation: &str) -> Option<Fault> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = set.as_mut()?;
        if fault.on.as_ref().is_some_and(|on| on != operation) {
            return None;
        }
        let taken = fault.clone();
        fault.count = fault.count.saturating_sub(1);
        if fault.count == 0 {
            *set = None;
        }
        Some(taken)
    }
}
