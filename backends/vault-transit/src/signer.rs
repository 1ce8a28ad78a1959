//! One version of a key.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{BoxFuture, Error, ErrorKind, Input, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::{
    client::Client,
    key::{TransitKey, Version},
    sign,
};

/// What all keys of a backend share.
pub(crate) struct Shared {
    /// The configured name of the backend.
    pub(crate) name: String,
    pub(crate) client: Client,
    /// After so long a public key is read again.
    pub(crate) lifetime: Duration,
    pub(crate) max_message: u64,
}

/// Signs with one version of a transit key.
pub(crate) struct VaultSigner {
    shared: Arc<Shared>,
    info: KeyInfo,
    /// The transit key's name, and where it signs.
    key: String,
    sign_path: String,
    version: Version,
    /// Opened by the plain name: whatever is newest.
    follows: bool,
    /// When the server was asked for the public key last.
    seen: Mutex<Instant>,
}

impl Shared {
    /// Reads a key; `NotFound` for one that is not there or does not sign.
    pub(crate) async fn key(&self, name: &str) -> Result<TransitKey> {
        let path = self.client.path(&format!("keys/{name}"));
        TransitKey::read(name, &self.client.read(&path).await?)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the key of that name in the transit engine does not sign")
                .next("keys of the kinds ecdsa-*, rsa-*, ed25519 and ml-dsa sign, unless they are derived")
        })
    }
}

impl VaultSigner {
    /// A signer for a version that is in `key`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: &TransitKey,
        version: Version,
        info: KeyInfo,
        follows: bool,
    ) -> Self {
        Self {
            sign_path: shared.client.path(&format!("sign/{}", key.name)),
            key: key.name.clone(),
            shared,
            info,
            version,
            follows,
            seen: Mutex::new(Instant::now()),
        }
    }

    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        let algorithm = request.algorithm();
        self.info.check(algorithm)?;
        if let (None, Input::Message(message)) = (algorithm.prehash(), request.input())
            && message.len() as u64 > self.shared.max_message
        {
            return Err(Error::bad_request(format!(
                "the server takes messages of up to {} bytes to sign with {algorithm}, not of {}",
                self.shared.max_message,
                message.len()
            ))
            .next("sign a digest with another algorithm, or raise the limits of server and backend (max_message)"));
        }
        if self.seen().elapsed() > self.shared.lifetime {
            self.look_again().await?;
        }
        let body = sign::body(&request, self.version)?;
        let answer = self.shared.client.sign(&self.sign_path, body, request.until()).await?;
        let signature = sign::read(&answer, self.version)?;
        let verified =
            signer_remote::verify(&self.info.public_key, algorithm, request.input(), signature.as_bytes());
        if verified.await.is_ok() {
            return Ok(signature);
        }
        // Another key may have this name by now. That is for whoever opens it again.
        self.look_again().await?;
        Err(Error::internal("Vault gave a signature that does not verify")
            .next("it was not given out; check the server and what stands between"))
    }

    /// Proves that this version is there, with this public key, and newest where that is what was opened.
    async fn look_again(&self) -> Result<()> {
        let key = self.shared.key(&self.key).await?;
        let gone = |what| {
            Err(Error::new(ErrorKind::NotFound, what)
                .next("open the key again: it is another one by that name now"))
        };
        match key.versions.get(&self.version) {
            None => return gone("this version of the key is not there any more"),
            Some(now) if now.public_key != self.info.public_key => {
                return gone("the key has another public key now");
            }
            Some(_) => {}
        }
        if self.follows && key.latest != self.version {
            return gone("the key has a newer version now");
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }

    fn seen(&self) -> Instant {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn about<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| self.shared.client.here(e.key(&self.info.name)))
    }
}

impl Signer for VaultSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.about(self.sign_now(request).await) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.about(self.look_again().await) })
    }
}
