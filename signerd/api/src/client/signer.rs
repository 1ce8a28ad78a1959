//! A key behind the daemon as a signer like any other.

use std::time::Instant;

use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::Client;

/// A key behind the daemon. Messages are hashed here, so that only a digest travels, unless the algorithm signs the
/// message itself.
pub struct RemoteSigner {
    client: Client,
    reference: String,
    info: KeyInfo,
}

impl RemoteSigner {
    pub(super) fn new(client: Client, reference: String, info: KeyInfo) -> Self {
        Self { client, reference, info }
    }

    /// The key as the daemon knows it: backend/key, version included, or its configured name where several places hold it.
    pub fn reference(&self) -> &str {
        &self.reference
    }
}

impl Signer for RemoteSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move {
            let request = request.hashed();
            let deadline = request.until().unwrap_or_else(|| Instant::now() + self.client.timeout);
            let (algorithm, input) = (request.algorithm(), request.input().clone());
            Ok(self.client.sign_until(&self.reference, Some(algorithm), input, deadline).await?.signature)
        })
    }

    /// Asks the daemon for this very key.
    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (_, now) = self.client.key_info(&self.reference).await?;
            if now.public_key == self.info.public_key {
                return Ok(());
            }
            Err(Error::new(ErrorKind::NotFound, "another key has this name now").key(&self.reference))
        })
    }
}

impl std::fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteSigner({})", self.reference)
    }
}
