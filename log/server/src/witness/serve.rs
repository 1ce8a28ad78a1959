//! Our own witness, over HTTP: `add-checkpoint`, and what was cosigned last.

use std::{net::SocketAddr, sync::Arc};

use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use signer_core::{Digest, Error, HashAlgorithm, Result};
use signer_log_engine::{Refused, Witness};
use tokio::{sync::watch, task::JoinSet};

use super::read_request;
use crate::{
    http::{self, Answer, Bodies, answer},
    serve::listen,
};

const TEXT: &str = "text/plain; charset=utf-8";
/// What a size stands in (C2SP `tlog-witness`).
const SIZE: &str = "text/x.tlog.size";

/// A witness that answers.
pub(crate) struct Served {
    witness: Arc<Witness>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Served {
    /// Begins to answer.
    pub(crate) fn start(witness: Arc<Witness>, address: SocketAddr) -> Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!(
            "the witness {} of {} is served on {address}",
            witness.key().to_vkey().unwrap_or_default(),
            witness.origin()
        );
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (served, bodies) = (witness.clone(), Arc::new(Bodies::default()));
        tasks.spawn(http::accept(listener, stopped, move |_, request| {
            handle(served.clone(), bodies.clone(), request)
        }));
        Ok(Self { witness, stop, tasks })
    }

    /// The witness itself.
    pub(crate) fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }

    /// Ends it: what is at work is finished.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn handle(witness: Arc<Witness>, bodies: Arc<Bodies>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/add-checkpoint") => match bodies.read(request.into_body()).await {
            Ok(body) => add_checkpoint(&witness, &body).await,
            Err((status, why)) => answer(status, TEXT, format!("{why}\n")),
        },
        (&Method::GET, "/healthz") => answer(StatusCode::OK, TEXT, "ok\n"),
        (&Method::GET, path) if path == checkpoint_path(witness.origin()) => match witness.latest().await {
            Ok(Some(note)) => {
                let mut answer = answer(StatusCode::OK, TEXT, note);
                answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                answer
            }
            Ok(None) => answer(StatusCode::NOT_FOUND, TEXT, "nothing was cosigned yet\n"),
            Err(e) => failed(&e),
        },
        _ => answer(StatusCode::NOT_FOUND, TEXT, "not found\n"),
    }
}

async fn add_checkpoint(witness: &Witness, body: &[u8]) -> Answer {
    let result = match read_request(body) {
        Ok((old, proof, note)) => witness.add(old, &proof, note).await,
        Err(e) => Err(Refused::Malformed(e)),
    };
    let refusal = match result {
        Ok(line) => return answer(StatusCode::OK, TEXT, line),
        Err(refusal) => refusal,
    };
    let why = refusal.error();
    let status = match refusal {
        Refused::Malformed(_) => StatusCode::BAD_REQUEST,
        Refused::Unknown => StatusCode::NOT_FOUND,
        Refused::Unsigned(_) => StatusCode::FORBIDDEN,
        Refused::Conflict(size) => return answer(StatusCode::CONFLICT, SIZE, format!("{size}\n")),
        Refused::Unproven(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Failed(e) => return failed(&e),
    };
    answer(status, TEXT, format!("{}\n", why.what()))
}

fn failed(e: &Error) -> Answer {
    tracing::warn!("a checkpoint cannot be cosigned: {e}");
    let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the witness cannot sign at the moment\n");
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Where the newest checkpoint of a log is found.
fn checkpoint_path(origin: &str) -> String {
    format!("/{}/checkpoint", hex::encode(Digest::of(HashAlgorithm::Sha256, origin.as_bytes()).as_bytes()))
}
