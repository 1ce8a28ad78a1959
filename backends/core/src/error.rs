//! The closed set of errors that a caller can act on.

use std::{fmt, time::Duration};

/// What the crates of this house return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed, as far as a caller can act on it. Complete on purpose: each kind has one status on the
/// wire and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such key, token or backend.
    NotFound,
    /// A key of that name is already there.
    AlreadyExists,
    /// A grant, or the device itself, forbids it.
    Denied,
    /// The device needs a PIN that nobody has given yet.
    PinRequired,
    /// The PIN was wrong. It is not tried again.
    WrongPin {
        /// How many tries the device still allows, where it says so.
        tries_left: Option<u32>,
    },
    /// The PIN is blocked, was found wrong before, or only its last try is left.
    Locked,
    /// Nobody touched the device in time.
    TouchTimedOut,
    /// The device or service cannot be reached. It is served again when it is back.
    DeviceGone,
    /// The queue is full or the token has no free session.
    Busy {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The service asks for fewer requests.
    Throttled {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The caller's deadline passed first.
    TimedOut,
    /// The backend or key cannot do this at all.
    Unsupported,
    /// The request makes no sense as it is.
    BadRequest,
    /// A defect, here or in a device.
    Internal,
}

impl ErrorKind {
    /// One of each kind, with empty details: for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::Denied,
        Self::PinRequired,
        Self::WrongPin { tries_left: None },
        Self::Locked,
        Self::TouchTimedOut,
        Self::DeviceGone,
        Self::Busy { retry_after: Duration::ZERO },
        Self::Throttled { retry_after: Duration::ZERO },
        Self::TimedOut,
        Self::Unsupported,
        Self::BadRequest,
        Self::Internal,
    ];

    /// The stable name that travels on the wire: `NOT_FOUND`, `WRONG_PIN`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Denied => "DENIED",
            Self::PinRequired => "PIN_REQUIRED",
            Self::WrongPin { .. } => "WRONG_PIN",
            Self::Locked => "LOCKED",
            Self::TouchTimedOut => "TOUCH_TIMED_OUT",
            Self::DeviceGone => "DEVICE_GONE",
            Self::Busy { .. } => "BUSY",
            Self::Throttled { .. } => "THROTTLED",
            Self::TimedOut => "TIMED_OUT",
            Self::Unsupported => "UNSUPPORTED",
            Self::BadRequest => "BAD_REQUEST",
            Self::Internal => "INTERNAL",
        }
    }

    /// Puts a kind together from what travelled on the wire; `None` for a name that this version does not know.
    pub fn from_parts(name: &str, tries_left: Option<u32>, retry_after: Option<Duration>) -> Option<Self> {
        let kind = Self::ALL.into_iter().find(|k| k.name() == name)?;
        Some(match kind {
            Self::WrongPin { .. } => Self::WrongPin { tries_left },
            Self::Busy { .. } => Self::Busy { retry_after: retry_after.unwrap_or_default() },
            Self::Throttled { .. } => Self::Throttled { retry_after: retry_after.unwrap_or_default() },
            other => other,
        })
    }

    /// How many PIN tries are left, where this kind says so.
    pub fn tries_left(self) -> Option<u32> {
        match self {
            Self::WrongPin { tries_left } => tries_left,
            _ => None,
        }
    }

    /// When to try again, where this kind says so.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Throttled { retry_after } => Some(retry_after),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything about it.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::DeviceGone | Self::Busy { .. } | Self::Throttled { .. })
    }
}

/// An error: what failed, on which key, on which device, and what to do next.
///
/// It never holds a secret or any of the bytes that were to be signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Parts>);

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    kind: ErrorKind,
    what: String,
    key: Option<String>,
    device: Option<String>,
    next: Option<String>,
    vendor: Option<String>,
    may_have_happened: bool,
}

impl Error {
    /// An error of `kind`; `what` says what failed, as a clause without a full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            what: what.into(),
            key: None,
            device: None,
            next: None,
            vendor: None,
            may_have_happened: false,
        }))
    }

    /// A malformed request.
    pub fn bad_request(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, what)
    }

    /// Something that `backend` cannot do: `operation` is a verb with its object, "sign with ed25519ph".
    pub fn unsupported(operation: impl fmt::Display, backend: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{backend} cannot {operation}"))
    }

    /// A defect.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// Adds which key it was about. The first one given stays.
    #[must_use]
    pub fn key(mut self, key: impl fmt::Display) -> Self {
        self.0.key.get_or_insert_with(|| key.to_string());
        self
    }

    /// Adds which device or backend it was about. The first one given stays.
    #[must_use]
    pub fn device(mut self, device: impl fmt::Display) -> Self {
        self.0.device.get_or_insert_with(|| device.to_string());
        self
    }

    /// Adds what the reader can do now. The first one given stays.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next.get_or_insert_with(|| next.into());
        self
    }

    /// Adds the device's own code or the underlying error's text. The first one given stays.
    #[must_use]
    pub fn vendor(mut self, vendor: impl fmt::Display) -> Self {
        self.0.vendor.get_or_insert_with(|| vendor.to_string());
        self
    }

    /// Says that the change may have been made all the same: look before you try again.
    #[must_use]
    pub fn may_have_happened(mut self) -> Self {
        self.0.may_have_happened = true;
        self
    }

    /// What a caller acts on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What failed, without key, device and advice.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The key it was about.
    pub fn key_name(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The device or backend it was about.
    pub fn device_name(&self) -> Option<&str> {
        self.0.device.as_deref()
    }

    /// What to do next.
    pub fn advice(&self) -> Option<&str> {
        self.0.next.as_deref()
    }

    /// The device's own code.
    pub fn vendor_code(&self) -> Option<&str> {
        self.0.vendor.as_deref()
    }

    /// Whether a change may have been made although this is an error.
    pub fn is_uncertain(&self) -> bool {
        self.0.may_have_happened
    }

    /// Whether the same request may succeed later by itself, and doing it twice harms nobody.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable() && !self.0.may_have_happened
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.0;
        f.write_str(&p.what)?;
        let about: Vec<String> = [
            p.key.as_ref().map(|k| format!("key {k}")),
            p.device.as_ref().map(|d| format!("device {d}")),
            p.vendor.clone(),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !about.is_empty() {
            write!(f, " ({})", about.join(", "))?;
        }
        match p.kind {
            ErrorKind::WrongPin { tries_left: Some(1) } => f.write_str("; 1 try left")?,
            ErrorKind::WrongPin { tries_left: Some(n) } => write!(f, "; {n} tries left")?,
            _ => {}
        }
        if p.may_have_happened {
            f.write_str("; it may have happened all the same, look before trying again")?;
        }
        if let Some(next) = &p.next {
            write!(f, "; {next}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.name())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_next() {
        let error = Error::new(ErrorKind::WrongPin { tries_left: Some(2) }, "the token refused the PIN")
            .device("hsm")
            .vendor("CKR_PIN_INCORRECT")
            .next("run `signer keys unlock hsm` with the right PIN");
        assert_eq!(
            error.to_string(),
            "the token refused the PIN (device hsm, CKR_PIN_INCORRECT); 2 tries left; \
             run `signer keys unlock hsm` with the right PIN"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn kinds_travel_by_name() {
        for kind in ErrorKind::ALL {
            let back = ErrorKind::from_parts(kind.name(), kind.tries_left(), kind.retry_after());
            assert_eq!(back, Some(kind));
        }
        assert_eq!(ErrorKind::from_parts("NEW", None, None), None);
    }

    #[test]
    fn an_uncertain_change_is_not_retried() {
        let gone = Error::new(ErrorKind::DeviceGone, "the driver died");
        assert!(gone.is_retryable());
        assert!(!gone.may_have_happened().is_retryable());
    }
}
