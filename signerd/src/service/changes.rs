//! What changes keys. A change that has begun is brought to its end, whether or not the caller still waits: so each
//! runs as a task, and what has to be told about it is told.

use std::{sync::Arc, time::Instant};

use signer_core::{
    Ability, Backend, BoxFuture, Error, ErrorKind, GenerateRequest, ImportRequest, KeyName, KeySelector,
    KeyType, Pin, PrivateKey, Result, UnlockRequest,
};
use signerd_api::{key_to_pb, pb, policy_from_pb};
use zeroize::Zeroizing;

use super::Service;
use crate::{call::Call, events::What, grants::Operations, place::Place};

impl Service {
    pub(super) async fn create(&self, call: Call, request: pb::CreateKeyRequest) -> Result<pb::Key> {
        let (place, name) = self.new_key(&call, Operations::CREATE, &request.key).await?;
        let key_type = match request.key_type.as_str() {
            "" => KeyType::EcdsaP256,
            name => name.parse()?,
        };
        let request =
            GenerateRequest { name, key_type, id: request.id, policy: policy_from_pb(request.policy)? };
        self.change(call, Operations::CREATE, place, move |place, backend| {
            Box::pin(async move {
                let generate = Ability::Generate.require(backend.generate(), place.name().as_str())?;
                let info = generate.generate(request).await?;
                place.tell(What::KeyCreated(info.name.clone()));
                Ok(key_to_pb(place.name().as_str(), &info))
            })
        })
        .await
    }

    pub(super) async fn import(&self, call: Call, request: pb::ImportKeyRequest) -> Result<pb::Key> {
        let pkcs8 = Zeroizing::new(request.pkcs8);
        let (place, name) = self.new_key(&call, Operations::IMPORT, &request.key).await?;
        let key = PrivateKey::read(&pkcs8, None)?;
        let request = ImportRequest { name, key, id: request.id, policy: policy_from_pb(request.policy)? };
        self.change(call, Operations::IMPORT, place, move |place, backend| {
            Box::pin(async move {
                let import = Ability::Import.require(backend.import(), place.name().as_str())?;
                let info = import.import(request).await?;
                place.tell(What::KeyCreated(info.name.clone()));
                Ok(key_to_pb(place.name().as_str(), &info))
            })
        })
        .await
    }

    pub(super) async fn delete(&self, call: Call, key: String) -> Result<()> {
        let (place, selector) = self.daemon.state().selected(&call.caller, Operations::DELETE, &key).await?;
        self.change(call, Operations::DELETE, place, move |place, backend| {
            Box::pin(async move {
                let delete = Ability::Delete.require(backend.delete(), place.name().as_str())?;
                // The event names the key; what has only an address is asked for its name first.
                let name = match &selector {
                    KeySelector::Name(name) => name.clone(),
                    KeySelector::Address(_) => backend.open(&selector).await?.info().name.clone(),
                };
                delete.delete(&selector).await?;
                place.tell(What::KeyDeleted(name));
                Ok(())
            })
        })
        .await
    }

    pub(super) async fn rotate(&self, call: Call, key: String) -> Result<pb::Key> {
        let (place, selector) = self.daemon.state().selected(&call.caller, Operations::ROTATE, &key).await?;
        let KeySelector::Name(name) = selector else {
            return Err(Error::bad_request("a key is rotated by its name, not by an address").key(key));
        };
        self.change(call, Operations::ROTATE, place, move |place, backend| {
            Box::pin(async move {
                let rotate = Ability::Rotate.require(backend.rotate(), place.name().as_str())?;
                let info = rotate.rotate(&name).await?;
                place.tell(What::KeyRotated(info.name.clone()));
                Ok(key_to_pb(place.name().as_str(), &info))
            })
        })
        .await
    }

    pub(super) async fn store_certificate(
        &self,
        call: Call,
        request: pb::StoreCertificateRequest,
    ) -> Result<pb::Key> {
        let state = self.daemon.state();
        let (place, selector) = state.selected(&call.caller, Operations::CERTIFICATE, &request.key).await?;
        self.change(call, Operations::CERTIFICATE, place, move |place, backend| {
            Box::pin(async move {
                let store =
                    Ability::StoreCertificate.require(backend.store_certificate(), place.name().as_str())?;
                store.store_certificate(&selector, &request.certificate).await?;
                let signer = backend.open(&selector).await?;
                Ok(key_to_pb(place.name().as_str(), signer.info()))
            })
        })
        .await
    }

    pub(super) async fn unlock(&self, call: Call, request: pb::UnlockRequest) -> Result<()> {
        let pin = Pin::new(request.pin)?;
        let place = self.unlockable(&call, &request.backend).await?;
        let number = request.request;
        let request = UnlockRequest { pin, use_last_try: request.use_last_try };
        let began = Instant::now();
        let unlocking = place.clone();
        let result = finish(tokio::spawn(async move {
            let _ticket = unlocking.enter()?;
            unlocking.give_pin(request, number).await
        }))
        .await;
        place.metrics.observe(place.name(), Operations::UNLOCK, began, &result);
        note(&call, &place, Operations::UNLOCK, &result);
        result
    }

    /// Where a key is to be made, and its name there.
    async fn new_key(
        &self,
        call: &Call,
        operation: Operations,
        asked: &str,
    ) -> Result<(Arc<Place>, KeyName)> {
        match self.daemon.state().selected(&call.caller, operation, asked).await? {
            (place, KeySelector::Name(name)) => {
                if name.version().is_some() {
                    return Err(Error::bad_request("a new key has no version yet")
                        .key(asked)
                        .next("leave out what follows the @; `signer keys rotate` makes further versions"));
                }
                Ok((place, name))
            }
            (_, KeySelector::Address(_)) => {
                Err(Error::bad_request("a new key is named as backend/key, not by an address").key(asked))
            }
        }
    }

    /// Makes a change: in the backend's queue, to its end.
    async fn change<T: Send + 'static>(
        &self,
        call: Call,
        operation: Operations,
        place: Arc<Place>,
        work: impl FnOnce(Arc<Place>, Arc<dyn Backend>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Result<T> {
        finish(tokio::spawn(async move {
            let began = Instant::now();
            let result = async {
                let _ticket = place.enter()?;
                let backend = place.backend()?;
                let result = work(place.clone(), backend).await;
                // Also after a failure: it may have happened all the same.
                place.changed();
                result
            }
            .await
            .map_err(|e| e.device(place.name()));
            if let Err(error) = &result
                && error.kind() != ErrorKind::NotFound
            {
                place.failed(error);
            }
            place.metrics.observe(place.name(), operation, began, &result);
            note(&call, &place, operation, &result);
            result
        }))
        .await
    }
}

async fn finish<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|e| {
        Err(Error::internal("the request ended in a panic").vendor(e).may_have_happened())
    })
}

fn note<T>(call: &Call, place: &Place, operation: Operations, result: &Result<T>) {
    let (caller, backend, operation) = (&call.caller, place.name(), operation.name());
    match result {
        Ok(_) => tracing::info!(%caller, %backend, operation, "done"),
        Err(e) => tracing::info!(%caller, %backend, operation, kind = e.kind().name(), "failed: {e}"),
    }
}
