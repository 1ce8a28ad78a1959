//! The certificate log: submission as RFC 6962 says, reading as C2SP `static-ct-api` says.

mod chain;
mod entry;
mod roots;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use signer_core::{Error, ErrorKind, Result, SignRequest, Signer};
use signer_log_engine::{Log, NoteKey, Submitted, digitally_signed, prove_stored, timestamped_entry};

pub(crate) use chain::Usages;
pub(crate) use roots::Roots;

use chain::Chain;
use entry::Submission;

/// The certificate log's rules, around the log.
#[derive(Clone)]
pub(crate) struct CertificateLog {
    pub(crate) log: Log,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) roots: Roots,
    pub(crate) usages: Arc<Usages>,
    pub(crate) patience: Duration,
    /// Issuers that are stored already, so that the disk is not asked each time.
    pub(crate) issuers: Arc<Mutex<HashSet<[u8; 32]>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddChain {
    chain: Vec<String>,
}

/// The certificates of a request.
fn read(body: &[u8]) -> Result<Vec<Vec<u8>>> {
    let request: AddChain = serde_json::from_slice(body)
        .map_err(|e| Error::bad_request("the request is not {\"chain\": [base64, …]}").vendor(e))?;
    if request.chain.len() > chain::MAX_LENGTH {
        return Err(Error::bad_request(format!(
            "the chain has more than {} certificates",
            chain::MAX_LENGTH
        )));
    }
    let decode = |text: &String| {
        STANDARD
            .decode(text)
            .map_err(|e| Error::bad_request("a certificate of the chain is not base64").vendor(e))
    };
    request.chain.iter().map(decode).collect()
}

/// A request, as far as it goes without a log; its last certificate is the only root.
#[cfg(fuzzing)]
pub(crate) fn fuzz(body: &[u8]) {
    let Ok(certificates) = read(body) else { return };
    let roots: Vec<_> = certificates.last().cloned().into_iter().collect();
    for precertificate in [false, true] {
        if let Ok(chain) = Chain::check(&certificates, precertificate, &roots, &Usages::default()) {
            let _ = chain.submission();
        }
    }
}

impl CertificateLog {
    /// `add-chain` and `add-pre-chain` (RFC 6962 sections 4.1 and 4.2): the answer, as JSON.
    pub(crate) async fn add(&self, body: Bytes, precertificate: bool) -> Result<String> {
        let (submission, issuers) = self.check(&body, precertificate)?;
        drop(body);
        tokio::time::timeout(self.patience, self.log_and_sign(submission, issuers)).await.unwrap_or_else(
            |_| {
                Err(Error::new(
                    ErrorKind::Busy { retry_after: Duration::from_secs(2) },
                    "the entry could not be published in time",
                )
                .next("ask again: what is in the log already gets the same timestamp"))
            },
        )
    }

    /// What of a request goes into the log, and the certificates of its issuers.
    fn check(&self, body: &[u8], precertificate: bool) -> Result<(Submission, Vec<Vec<u8>>)> {
        let certificates = read(body)?;
        let chain = Chain::check(&certificates, precertificate, &self.roots.accepted(), &self.usages)?;
        Ok((chain.submission()?, chain.issuers))
    }

    async fn log_and_sign(&self, submission: Submission, issuers: Vec<Vec<u8>>) -> Result<String> {
        // Whoever finds an entry must find its issuers: they are durable first.
        self.store_issuers(issuers).await?;
        let signed_entry = submission.signed_entry.clone();
        match self
            .log
            .submit(submission.identity(), Box::new(move |index, time| submission.entry(index, time)))
            .await?
        {
            Submitted::New(mut ticket) => {
                let Some((index, time)) = ticket.durable().await else {
                    return Err(ticket
                        .published()
                        .await
                        .err()
                        .unwrap_or_else(|| Error::internal("an entry was lost")));
                };
                // The timestamp is a promise: it is signed when the entry is durable, while the checkpoint is made, and
                // leaves when that is published.
                let extensions = entry::extensions(index);
                let (sct, published) =
                    tokio::join!(self.sct(time, &extensions, &signed_entry), ticket.published());
                published?;
                sct
            }
            // The same certificate gets the same timestamp.
            Submitted::Duplicate(index) => {
                let (log, published) = (self.log.clone(), self.log.published());
                let read = move || {
                    let tree = (published.checkpoint.size, &published.checkpoint.root);
                    Ok(prove_stored(&**log.storage(), log.format(), tree, index)?.1)
                };
                let leaf = tokio::task::spawn_blocking(read)
                    .await
                    .unwrap_or_else(|_| Err(Error::internal("a reader panicked")))?;
                let there = timestamped_entry(&leaf)
                    .ok_or_else(|| Error::internal("an entry of the log cannot be read"))?;
                self.sct(there.timestamp, there.extensions, &signed_entry).await
            }
        }
    }

    async fn store_issuers(&self, issuers: Vec<Vec<u8>>) -> Result<()> {
        let fingerprint = |der: &[u8]| entry::sha256(der);
        let new: Vec<_> = {
            let known = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
            issuers
                .into_iter()
                .map(|der| (fingerprint(&der), der))
                .filter(|(f, _)| !known.contains(f))
                .collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let (storage, known) = (self.log.storage().clone(), self.issuers.clone());
        let store = move || {
            for (fingerprint, der) in new {
                storage.put(&format!("issuer/{}", hex::encode(fingerprint)), &der)?;
                known.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(store).await.unwrap_or_else(|_| Err(Error::internal("a writer panicked")))
    }

    /// The signed certificate timestamp (RFC 6962 section 3.2), as `add-chain` answers it.
    async fn sct(&self, timestamp: u64, extensions: &[u8], signed_entry: &[u8]) -> Result<String> {
        let mut message = vec![0, 0];
        message.extend(timestamp.to_be_bytes());
        message.extend(signed_entry);
        message.extend((extensions.len() as u16).to_be_bytes());
        message.extend(extensions);
        // Not verified here, where that takes longer than the signature: whoever gets it does so before it is of any use, and
        // a wrong one harms nobody else. (A checkpoint is verified, because a wrong one would end the log.)
        let request = SignRequest::message(self.log.key().algorithm(), message);
        let signature = self.signer.sign(request).await?;
        let key = self.log.key().public_key();
        Ok(format!(
            r#"{{"sct_version":0,"id":"{}","timestamp":{timestamp},"extensions":"{}","signature":"{}"}}"#,
            STANDARD.encode(log_id(self.log.key())),
            STANDARD.encode(extensions),
            STANDARD.encode(digitally_signed(key.key_type(), signature.as_bytes()))
        ))
    }

    /// `get-roots` (RFC 6962 section 4.7).
    pub(crate) fn roots_as_json(&self) -> String {
        let accepted = self.roots.accepted();
        let all: Vec<_> = accepted.iter().map(|der| format!("\"{}\"", STANDARD.encode(der))).collect();
        format!(r#"{{"certificates":[{}]}}"#, all.join(","))
    }
}

/// The identifier of a certificate log (RFC 6962 section 3.2): the hash of its key.
pub(crate) fn log_id(key: &NoteKey) -> [u8; 32] {
    entry::sha256(key.public_key().as_der())
}
