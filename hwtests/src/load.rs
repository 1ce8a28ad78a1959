//! Clients that sign without a pause, and what they met.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use signer_core::{Digest, Error, Input, KeyType, PublicKey, SignatureAlgorithm, Signer};
use signerd_api::Client;
use tokio::task::JoinHandle;

/// Clients at work, each on a connection of its own; every signature is verified.
pub struct Load {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Call>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// One call that a client made.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which client.
    pub client: usize,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// How it ended; a signature that does not verify is an `Internal` error.
    pub outcome: Result<(), Error>,
}

impl Load {
    /// Starts so many clients that sign digests with a key of the daemon's.
    pub async fn start(client: impl Fn() -> Client, key: &str, clients: usize) -> Self {
        let signer = client().key(key).await.unwrap_or_else(|e| panic!("{key}: {e:?}"));
        let public_key = signer.info().public_key.clone();
        Self::launch(client, key, signer.info().default_algorithm(), Some(public_key), clients)
    }

    /// The same where the key cannot be asked for: signatures are not verified.
    pub fn start_blindly(client: impl Fn() -> Client, key: &str, key_type: KeyType, clients: usize) -> Self {
        Self::launch(client, key, key_type.default_algorithm(), None, clients)
    }

    fn launch(
        client: impl Fn() -> Client,
        key: &str,
        algorithm: SignatureAlgorithm,
        public_key: Option<PublicKey>,
        clients: usize,
    ) -> Self {
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let public_key = public_key.map(Arc::new);
        let tasks = (0..clients)
            .map(|at| {
                let worker = Worker {
                    client: client(),
                    key: key.to_owned(),
                    algorithm,
                    public_key: public_key.clone(),
                    at,
                    stop: stop.clone(),
                    log: log.clone(),
                };
                tokio::spawn(worker.run())
            })
            .collect();
        Self { stop, log, tasks }
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a call that began after `moment` has ended well.
    pub fn has_signed_after(&self, moment: Instant) -> bool {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().rev().take(64).any(|c| c.began >= moment && c.outcome.is_ok())
    }

    /// Ends the clients and gives every call. Panics when a client hangs.
    pub async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(40), task)
                .await
                .expect("a client hangs")
                .expect("a client panicked");
        }
        let calls = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(!calls.is_empty(), "no client got an answer at all");
        calls
    }
}

struct Worker {
    client: Client,
    key: String,
    algorithm: SignatureAlgorithm,
    public_key: Option<Arc<PublicKey>>,
    at: usize,
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Call>>>,
}

impl Worker {
    async fn run(self) {
        for round in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let input = input(self.algorithm, &format!("client {} round {round}", self.at));
            let began = Instant::now();
            let signed = self.client.sign(&self.key, Some(self.algorithm), input.clone()).await;
            let took = began.elapsed();
            let outcome = signed.and_then(|signed| match &self.public_key {
                Some(key) => key
                    .verify(self.algorithm, &input, signed.signature.as_bytes())
                    .map_err(|e| Error::internal("a signature does not verify").vendor(e)),
                None => Ok(()),
            });
            if outcome.is_err() {
                // As a patient client would; a tight loop of failures says nothing more.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let call = Call { client: self.at, began, took, outcome };
            self.log.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        }
    }
}

/// What a client sends for a message: its digest where there is one.
pub fn input(algorithm: SignatureAlgorithm, message: &str) -> Input {
    match algorithm.prehash() {
        Some(hash) => Input::Digest(Digest::of(hash, message.as_bytes())),
        None => Input::Message(message.to_owned().into()),
    }
}

/// The calls that failed.
pub fn failures(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|c| c.outcome.is_err()).collect()
}

/// When the first call ended well that began after `moment`.
pub fn first_success_after(calls: &[Call], moment: Instant) -> Option<Duration> {
    calls
        .iter()
        .filter(|c| c.outcome.is_ok() && c.began >= moment)
        .map(|c| (c.began + c.took).duration_since(moment))
        .min()
}
