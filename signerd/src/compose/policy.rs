//! A caller's grants around a key.

use std::sync::Arc;

use signer_core::{BoxFuture, KeyInfo, Result, SignRequest, Signature, SignatureAlgorithm, Signer};

use crate::{
    grants::{AlgorithmSet, Operations, denied},
    identity::Identity,
    keys::Entry,
};

/// A key as one caller may use it.
pub(crate) struct Policed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) caller: Arc<Identity>,
    pub(crate) allowed: AlgorithmSet,
}

impl Policed {
    /// What the caller is told who asks for more than is granted.
    pub(crate) async fn deny(&self, algorithm: Option<SignatureAlgorithm>) -> signer_core::Error {
        let place = self.entry.place();
        place.metrics.denied(place.name(), Operations::SIGN);
        denied(&self.caller.describe().await, Operations::SIGN, self.entry.asked(), algorithm)
    }
}

impl Signer for Policed {
    fn info(&self) -> &KeyInfo {
        self.entry.signer().info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        let algorithm = request.algorithm();
        if !self.allowed.contains(algorithm) {
            return Box::pin(async move { Err(self.deny(Some(algorithm)).await) });
        }
        if let Err(error) = self.info().check(algorithm) {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.entry.signer().sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.entry.signer().health()
    }
}
