//! What a command ends with: an exit code, and a sentence when something failed.

use std::io;

use serde_json::{Value, json};
use signer_core::{Error, ErrorKind};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for is done.
    Done = 0,
    /// Verification or signing failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The daemon or device cannot be reached, or not now.
    Unreachable = 3,
    /// A grant, a PIN or the device forbids it.
    Denied = 4,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    exit: Exit,
}

impl Failure {
    /// Signing or verifying failed, whatever the kind of error.
    pub(crate) fn failed(error: Error) -> Self {
        Self { error, exit: Exit::Failed }
    }

    /// The command makes no sense as it was typed.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::from(Error::bad_request(what))
    }

    /// A file of this machine cannot be read or written.
    pub(crate) fn io(what: impl Into<String>, e: &io::Error) -> Self {
        Self::failed(Error::new(io_kind(e), what).vendor(e))
    }

    /// Adds what to do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { error: self.error.next(next), ..self }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// Whether the next file would fail in the same way.
    pub(crate) fn is_final(&self) -> bool {
        self.exit != Exit::Failed
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut error = error_json(&self.error);
        error["exit_code"] = json!(self.exit as u8);
        json!({ "error": error })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::TouchTimedOut
            | ErrorKind::Unsupported
            | ErrorKind::Internal => Exit::Failed,
            ErrorKind::BadRequest => Exit::Usage,
            ErrorKind::DeviceGone
            | ErrorKind::Busy { .. }
            | ErrorKind::Throttled { .. }
            | ErrorKind::TimedOut => Exit::Unreachable,
            ErrorKind::Denied | ErrorKind::PinRequired | ErrorKind::WrongPin { .. } | ErrorKind::Locked => {
                Exit::Denied
            }
        };
        Self { error, exit }
    }
}

/// An error as programs read it.
pub(crate) fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().name(),
        "message": error.to_string(),
        "what": error.what(),
        "key": error.key_name(),
        "device": error.device_name(),
        "vendor": error.vendor_code(),
        "next": error.advice(),
        "tries_left": error.kind().tries_left(),
        "retry_after_ms": error.kind().retry_after().map(|d| d.as_millis() as u64),
        "may_have_happened": error.is_uncertain(),
    })
}

fn io_kind(e: &io::Error) -> ErrorKind {
    match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let of = |kind| Failure::from(Error::new(kind, "x")).exit() as u8;
        assert_eq!(of(ErrorKind::NotFound), 1);
        assert_eq!(of(ErrorKind::BadRequest), 2);
        assert_eq!(of(ErrorKind::DeviceGone), 3);
        assert_eq!(of(ErrorKind::Denied), 4);
        assert_eq!(of(ErrorKind::WrongPin { tries_left: None }), 4);
    }

    #[test]
    fn an_error_object_has_kind_and_advice() {
        let json = Failure::from(Error::new(ErrorKind::DeviceGone, "away").next("wait")).to_json();
        assert_eq!(json["error"]["kind"], "DEVICE_GONE");
        assert_eq!(json["error"]["next"], "wait");
        assert_eq!(json["error"]["exit_code"], 3);
    }
}
