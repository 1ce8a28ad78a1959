//! A backend behind the daemon as a backend like any other: the same trait on both sides.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signer_core::{
    Ability, Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Event, EventSink, Evidence,
    Generate, GenerateRequest, Import, ImportRequest, KeyInfo, KeyName, KeyPage, KeySelector, ListRequest,
    Result, Rotate, Signer, StoreCertificate, Unlock, UnlockRequest, Watch,
};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{BackendStatus, Client, RemoteSigner};

/// A backend behind the daemon. It has the abilities that the daemon reported when it was opened.
pub struct RemoteBackend {
    client: Client,
    opened: BackendStatus,
    runtime: Handle,
    /// Tasks that forward events; they end with the backend.
    watchers: Mutex<Vec<AbortHandle>>,
}

impl RemoteBackend {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(client: Client, opened: BackendStatus) -> Self {
        Self { client, opened, runtime: Handle::current(), watchers: Mutex::default() }
    }

    fn reference(&self, key: &KeySelector) -> String {
        match key {
            KeySelector::Name(name) => format!("{}/{name}", self.opened.name),
            KeySelector::Address(address) => address.to_string(),
        }
    }

    /// The ability itself, if the daemon reported it.
    fn offers<T>(&self, ability: Ability, this: T) -> Option<T> {
        self.opened.abilities.contains(&ability).then_some(this)
    }

    /// An address may point into another backend: then there is no such key here.
    async fn find(&self, key: &KeySelector) -> Result<RemoteSigner> {
        let reference = self.reference(key);
        let found = self.client.describe(&reference).await?;
        if found.backend == self.opened.name {
            return Ok(RemoteSigner::new(self.client.clone(), found.reference, found.info));
        }
        Err(Error::new(ErrorKind::NotFound, "there is no such key").key(reference).device(&self.opened.name))
    }

    /// The reference of a key that is to be changed: an address is resolved first, so that no other backend's key is.
    async fn changeable(&self, key: &KeySelector) -> Result<String> {
        match key {
            KeySelector::Name(_) => Ok(self.reference(key)),
            KeySelector::Address(_) => Ok(self.find(key).await?.reference().to_owned()),
        }
    }
}

impl Backend for RemoteBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move {
            let status = self.client.backend_status(&self.opened.name).await?;
            match status.health {
                Some(error) if error.kind() == ErrorKind::DeviceGone => Err(error),
                _ => Ok(status.info),
            }
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move {
            let list = self.client.keys(Some(&self.opened.name), request).await?;
            if let Some((_, error)) = list.unavailable.into_iter().next() {
                return Err(error);
            }
            Ok(KeyPage { keys: list.keys.into_iter().map(|(_, key)| key).collect(), next: list.next })
        })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move { Ok(Arc::new(self.find(key).await?) as Arc<dyn Signer>) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let status = self.client.backend_status(&self.opened.name).await?;
            status.health.map_or(Ok(()), Err)
        })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        self.offers(Ability::Generate, self)
    }
    fn import(&self) -> Option<&dyn Import> {
        self.offers(Ability::Import, self)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        self.offers(Ability::Delete, self)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.offers(Ability::Rotate, self)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        self.offers(Ability::StoreCertificate, self)
    }
    fn attest(&self) -> Option<&dyn Attest> {
        self.offers(Ability::Attest, self)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        self.offers(Ability::Unlock, self)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

impl Generate for RemoteBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(self.client.create(&self.opened.name, request))
    }
}

impl Import for RemoteBackend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(self.client.import(&self.opened.name, request))
    }
}

impl Delete for RemoteBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.client.delete(&self.changeable(key).await?).await })
    }
}

impl Rotate for RemoteBackend {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move { Ok(self.client.rotate(&format!("{}/{name}", self.opened.name)).await?.1) })
    }
}

impl StoreCertificate for RemoteBackend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.client.store_certificate(&self.changeable(key).await?, certificate).await.map(drop)
        })
    }
}

impl Attest for RemoteBackend {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        Box::pin(async move { self.client.attest(&self.changeable(key).await?).await })
    }
}

impl Unlock for RemoteBackend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.client.unlock(&self.opened.name, request))
    }
}

impl Watch for RemoteBackend {
    fn watch(&self, sink: EventSink) {
        let (client, name) = (self.client.clone(), self.opened.name.clone());
        let task = self.runtime.spawn(async move {
            loop {
                // Losing the daemon is an event too: its keys cannot be used.
                let lost = match client.watch(Some(&name)).await {
                    Ok(mut events) => loop {
                        match events.next().await {
                            Some(Ok(event)) => {
                                event.happening.into_backend_event().into_iter().for_each(&*sink);
                            }
                            Some(Err(e)) => break e,
                            None => break Error::new(ErrorKind::DeviceGone, "the daemon ended its events"),
                        }
                    },
                    Err(e) => e,
                };
                sink(Event::Down(lost));
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
    }
}

impl Drop for RemoteBackend {
    fn drop(&mut self) {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(AbortHandle::abort);
    }
}
