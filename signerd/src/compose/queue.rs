//! A place in the backend's queue, and what is measured around it.

use std::{sync::Arc, time::Instant};

use signer_core::{BoxFuture, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::{metrics::KeyMetrics, place::Place};

/// Takes a place in the backend's bounded queue for as long as a request lasts.
pub(crate) struct Queued {
    pub(super) place: Arc<Place>,
    pub(super) inner: Arc<dyn Signer>,
}

impl Signer for Queued {
    fn info(&self) -> &KeyInfo {
        self.inner.info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move {
            let _ticket = self.place.enter()?;
            self.inner.sign(request).await
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }
}

/// Counts and times signatures.
pub(crate) struct Metered {
    pub(super) place: Arc<Place>,
    pub(super) metrics: KeyMetrics,
    pub(super) inner: Queued,
}

impl Signer for Metered {
    fn info(&self) -> &KeyInfo {
        self.inner.info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.inner.sign(request).await;
            match &result {
                Ok(_) => {
                    self.place.succeeded();
                    self.metrics.signed(began.elapsed());
                }
                Err(error) => {
                    self.place.failed(error);
                    self.metrics.failed(began.elapsed(), error);
                }
            }
            result
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }
}
