//! A part of a place that looks like a whole one: without the keys that were there before, and with a word before each name where
//! names are not free again.

use std::sync::Arc;

use signer_core::{
    Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Evidence, Generate, GenerateRequest,
    Import, ImportRequest, KeyInfo, KeyName, KeyPage, KeySelector, ListRequest, Result, Rotate, SignRequest,
    Signature, Signer, StoreCertificate, Unlock, UnlockRequest, Watch,
};

pub(super) struct Scoped {
    pub(super) inner: Arc<dyn Backend>,
    pub(super) hidden: Vec<KeyName>,
    pub(super) prefix: Option<String>,
}

impl Scoped {
    /// As the place knows it.
    fn outward(&self, name: &KeyName) -> Result<KeyName> {
        let Some((prefix, label)) = self.prefix.as_ref().zip(name.as_label()) else {
            return Ok(name.clone());
        };
        let longer = KeyName::label(format!("{prefix}{label}"))?;
        name.version().map_or(Ok(longer.clone()), |version| longer.with_version(version))
    }

    /// As the check knows it.
    fn inward(&self, mut info: KeyInfo) -> Option<KeyInfo> {
        if self.hidden.contains(&info.name) {
            return None;
        }
        if let Some((prefix, label)) = self.prefix.as_ref().zip(info.name.as_label()) {
            let shorter = KeyName::label(label.strip_prefix(prefix.as_str())?).ok()?;
            info.name = match info.name.version() {
                Some(version) => shorter.with_version(version).ok()?,
                None => shorter,
            };
        }
        Some(info)
    }

    fn made(&self, info: KeyInfo) -> Result<KeyInfo> {
        self.inward(info).ok_or_else(|| Error::internal("a key was made that was there before"))
    }

    fn selected(&self, key: &KeySelector) -> Result<KeySelector> {
        match key {
            KeySelector::Name(name) if self.is_hidden(name) => Err(not_found()),
            KeySelector::Name(name) => Ok(KeySelector::Name(self.outward(name)?)),
            KeySelector::Address(address) => Ok(KeySelector::Address(address.clone())),
        }
    }

    fn is_hidden(&self, name: &KeyName) -> bool {
        self.prefix.is_none() && self.hidden.iter().any(|h| h == name || h.clone().without_version() == *name)
    }
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key among those of the check")
}

impl Backend for Scoped {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        self.inner.describe()
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move {
            let keys = super::list(&*self.inner).await?;
            Ok(KeyPage::cut(keys.into_iter().filter_map(|key| self.inward(key)).collect(), &request))
        })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            let inner = self.inner.open(&self.selected(key)?).await?;
            let info = self.inward(inner.info().clone()).ok_or_else(not_found)?;
            Ok(Arc::new(ScopedSigner { inner, info }) as Arc<dyn Signer>)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn generate(&self) -> Option<&dyn Generate> {
        self.inner.generate().map(|_| self as _)
    }
    fn import(&self) -> Option<&dyn Import> {
        self.inner.import().map(|_| self as _)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        self.inner.delete().map(|_| self as _)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.inner.rotate().map(|_| self as _)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        self.inner.store_certificate().map(|_| self as _)
    }
    fn attest(&self) -> Option<&dyn Attest> {
        self.inner.attest().map(|_| self as _)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        self.inner.unlock().map(|_| self as _)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        self.inner.watch()
    }
}

/// An ability that was there when it was asked for.
fn still<T>(ability: Option<T>) -> Result<T> {
    ability.ok_or_else(|| Error::internal("the backend has lost an ability"))
}

impl Generate for Scoped {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let request = GenerateRequest { name: self.outward(&request.name)?, ..request };
            self.made(still(self.inner.generate())?.generate(request).await?)
        })
    }
}

impl Import for Scoped {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let request = ImportRequest { name: self.outward(&request.name)?, ..request };
            self.made(still(self.inner.import())?.import(request).await?)
        })
    }
}

impl Delete for Scoped {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { still(self.inner.delete())?.delete(&self.selected(key)?).await })
    }
}

impl Rotate for Scoped {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move {
            if self.is_hidden(name) {
                return Err(not_found());
            }
            self.made(still(self.inner.rotate())?.rotate(&self.outward(name)?).await?)
        })
    }
}

impl StoreCertificate for Scoped {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            still(self.inner.store_certificate())?.store_certificate(&self.selected(key)?, certificate).await
        })
    }
}

impl Attest for Scoped {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        Box::pin(async move { still(self.inner.attest())?.attest(&self.selected(key)?).await })
    }
}

impl Unlock for Scoped {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { still(self.inner.unlock())?.unlock(request).await })
    }
}

/// A key by the name that the check knows.
struct ScopedSigner {
    inner: Arc<dyn Signer>,
    info: KeyInfo,
}

impl Signer for ScopedSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        self.inner.sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }
}
