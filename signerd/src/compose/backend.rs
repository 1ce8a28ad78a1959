//! A backend that blocks, on threads where that hurts nobody.

use std::sync::Arc;

use signer_core::{
    Attest, Backend, BackendInfo, BoxFuture, Delete, Error, EventSink, Evidence, Generate, GenerateRequest,
    Import, ImportRequest, KeyInfo, KeyName, KeyPage, KeySelector, ListRequest, Result, Rotate, Signer,
    StoreCertificate, Unlock, UnlockRequest, Watch,
};

use super::offload::{blocking, wait};

/// Calls all methods of a backend on threads for blocking work.
pub(super) struct BlockingBackend(pub(super) Arc<dyn Backend>);

impl BlockingBackend {
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let backend = self.0.clone();
        Box::pin(blocking(move || work(&*backend)))
    }
}

/// An ability that was there a moment ago.
fn still<T>(ability: Option<T>) -> Result<T> {
    ability.ok_or_else(|| Error::internal("the backend has lost an ability"))
}

impl Backend for BlockingBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        self.run(|b| wait(b.describe()))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        self.run(|b| wait(b.list(request)))
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        let key = key.clone();
        self.run(move |b| wait(b.open(&key)))
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.run(|b| wait(b.health()))
    }

    fn generate(&self) -> Option<&dyn Generate> {
        self.0.generate().map(|_| self as _)
    }
    fn import(&self) -> Option<&dyn Import> {
        self.0.import().map(|_| self as _)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        self.0.delete().map(|_| self as _)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.0.rotate().map(|_| self as _)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        self.0.store_certificate().map(|_| self as _)
    }
    fn attest(&self) -> Option<&dyn Attest> {
        self.0.attest().map(|_| self as _)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        self.0.unlock().map(|_| self as _)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        self.0.watch().map(|_| self as _)
    }
}

impl Generate for BlockingBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        self.run(|b| wait(still(b.generate())?.generate(request)))
    }
}

impl Import for BlockingBackend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        self.run(|b| wait(still(b.import())?.import(request)))
    }
}

impl Delete for BlockingBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        let key = key.clone();
        self.run(move |b| wait(still(b.delete())?.delete(&key)))
    }
}

impl Rotate for BlockingBackend {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        let name = name.clone();
        self.run(move |b| wait(still(b.rotate())?.rotate(&name)))
    }
}

impl StoreCertificate for BlockingBackend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        let (key, certificate) = (key.clone(), certificate.to_vec());
        self.run(move |b| wait(still(b.store_certificate())?.store_certificate(&key, &certificate)))
    }
}

impl Attest for BlockingBackend {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        let key = key.clone();
        self.run(move |b| wait(still(b.attest())?.attest(&key)))
    }
}

impl Unlock for BlockingBackend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        self.run(|b| wait(still(b.unlock())?.unlock(request)))
    }
}

impl Watch for BlockingBackend {
    fn watch(&self, sink: EventSink) {
        if let Some(watch) = self.0.watch() {
            watch.watch(sink);
        }
    }
}
