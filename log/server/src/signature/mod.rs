//! The signature log: Rekor v2's API (sigstore/rekor-tiles) over HTTP and gRPC.

mod answer;
mod entry;
mod grpc;
mod json;
mod openapi;
mod verifier;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{Appended, Entry, Log, Submitted, leaf_hash};

pub(crate) use answer::Answer;
pub(crate) use entry::LogEntry;
pub(crate) use grpc::{code as grpc_code, service};
pub(crate) use openapi::DOCUMENT;
pub(crate) use verifier::Algorithms;

/// The messages and the server of Rekor v2, as they are generated from `proto/`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

/// The same by shorter names.
pub(crate) mod pb {
    pub(crate) use super::generated::{
        dev::sigstore::{common, rekor},
        google::api,
        io::intoto,
    };
}

/// The signature log's rules, around the log.
#[derive(Clone)]
pub(crate) struct SignatureLog {
    pub(crate) log: Log,
    pub(crate) options: Arc<Options>,
}

/// What an operator may choose.
#[derive(Debug)]
pub(crate) struct Options {
    /// What may have signed.
    pub(crate) algorithms: Algorithms,
    /// Whether the old DSSE requests are taken, which sigstore-js still sends.
    pub(crate) dsse: bool,
    /// Whether what is in the log already is answered with its proof, instead of 409 and its index.
    pub(crate) answer_duplicates: bool,
    /// How long a caller waits at most.
    pub(crate) patience: Duration,
}

/// Why a request has no entry to show.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The same entry is in the log, at this index.
    Duplicate(u64),
    /// Anything else.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl SignatureLog {
    /// Handles the JSON form of a request, which is not kept while its entry waits.
    pub(crate) async fn create_from_json(&self, body: Bytes) -> Result<Answer, Refusal> {
        let request = json::read(&body)?;
        drop(body);
        self.create(request).await
    }

    /// Checks a request, puts its entry into the log, and waits until a published checkpoint covers it.
    pub(crate) async fn create(&self, request: pb::rekor::v2::CreateEntryRequest) -> Result<Answer, Refusal> {
        let entry = LogEntry::from_request(request, &self.options)?;
        let body: Bytes = entry.body.into();
        let hash = leaf_hash(&body);
        let data = body.clone();
        let build = Box::new(move |_, _| {
            let mut bytes = Vec::with_capacity(data.len() + 2);
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(&data);
            Entry { data: bytes.into(), leaf_hash: hash }
        });
        let appended = tokio::time::timeout(self.options.patience, self.append(hash, build)).await;
        let appended = appended.unwrap_or_else(|_| Err(late().into()))?;
        Ok(Answer { appended, kind: entry.kind, log_id: *self.log.key().id(), body })
    }

    async fn append(&self, hash: [u8; 32], build: signer_log_engine::Build) -> Result<Appended, Refusal> {
        match self.log.submit(hash, build).await? {
            Submitted::New(ticket) => Ok(ticket.published().await?),
            Submitted::Duplicate(index) if self.options.answer_duplicates => {
                Ok(self.log.prove(index).await?)
            }
            Submitted::Duplicate(index) => Err(Refusal::Duplicate(index)),
        }
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Busy { retry_after: Duration::from_secs(2) },
        "the entry could not be published in time",
    )
    .next("it may be in the log all the same: ask again")
}

/// A request, as far as it goes without a log.
#[cfg(fuzzing)]
pub(crate) fn fuzz(body: &[u8]) {
    let options = Options {
        algorithms: Algorithms::default(),
        dsse: true,
        answer_duplicates: false,
        patience: Duration::ZERO,
    };
    if let Ok(request) = json::read(body) {
        let _ = LogEntry::from_request(request, &options);
    }
}
