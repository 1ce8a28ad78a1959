//! A stream of sign requests: many in flight, answered as they are ready, none of them a task of its own.
//!
//! The key and the caller's grants are looked up for the first request. They are looked up again when the
//! configuration was read again, or when keys of the backend have changed; then each request is answered by what holds
//! now.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use signer_core::{BoxFuture, Error, ErrorKind, Result, Signature, SignatureAlgorithm, Signer};
use signerd_api::{error_to_pb, pb, status_from_error};
use tonic::{Status, Streaming};

use super::{Asks, Wanted, nothing_to_sign, to_request};
use crate::{
    call::Call,
    compose::Policed,
    grants::Operations,
    state::{Daemon, State},
};

/// While so many bytes of messages are in flight, no more are read.
const MAX_BYTES: usize = 4 << 20;

/// The answers of one stream, and what it takes to make them.
pub(crate) struct Answers {
    daemon: Arc<Daemon>,
    call: Call,
    requests: Streaming<pb::SignStreamRequest>,
    /// Key and algorithm as the first request named them.
    first: Option<Arc<First>>,
    bound: Option<Arc<Bound>>,
    in_flight: FuturesUnordered<BoxFuture<'static, Outcome>>,
    bytes_in_flight: usize,
    window: usize,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Nothing more is read.
    ended: Option<Status>,
    done: bool,
}

struct First {
    key: String,
    algorithm: String,
}

/// What a key's name and algorithm led to.
struct Bound {
    state: Arc<State>,
    key: Policed,
    algorithm: SignatureAlgorithm,
}

impl Bound {
    async fn make(daemon: &Daemon, call: &Call, first: &First) -> Result<Arc<Self>> {
        let state = daemon.state();
        let key = state.signer(&call.caller, &first.key).await?.labelled(call);
        let algorithm = match first.algorithm.as_str() {
            "" => key.info().default_algorithm(),
            name => name.parse()?,
        };
        key.info().check(algorithm)?;
        if !key.allowed.contains(algorithm) {
            return Err(key.deny(Some(algorithm)).await);
        }
        Ok(Arc::new(Self { state, key, algorithm }))
    }

    fn holds(&self, daemon: &Daemon) -> bool {
        self.state.generation == daemon.generation() && self.key.entry.is_fresh()
    }
}

/// How one request ended.
struct Outcome {
    id: u64,
    bytes: usize,
    result: Result<Signature>,
    /// What the key was bound to for it, when that was done anew.
    bound: Option<Arc<Bound>>,
    /// The key could not be bound.
    unbound: bool,
}

impl Answers {
    pub(super) fn new(daemon: Arc<Daemon>, call: Call, requests: Streaming<pb::SignStreamRequest>) -> Self {
        let mut stopping = daemon.stopping.subscribe();
        Self {
            window: daemon.state().config.limits.stream_window,
            daemon,
            call,
            requests,
            first: None,
            bound: None,
            in_flight: FuturesUnordered::new(),
            bytes_in_flight: 0,
            stopping: Box::pin(async move {
                // An error means that the daemon is gone altogether.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }),
            ended: None,
            done: false,
        }
    }

    /// Reads what there is room for. Stops at the end of the stream and when the daemon stops.
    fn read(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none() && self.stopping.as_mut().poll(cx).is_ready() {
            self.ended = Some(status_from_error(
                &Error::new(ErrorKind::DeviceGone, "the daemon is being stopped")
                    .next("requests that have no answer can be made again when it is back"),
            ));
        }
        while self.ended.is_none() && self.has_room() {
            match self.requests.poll_next_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.ended = Some(Status::ok("")),
                Poll::Ready(Some(Err(status))) => self.ended = Some(status),
                Poll::Ready(Some(Ok(request))) => self.begin(request),
            }
        }
    }

    fn has_room(&self) -> bool {
        // Nothing is read ahead before the first request has shown which key it is, and that it may be used.
        let room = if self.bound.is_none() { 1 } else { self.window };
        self.in_flight.len() < room && self.bytes_in_flight < MAX_BYTES
    }

    fn begin(&mut self, request: pb::SignStreamRequest) {
        let (id, bytes, wanted) = (request.id, request_len(&request), request.input.map(Wanted::from));
        self.bytes_in_flight += bytes;
        self.call.held.set(self.bytes_in_flight);
        let limits = &self.daemon.state().config.limits;
        let deadline =
            if self.call.is_limited { self.call.deadline } else { Instant::now() + limits.default_deadline };
        let first = self
            .first
            .get_or_insert_with(|| Arc::new(First { key: request.key, algorithm: request.algorithm }));
        let future: BoxFuture<'static, Outcome> = match &self.bound {
            Some(bound) if bound.holds(&self.daemon) => {
                let (bound, daemon) = (bound.clone(), self.daemon.clone());
                let (call, first) = (self.call.until(deadline), first.clone());
                Box::pin(async move {
                    let result = bound.sign(&daemon, &call, &first, wanted).await;
                    Outcome { id, bytes, result, bound: None, unbound: false }
                })
            }
            _ => {
                let (daemon, first) = (self.daemon.clone(), first.clone());
                let call = self.call.until(deadline);
                Box::pin(async move {
                    let asks = Asks::to(Operations::SIGN, &first.key, "sign");
                    match daemon.with_pin(&call, asks, || Bound::make(&daemon, &call, &first)).await {
                        Ok(bound) => {
                            let result = bound.sign(&daemon, &call, &first, wanted).await;
                            Outcome { id, bytes, result, bound: Some(bound), unbound: false }
                        }
                        Err(error) => Outcome { id, bytes, result: Err(error), bound: None, unbound: true },
                    }
                })
            }
        };
        self.in_flight.push(future);
    }

    fn finish(&mut self, outcome: Outcome) -> Result<pb::SignStreamResponse, Status> {
        self.bytes_in_flight -= outcome.bytes;
        self.call.held.set(self.bytes_in_flight);
        let was_bound = self.bound.is_some();
        if outcome.bound.is_some() {
            self.bound = outcome.bound;
        }
        if outcome.unbound && !was_bound {
            // The stream never had a key.
            if let Err(error) = &outcome.result {
                self.done = true;
                return Err(status_from_error(error));
            }
        }
        Ok(pb::SignStreamResponse {
            id: outcome.id,
            outcome: Some(match outcome.result {
                Ok(signature) => pb::sign_stream_response::Outcome::Signature(signature.into_bytes()),
                Err(error) => {
                    tracing::debug!(caller = %self.call.caller, kind = error.kind().name(), "failed in a stream: {error}");
                    pb::sign_stream_response::Outcome::Error(error_to_pb(&error))
                }
            }),
        })
    }
}

impl Bound {
    async fn sign(
        &self,
        daemon: &Daemon,
        call: &Call,
        first: &First,
        wanted: Option<Wanted>,
    ) -> Result<Signature> {
        let wanted = wanted.ok_or_else(nothing_to_sign)?;
        let asks = Asks::to_sign(&first.key, self.algorithm.name(), &wanted);
        let request = to_request(&self.state, self.algorithm, wanted.clone())?.deadline(Some(call.deadline));
        daemon.with_pin(call, asks, || self.key.sign(request.clone())).await
    }
}

impl Stream for Answers {
    type Item = Result<pb::SignStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        this.read(cx);
        match this.in_flight.poll_next_unpin(cx) {
            Poll::Ready(Some(outcome)) => return Poll::Ready(Some(this.finish(outcome))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {}
        }
        let Some(status) = this.ended.take() else { return Poll::Pending };
        this.done = true;
        Poll::Ready(match status.code() {
            tonic::Code::Ok => None,
            _ => Some(Err(status)),
        })
    }
}

fn request_len(request: &pb::SignStreamRequest) -> usize {
    match &request.input {
        Some(pb::sign_stream_request::Input::Message(message)) => message.len(),
        Some(pb::sign_stream_request::Input::Digest(digest)) => digest.len(),
        None => 0,
    }
}

impl From<pb::sign_stream_request::Input> for Wanted {
    fn from(input: pb::sign_stream_request::Input) -> Self {
        match input {
            pb::sign_stream_request::Input::Message(message) => Self::Message(message),
            pb::sign_stream_request::Input::Digest(digest) => Self::Digest(digest),
        }
    }
}
