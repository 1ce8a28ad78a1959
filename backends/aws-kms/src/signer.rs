//! One key.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_kms::primitives::Blob;
use signer_core::{BoxFuture, Error, ErrorKind, Input, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::{
    fault::{self, Asked},
    key::{self, KmsKey},
    shared::Shared,
};

/// Signs with one KMS key.
pub(crate) struct KmsSigner {
    shared: Arc<Shared>,
    info: KeyInfo,
    key: KmsKey,
    /// How it was asked for: an alias may belong to another key later.
    asked: String,
    seen: Mutex<Seen>,
}

/// What was seen of the service, and when.
#[derive(Clone, Copy)]
struct Seen {
    /// The key, in a state in which it signs.
    key: Instant,
    /// Its public key.
    public_key: Instant,
    /// How many keys had been deleted by then.
    deletions: u64,
}

/// The longest message that the service signs itself.
pub(crate) const MAX_MESSAGE: usize = 4096;
/// A key that was seen in this time is not asked for again to prove its health: each question costs money. That it signs is
/// no proof: its alias may belong to another key by now.
const HEALTHY_FOR: Duration = Duration::from_secs(30);

impl KmsSigner {
    pub(crate) fn new(shared: Arc<Shared>, info: KeyInfo, key: KmsKey, asked: String) -> Self {
        let now = Instant::now();
        let seen = Mutex::new(Seen { key: now, public_key: now, deletions: shared.deletions() });
        Self { shared, info, key, asked, seen }
    }

    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        let algorithm = request.algorithm();
        self.info.check(algorithm)?;
        let message = match (request.to_digest(), request.input()) {
            (Some(digest), _) => digest.as_bytes().to_vec(),
            (None, Input::Message(message)) => checked(message)?.to_vec(),
            (None, Input::Digest(_)) => return Err(Error::internal("a digest where the message is signed")),
        };
        if request.until().is_some_and(|until| until <= Instant::now()) {
            return Err(fault::of_deadline());
        }
        if self.seen().public_key.elapsed() > self.shared.lifetime {
            self.compare_public_key().await?;
        }
        let message = Blob::new(message);
        let asked = Asked { action: "Sign", on: &self.key.arn, repeatable: true };
        let answer = self.shared.client.call(asked, request.until(), |c| {
            c.sign()
                .key_id(&self.key.arn)
                .signing_algorithm(key::spec(algorithm))
                .message_type(key::message_type(algorithm))
                .message(message.clone())
                .send()
        });
        let answer = answer.await?;
        if answer.key_id() != Some(&self.key.arn) {
            return Err(fault::of_lie("AWS KMS signed with another key than it was asked for"));
        }
        if answer.signing_algorithm() != Some(&key::spec(algorithm)) {
            return Err(fault::of_lie("AWS KMS signed with another algorithm than it was asked for"));
        }
        let signature = answer.signature().map(|s| s.as_ref().to_vec()).unwrap_or_default();
        let verified = signer_remote::verify(&self.info.public_key, algorithm, request.input(), &signature);
        if verified.await.is_ok() {
            return Ok(Signature::new(signature));
        }
        self.compare_public_key().await?;
        Err(Error::internal("AWS KMS gave a signature that does not verify")
            .next("it was not given out; check that nothing stands between that changes answers"))
    }

    /// The key is there, signs, and is still what was asked for.
    async fn look_again(&self) -> Result<()> {
        let deletions = self.shared.deletions();
        let now = self.shared.describe(&self.asked).await?;
        if now.arn != self.key.arn {
            return Err(Error::new(ErrorKind::NotFound, "the alias belongs to another key now")
                .next("open the key again"));
        }
        now.usable()?;
        self.update(|seen| {
            seen.key = Instant::now();
            seen.deletions = deletions;
        });
        Ok(())
    }

    async fn compare_public_key(&self) -> Result<()> {
        let now = self.shared.fetch_public_key(&self.key).await?;
        if now != self.info.public_key {
            return Err(Error::new(ErrorKind::NotFound, "the key has another public key now")
                .next("open the key again"));
        }
        self.update(|seen| seen.public_key = Instant::now());
        Ok(())
    }

    async fn health_now(&self) -> Result<()> {
        let seen = self.seen();
        if seen.key.elapsed() < HEALTHY_FOR && seen.deletions == self.shared.deletions() {
            return Ok(());
        }
        self.look_again().await
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, with: impl FnOnce(&mut Seen)) {
        with(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn about<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.key(&self.info.name).device(&self.shared.name))
    }
}

/// A message of a length that the service takes.
fn checked(message: &[u8]) -> Result<&[u8]> {
    let wrong = match message.len() {
        0 => "AWS KMS signs no empty message".to_owned(),
        n if n > MAX_MESSAGE => {
            format!("AWS KMS signs messages of up to {MAX_MESSAGE} bytes, not of {n}")
        }
        _ => return Ok(message),
    };
    Err(Error::bad_request(wrong).next("sign a digest: with ed25519ph, or a key of another kind"))
}

impl Signer for KmsSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.about(self.sign_now(request).await) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.about(self.health_now().await) })
    }
}
