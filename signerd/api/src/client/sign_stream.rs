//! Many signatures with one key over one stream: many on their way at once, answers as they are ready.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use signer_core::{Error, ErrorKind, Input, Result, SignRequest, Signature, SignatureAlgorithm};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::{Rpc, check_len};
use crate::{error_from_pb, error_from_status, pb};

/// A stream of sign requests with one key and algorithm. Cheap to clone; [`SignStream::sign`] may be called by many
/// tasks at once. The stream ends when the last clone is dropped.
#[derive(Clone)]
pub struct SignStream {
    shared: Arc<Shared>,
    outbound: mpsc::Sender<pb::SignStreamRequest>,
}

struct Shared {
    key: String,
    algorithm: SignatureAlgorithm,
    /// A permit for each request that may be on its way.
    window: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    requests: HashMap<u64, Request>,
    /// Why the stream is over.
    ended: Option<Error>,
}

struct Request {
    answer: oneshot::Sender<Result<Signature>>,
    /// Held until the daemon has answered, even when the caller has given up: that is what bounds the window.
    _permit: OwnedSemaphorePermit,
}

impl SignStream {
    pub(super) fn open(rpc: Rpc, key: &str, algorithm: SignatureAlgorithm, window: usize) -> Self {
        let window = window.max(1);
        let (outbound, requests) = mpsc::channel(window);
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            algorithm,
            window: Arc::new(Semaphore::new(window)),
            waiting: Mutex::default(),
        });
        tokio::spawn(read(rpc, requests, shared.clone()));
        Self { shared, outbound }
    }

    /// Signs; the request's algorithm must be the stream's. Waits while as many requests as the window allows are on
    /// their way. When the stream has ended, every call returns why; open another one then.
    pub async fn sign(&self, request: SignRequest) -> Result<Signature> {
        if request.algorithm() != self.shared.algorithm {
            return Err(Error::bad_request(format!(
                "this stream signs with {}, not with {}",
                self.shared.algorithm,
                request.algorithm()
            )));
        }
        let request = request.hashed();
        check_len(request.input(), &self.shared.key)?;
        let Some(deadline) = request.until() else { return self.submit(&request).await };
        tokio::time::timeout_at(deadline.into(), self.submit(&request))
            .await
            .map_err(|_| Error::new(ErrorKind::TimedOut, "the daemon did not answer in time"))?
    }

    async fn submit(&self, request: &SignRequest) -> Result<Signature> {
        let permit = self.shared.window.clone().acquire_owned().await.map_err(|_| ended())?;
        let input = match request.input() {
            Input::Message(message) => pb::sign_stream_request::Input::Message(message.clone()),
            Input::Digest(digest) => pb::sign_stream_request::Input::Digest(digest.as_bytes().to_vec()),
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if let Some(error) = &waiting.ended {
                return Err(error.clone());
            }
            let id = waiting.next_id;
            waiting.next_id += 1;
            // Only the first message names key and algorithm; the lock keeps it the first.
            let first = |text: &str| if id == 0 { text.to_owned() } else { String::new() };
            let message = pb::SignStreamRequest {
                key: first(&self.shared.key),
                algorithm: first(self.shared.algorithm.name()),
                id,
                input: Some(input),
            };
            // There is room: a message in the channel holds a permit.
            self.outbound.try_send(message).map_err(|_| ended())?;
            waiting.requests.insert(id, Request { answer, _permit: permit });
        }
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, error: &Error) {
        let mut waiting = self.waiting();
        waiting.ended = Some(error.clone());
        for (_, request) in waiting.requests.drain() {
            let _ = request.answer.send(Err(error.clone()));
        }
    }
}

async fn read(mut rpc: Rpc, requests: mpsc::Receiver<pb::SignStreamRequest>, shared: Arc<Shared>) {
    let mut answers = match rpc.sign_stream(ReceiverStream::new(requests)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return shared.end(&error_from_status(&status)),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let Some(request) = shared.waiting().requests.remove(&answer.id) else { continue };
                let _ = request.answer.send(match answer.outcome {
                    Some(pb::sign_stream_response::Outcome::Signature(bytes)) => Ok(Signature::new(bytes)),
                    Some(pb::sign_stream_response::Outcome::Error(error)) => Err(error_from_pb(error)),
                    None => Err(Error::internal("the daemon's answer has neither a signature nor an error")),
                });
            }
            Ok(None) => return shared.end(&ended()),
            Err(status) => return shared.end(&error_from_status(&status)),
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::DeviceGone, "the daemon ended the stream").next("open another one")
}

impl std::fmt::Debug for SignStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignStream({}, {})", self.shared.key, self.shared.algorithm)
    }
}
