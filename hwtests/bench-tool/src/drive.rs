//! The load: clients of a daemon, each with a connection of its own, that ask again as soon as they are answered.
//! They use the generated client on the connection of [`signerd_api::Client`], and send what that client sends.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use signer_core::{Digest, HashAlgorithm, Input, PublicKey, SignatureAlgorithm};
use signerd_api::{
    Client,
    pb::{
        self, sign_request, sign_stream_request, sign_stream_response,
        signer_service_client::SignerServiceClient,
    },
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::measure::{Load, Window};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Sign with a daemon's key over its socket
#[derive(Args, Clone, Debug)]
pub(crate) struct Drive {
    /// The daemon's socket
    #[arg(long)]
    socket: PathBuf,
    /// Reference of the key
    #[arg(long)]
    key: String,
    /// How to sign
    #[arg(long, default_value = "ecdsa-sha256")]
    algorithm: SignatureAlgorithm,
    /// How many clients, a connection each
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Sign over a SignStream with so many requests in flight a client; 0 for a call each
    #[arg(long, default_value_t = 0)]
    stream: usize,
    /// Threads of the runtime; 1 runs all clients on the main thread
    #[arg(long, default_value_t = 1)]
    runtime_threads: usize,
    #[command(flatten)]
    timing: crate::Timing,
}

/// How long a request may take, which the daemon is told.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Drive {
    pub(crate) fn run(&self) -> Result<Load> {
        runtime(self.runtime_threads)?.block_on(self.load())
    }

    async fn load(&self) -> Result<Load> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(Client::connect(&self.socket).await?);
        }
        let (_, info) = clients[0].key_info(&self.key).await?;
        let window = Window::new(self.timing.warm_up, self.timing.seconds, self.timing.watch);
        let observer = window.observe();
        let mut tasks: JoinSet<Result<Vec<u64>>> = JoinSet::new();
        for client in clients {
            let (this, public_key) = (self.clone(), info.public_key.clone());
            tasks.spawn(async move {
                let done = if this.stream > 0 {
                    this.stream(&client, window).await
                } else {
                    this.calls(&client, window).await
                };
                let (latencies, signature) = done?;
                this.verify(&public_key, &signature)?;
                Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        window.close(observer, latencies)
    }

    /// One call after the other; also gives the last signature.
    async fn calls(&self, client: &Client, window: Window) -> Result<(Vec<u64>, Vec<u8>)> {
        let mut rpc = client.service(SignerServiceClient::with_origin);
        let mut latencies = Vec::with_capacity(1 << 16);
        let mut signature = Vec::new();
        loop {
            let start = Instant::now();
            if start >= window.end {
                return Ok((latencies, signature));
            }
            let mut request = tonic::Request::new(pb::SignRequest {
                key: self.key.clone(),
                algorithm: self.algorithm.name().to_owned(),
                input: Some(sign_request::Input::Digest(crate::DIGEST.to_vec())),
            });
            request.set_timeout(TIMEOUT);
            signature = rpc.sign(request).await?.into_inner().signature;
            if start >= window.begin {
                latencies.push(start.elapsed().as_nanos() as u64);
            }
        }
    }

    /// A stream with its window full: each answer is followed by another request.
    async fn stream(&self, client: &Client, window: Window) -> Result<(Vec<u64>, Vec<u8>)> {
        let mut rpc = client.service(SignerServiceClient::with_origin);
        let (requests, receiver) = mpsc::unbounded_channel();
        let request = |id: u64, first: bool| pb::SignStreamRequest {
            key: if first { self.key.clone() } else { String::new() },
            algorithm: if first { self.algorithm.name().to_owned() } else { String::new() },
            id,
            input: Some(sign_stream_request::Input::Digest(crate::DIGEST.to_vec())),
        };
        let mut started = vec![Instant::now(); self.stream];
        for id in 0..self.stream {
            requests.send(request(id as u64, id == 0))?;
        }
        let mut requests = Some(requests);
        let mut latencies = Vec::with_capacity(1 << 16);
        let mut signature = Vec::new();
        let mut answers = rpc.sign_stream(UnboundedReceiverStream::new(receiver)).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            let now = Instant::now();
            let at = started.get_mut(answer.id as usize).ok_or("an answer with an id that nobody sent")?;
            signature = match answer.outcome {
                Some(sign_stream_response::Outcome::Signature(signature)) => signature,
                Some(sign_stream_response::Outcome::Error(error)) => return Err(error.what.into()),
                None => return Err("an answer without an outcome".into()),
            };
            if *at >= window.begin && now < window.end {
                latencies.push((now - *at).as_nanos() as u64);
            }
            *at = now;
            if now >= window.end {
                requests = None;
            }
            if let Some(requests) = &requests {
                requests.send(request(answer.id, false))?;
            }
        }
        Ok((latencies, signature))
    }

    fn verify(&self, key: &PublicKey, signature: &[u8]) -> Result<()> {
        let digest = Digest::new(HashAlgorithm::Sha256, &crate::DIGEST)?;
        key.verify(self.algorithm, &Input::Digest(digest), signature)
            .map_err(|e| format!("a signature of {} does not verify: {e}", self.key).into())
    }
}

/// A tokio runtime with so many threads; one is the calling thread itself.
pub(crate) fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if threads > 1 {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    }
}
