//! Work that would hold up everybody else goes to another thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use signer_core::{BoxFuture, Error, Input, KeyInfo, KeyType, Result, SignRequest, Signature, Signer};

use crate::allocator;

/// Longer messages are hashed, or signed, elsewhere: this many bytes take some 0.1 ms.
const LONG: usize = 128 * 1024;

/// Work that took longer has taken memory as well: scrypt, above all.
const LONG_WORK: Duration = Duration::from_millis(20);

/// Runs what blocks on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = || {
        let began = Instant::now();
        let result = work();
        if began.elapsed() > LONG_WORK {
            allocator::give_back();
        }
        result
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::internal("the request ended in a panic").vendor(e)))
}

/// Waits for a backend's future on a thread for blocking work.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}

/// A key whose slow work is done on other threads.
pub(crate) struct Offloaded {
    inner: Arc<dyn Signer>,
    /// Whether the signer itself works on the thread that polls it.
    blocks: bool,
    /// Whether a signature takes so little time that another thread would cost more.
    quick: bool,
    /// The first signature decrypts the key file, which takes long.
    warm: AtomicBool,
}

impl Offloaded {
    /// A key that works where it is polled.
    pub(super) fn all(inner: Arc<dyn Signer>) -> Self {
        let quick = matches!(inner.info().public_key.key_type(), KeyType::EcdsaP256 | KeyType::Ed25519);
        Self { inner, blocks: true, quick, warm: AtomicBool::new(false) }
    }

    /// A key that works in another process, once the message is hashed.
    pub(super) fn hashing(inner: Arc<dyn Signer>) -> Self {
        Self { inner, blocks: false, quick: true, warm: AtomicBool::new(true) }
    }

    async fn elsewhere(&self, request: SignRequest) -> Result<Signature> {
        let inner = self.inner.clone();
        let signature = blocking(move || wait(inner.sign(request))).await?;
        self.warm.store(true, Relaxed);
        Ok(signature)
    }
}

impl Signer for Offloaded {
    fn info(&self) -> &KeyInfo {
        self.inner.info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        let long = matches!(request.input(), Input::Message(m) if m.len() > LONG);
        if self.blocks && (long || !self.quick || !self.warm.load(Relaxed)) {
            return Box::pin(self.elsewhere(request));
        }
        if long && request.algorithm().prehash().is_some() {
            return Box::pin(async move {
                let hashed = blocking(move || Ok(request.hashed())).await?;
                self.inner.sign(hashed).await
            });
        }
        self.inner.sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        if !self.blocks {
            return self.inner.health();
        }
        let inner = self.inner.clone();
        Box::pin(blocking(move || wait(inner.health())))
    }
}
