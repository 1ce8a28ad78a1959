//! What is known of a call before it is looked at: who calls, until when an answer is of use, and the memory that its
//! messages take.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap,
    body::{Body, Frame, SizeHint},
};
use signer_core::{Error, ErrorKind};
use signerd_api::status_from_error;
use tonic::Status;

use crate::{config::Limits, identity::Identity};

/// A call's circumstances.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) caller: Arc<Identity>,
    pub(crate) deadline: Instant,
    /// Whether the caller said until when.
    pub(crate) is_limited: bool,
    pub(crate) held: Arc<Held>,
    /// The headers with its label, where it brought one.
    label: Option<Arc<HeaderMap>>,
}

impl Call {
    /// The circumstances of a request that came through the daemon's server.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().expect("the server puts a Call into every request")
    }

    pub(crate) fn new(
        caller: &Arc<Identity>,
        headers: &HeaderMap,
        limits: &Limits,
        memory: &Arc<AtomicUsize>,
    ) -> Self {
        let given = headers.get("grpc-timeout").and_then(|v| parse_timeout(v.as_bytes()));
        let timeout = given.map_or(limits.default_deadline, |t| t.min(limits.max_deadline));
        Self {
            caller: caller.clone(),
            deadline: Instant::now() + timeout,
            is_limited: given.is_some(),
            held: Arc::new(Held { all: memory.clone(), limit: limits.max_memory, here: AtomicUsize::new(0) }),
            label: signerd_api::has_label(headers).then(|| Arc::new(headers.clone())),
        }
    }

    /// The same with another deadline: a stream's requests have one each.
    pub(crate) fn until(&self, deadline: Instant) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// What the caller says that it is for.
    pub(crate) fn label(&self) -> Option<String> {
        signerd_api::label_of(self.label.as_ref()?)
    }
}

/// `TimeoutValue TimeoutUnit` of the gRPC over HTTP/2 specification: at most eight digits, and one of `HMSmun`.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 =
        std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Bytes of a call's messages that are held. Short messages are not counted.
pub(crate) struct Held {
    all: Arc<AtomicUsize>,
    limit: usize,
    here: AtomicUsize,
}

/// Up to here a call's bytes are not counted.
const SHORT: usize = 64 * 1024;

impl Held {
    fn add(&self, bytes: usize) -> Result<(), Status> {
        let before = self.here.fetch_add(bytes, Relaxed);
        let more = counted(before + bytes) - counted(before);
        if more == 0 || self.all.fetch_add(more, Relaxed) + more <= self.limit {
            return Ok(());
        }
        let kind = ErrorKind::Busy { retry_after: Duration::from_millis(200) };
        Err(status_from_error(
            &Error::new(kind, "the daemon holds as many long messages as it may")
                .next("try again later, have a digest signed instead, or raise max_memory in [limits]"),
        ))
    }

    /// From now on so many bytes are held: a stream has handed a message on.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.here.swap(bytes, Relaxed);
        let (before, now) = (counted(before), counted(bytes));
        self.all.fetch_add(now, Relaxed);
        self.all.fetch_sub(before, Relaxed);
    }
}

fn counted(bytes: usize) -> usize {
    if bytes > SHORT { bytes } else { 0 }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A request's body, counted.
pub(crate) struct Counted<B> {
    body: B,
    held: Arc<Held>,
}

impl<B> Counted<B> {
    pub(crate) fn new(body: B, held: Arc<Held>) -> Self {
        Self { body, held }
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => match self.held.add(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Some(Ok(frame)),
                Err(status) => Some(Err(status)),
            },
            Some(Err(error)) => Some(Err(Status::from_error(Box::new(error)))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_specified() {
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in [&b""[..], b"S", b"1", b"-1S", b"1X", b"123456789S", b"+1S", "1µ".as_bytes()] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn long_messages_are_counted_and_let_go() {
        let all = Arc::new(AtomicUsize::new(0));
        let held = |limit| Held { all: all.clone(), limit, here: AtomicUsize::new(0) };
        let short = held(0);
        short.add(SHORT).unwrap();
        assert_eq!(all.load(Relaxed), 0);
        assert!(short.add(1).is_err());
        drop(short);
        assert_eq!(all.load(Relaxed), 0);
        let long = held(1 << 20);
        long.add(1 << 20).unwrap();
        assert!(held(1 << 20).add(1 << 17).is_err());
        long.set(0);
        assert_eq!(all.load(Relaxed), 0);
    }
}
