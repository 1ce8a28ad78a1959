//! Errors on the wire: one error type, two carriers (a gRPC status, and a message inside an answer).
//!
//! A status has a `google.rpc.ErrorInfo` with domain `signerd`, the kind's name as its reason and everything else that
//! the error says as metadata; `Busy` and `Throttled` have a `google.rpc.RetryInfo` too.

use std::{collections::HashMap, error::Error as _, time::Duration};

use signer_core::{Error, ErrorKind};
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt};

use crate::pb;

const DOMAIN: &str = "signerd";

/// The longest text of one part of an error on the wire, in bytes: trailers have to fit into a header list.
const MAX_TEXT: usize = 4096;

/// The gRPC code that stands for a kind of error, for callers that look at nothing else.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::PinRequired | ErrorKind::WrongPin { .. } | ErrorKind::Locked => Code::FailedPrecondition,
        ErrorKind::TouchTimedOut | ErrorKind::TimedOut => Code::DeadlineExceeded,
        ErrorKind::DeviceGone => Code::Unavailable,
        ErrorKind::Busy { .. } | ErrorKind::Throttled { .. } => Code::ResourceExhausted,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::BadRequest => Code::InvalidArgument,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The status that an error travels as.
pub fn status_from_error(error: &Error) -> Status {
    let mut metadata = HashMap::from([("what".to_owned(), shortened(error.what()))]);
    let parts = [
        ("key", error.key_name()),
        ("device", error.device_name()),
        ("next", error.advice()),
        ("vendor", error.vendor_code()),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), shortened(value));
        }
    }
    if let Some(tries) = error.kind().tries_left() {
        metadata.insert("tries_left".to_owned(), tries.to_string());
    }
    if error.is_uncertain() {
        metadata.insert("may_have_happened".to_owned(), "true".to_owned());
    }
    let mut details = ErrorDetails::with_error_info(error.kind().name(), DOMAIN, metadata);
    if let Some(after) = error.kind().retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code(error.kind()), shortened(&error.to_string()), details)
}

/// The error that a status stands for: the very one that [`status_from_error`] was given, or what is known when the
/// status came from elsewhere (the transport, another version's daemon).
pub fn error_from_status(status: &Status) -> Error {
    let Some(mut info) = status.get_details_error_info().filter(|i| i.domain == DOMAIN) else {
        return foreign(status);
    };
    let tries_left = info.metadata.get("tries_left").and_then(|t| t.parse().ok());
    let retry_after = status.get_details_retry_info().and_then(|r| r.retry_delay);
    let kind = ErrorKind::from_parts(&info.reason, tries_left, retry_after).unwrap_or(ErrorKind::Internal);
    let mut part = |name: &str| info.metadata.remove(name);
    let what = part("what").unwrap_or_else(|| status.message().to_owned());
    let uncertain = part("may_have_happened").is_some_and(|v| v == "true");
    assemble(kind, what, [part("key"), part("device"), part("next"), part("vendor")], uncertain)
}

/// Whether a status says that the connection to the daemon failed, and not that the daemon answered.
pub(crate) fn is_connection_loss(status: &Status) -> bool {
    if status.details().is_empty() {
        return !is_timeout(status)
            && (status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled));
    }
    false
}

/// A status without our details.
fn foreign(status: &Status) -> Error {
    let message = status.message();
    // Why there is no connection at all, from the client's own connection.
    if let Some(error) = sources(status).find_map(|e| e.downcast_ref::<Error>()) {
        return error.clone();
    }
    if is_timeout(status) || status.code() == Code::DeadlineExceeded {
        return late();
    }
    if is_connection_loss(status) {
        return Error::new(ErrorKind::DeviceGone, "the connection to the daemon was lost")
            .vendor(shortened(message))
            .next("try again; `signer status` says whether signerd is running");
    }
    let (kind, what) = match status.code() {
        Code::NotFound => (ErrorKind::NotFound, message),
        Code::AlreadyExists => (ErrorKind::AlreadyExists, message),
        Code::PermissionDenied | Code::Unauthenticated => (ErrorKind::Denied, message),
        Code::InvalidArgument => (ErrorKind::BadRequest, message),
        Code::OutOfRange => (ErrorKind::BadRequest, "the message is longer than the daemon takes"),
        Code::ResourceExhausted => (ErrorKind::Busy { retry_after: Duration::from_millis(100) }, message),
        Code::Unimplemented => (ErrorKind::Unsupported, "the daemon does not know this call"),
        _ => (ErrorKind::Internal, message),
    };
    let what = if what.is_empty() { "the daemon answered with an error" } else { what };
    let error = Error::new(kind, shortened(what)).vendor(format_args!("gRPC status {:?}", status.code()));
    match status.code() {
        Code::Unimplemented => error.next("update signerd, or check that the socket is signerd's"),
        _ => error,
    }
}

/// Nothing was heard from the daemon until the deadline.
pub(crate) fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "the daemon did not answer in time")
        .next("try again, or allow more time with --timeout")
}

/// Whether this side stopped waiting.
fn is_timeout(status: &Status) -> bool {
    sources(status).any(<dyn std::error::Error>::is::<TimeoutExpired>)
}

pub(crate) fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |e| (**e).source())
}

/// An error as it travels inside an answer.
pub fn error_to_pb(error: &Error) -> pb::Error {
    pb::Error {
        kind: error.kind().name().to_owned(),
        what: shortened(error.what()),
        key: error.key_name().map(shortened),
        device: error.device_name().map(shortened),
        next: error.advice().map(shortened),
        vendor: error.vendor_code().map(shortened),
        may_have_happened: error.is_uncertain(),
        tries_left: error.kind().tries_left(),
        retry_after_ms: error.kind().retry_after().map(|d| d.as_millis() as u64),
    }
}

/// The error that travelled inside an answer. A kind that this version does not know becomes `Internal`.
pub fn error_from_pb(error: pb::Error) -> Error {
    let retry_after = error.retry_after_ms.map(Duration::from_millis);
    let kind =
        ErrorKind::from_parts(&error.kind, error.tries_left, retry_after).unwrap_or(ErrorKind::Internal);
    assemble(kind, error.what, [error.key, error.device, error.next, error.vendor], error.may_have_happened)
}

/// `parts` are key, device, next and vendor.
fn assemble(kind: ErrorKind, what: String, parts: [Option<String>; 4], uncertain: bool) -> Error {
    let [key, device, next, vendor] = parts;
    let mut error = Error::new(kind, what);
    if let Some(key) = key {
        error = error.key(key);
    }
    if let Some(device) = device {
        error = error.device(device);
    }
    if let Some(next) = next {
        error = error.next(next);
    }
    if let Some(vendor) = vendor {
        error = error.vendor(vendor);
    }
    if uncertain { error.may_have_happened() } else { error }
}

fn shortened(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let mut end = MAX_TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = ErrorKind> {
        let parts = (0..ErrorKind::ALL.len(), any::<Option<u32>>(), 0..100_000_u64);
        parts.prop_map(|(at, tries, ms)| {
            let name = ErrorKind::ALL[at].name();
            ErrorKind::from_parts(name, tries, Some(Duration::from_millis(ms))).unwrap()
        })
    }

    proptest! {
        #[test]
        fn every_error_comes_back_as_it_was(
            kind in kinds(),
            what in "\\PC{0,300}",
            parts in proptest::array::uniform4(proptest::option::of("\\PC{0,100}")),
            uncertain: bool,
        ) {
            let error = assemble(kind, what, parts, uncertain);
            prop_assert_eq!(error_from_pb(error_to_pb(&error)), error.clone());
            let status = status_from_error(&error);
            prop_assert_eq!(error_from_status(&status), error.clone());
            prop_assert!(!is_connection_loss(&status));
            // Through the headers that it travels in.
            let headers = status.into_http::<()>().into_parts().0.headers;
            let back = Status::from_header_map(&headers).unwrap();
            prop_assert_eq!(error_from_status(&back), error);
        }

        #[test]
        fn foreign_details_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), code in 0..20_i32) {
            let status = Status::with_details(Code::from(code), "x", bytes.into());
            let _ = error_from_status(&status);
        }
    }

    #[test]
    fn every_kind_has_its_code_and_busy_says_when() {
        for kind in ErrorKind::ALL {
            let status = status_from_error(&Error::new(kind, "x").key("k"));
            assert_ne!(status.code(), Code::Unknown);
            assert_eq!(status.get_details_retry_info().is_some(), kind.retry_after().is_some());
            assert_eq!(status.get_details_error_info().unwrap().reason, kind.name());
        }
    }

    #[test]
    fn a_status_of_the_transport_says_what_happened() {
        let lost = error_from_status(&Status::unavailable("tcp connect error"));
        assert_eq!(lost.kind(), ErrorKind::DeviceGone);
        assert!(lost.to_string().contains("daemon"), "{lost}");
        let late = error_from_status(&Status::from_error(Box::new(TimeoutExpired(()))));
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        let old = error_from_status(&Status::unimplemented(""));
        assert_eq!(old.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_error_as_long_as_a_novel_still_fits() {
        let status = status_from_error(&Error::bad_request("ä".repeat(1_000_000)));
        assert!(status.details().len() < 10_000);
        assert!(error_from_status(&status).what().ends_with('…'));
    }
}
