//! What changes keys. A change that has begun is brought to its end, whether or not the caller still waits: so each
//! runs as a task, and what has to be told about it is told.

use std::{sync::Arc, time::Instant};

use signer_core::{
    Ability, Backend, BoxFuture, Error, ErrorKind, GenerateRequest, ImportRequest, KeyName, KeySelector,
    KeyType, Pin, PrivateKey, PublicKey, Result, UnlockRequest,
};
use signerd_api::{key_to_pb, pb, policy_from_pb};
use zeroize::Zeroizing;

use super::Service;
use crate::{
    audit::{Audit, Change, Event, KeyOf, OwnKey},
    call::Call,
    events::What,
    grants::Operations,
    place::Place,
    state::Daemon,
};

impl Service {
    pub(super) async fn create(&self, call: Call, request: pb::CreateKeyRequest) -> Result<pb::Key> {
        let (place, name) = self.new_key(&call, Operations::CREATE, &request.key).await?;
        let key_type = match request.key_type.as_str() {
            "" => KeyType::EcdsaP256,
            name => name.parse()?,
        };
        let request =
            GenerateRequest { name, key_type, id: request.id, policy: policy_from_pb(request.policy)? };
        let target = Target::new(&place, &request.name.clone().into());
        self.change(call, Operations::CREATE, place, target, move |place, backend| {
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
        let target = Target::new(&place, &request.name.clone().into());
        self.change(call, Operations::IMPORT, place, target, move |place, backend| {
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
        let target = Target::new(&place, &selector);
        self.change(call, Operations::DELETE, place, target, move |place, backend| {
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
        let target = Target::new(&place, &name.clone().into());
        self.change(call, Operations::ROTATE, place, target, move |place, backend| {
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
        let target = Target::new(&place, &selector);
        self.change(call, Operations::CERTIFICATE, place, target, move |place, backend| {
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
        let recorded = match &self.daemon.audit {
            Some(audit) => {
                let backend = KeyOf::named(place.name().as_str());
                Some(audit.before(Event::of_caller(&call.caller, Operations::UNLOCK, backend)).await?)
            }
            None => None,
        };
        let began = Instant::now();
        let unlocking = place.clone();
        let result = finish(tokio::spawn(async move {
            let result = async {
                let _ticket = unlocking.enter()?;
                unlocking.give_pin(request, number).await
            }
            .await;
            if let Some(recorded) = recorded {
                recorded.ended(&result, None).await;
            }
            result
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

    /// Makes a change: in the backend's queue, to its end. It is recorded before it begins, and when it has ended.
    async fn change<T: Changed + Send + Sync + 'static>(
        &self,
        call: Call,
        operation: Operations,
        place: Arc<Place>,
        target: Target,
        work: impl FnOnce(Arc<Place>, Arc<dyn Backend>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let daemon = self.daemon.clone();
        finish(tokio::spawn(async move {
            let began = Instant::now();
            let mut recorded = None;
            let result = async {
                let _ticket = place.enter()?;
                if let Some(audit) = &daemon.audit {
                    recorded = Some(target.record(&daemon, audit, &call, operation, &place).await?);
                }
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
            if let Some(recorded) = recorded {
                recorded.ended(&result, result.as_ref().ok().and_then(Changed::key)).await;
            }
            result
        }))
        .await
    }
}

/// The key that a change is about.
struct Target {
    reference: String,
    selector: KeySelector,
}

impl Target {
    fn new(place: &Place, selector: &KeySelector) -> Self {
        let reference = match selector {
            KeySelector::Name(name) => format!("{}/{name}", place.name()),
            KeySelector::Address(address) => address.to_string(),
        };
        Self { reference, selector: selector.clone() }
    }

    /// Records that the change begins. The audit log's own key is spared.
    async fn record(
        &self,
        daemon: &Daemon,
        audit: &Arc<Audit>,
        call: &Call,
        operation: Operations,
        place: &Arc<Place>,
    ) -> Result<Change> {
        let state = daemon.state();
        let reference = self.reference.parse().map(|r| state.grants.names_as_asked(&r));
        let grant = reference.ok().and_then(|names| state.grants.which(&call.caller, operation, &names));
        let event = Event::of_caller(&call.caller, operation, KeyOf::named(&self.reference));
        let event = event.by_grant(grant.as_ref());
        let makes = operation == Operations::CREATE || operation == Operations::IMPORT;
        let is_own = match &self.selector {
            KeySelector::Name(name) => audit.key().is_called(place.name(), name),
            KeySelector::Address(_) => false,
        };
        let spared = if makes || is_own {
            // Somebody has to make it, once.
            if is_own && (audit.key().is_known() || !makes) {
                Err(OwnKey::spared(&self.reference))
            } else {
                Ok(())
            }
        } else {
            // By another name it could be the same key.
            match place.backend()?.open(&self.selector).await {
                Ok(signer) => audit.key().spare_opened(&state, place, &self.reference, signer.info()).await,
                Err(_) => Ok(()),
            }
        };
        if let Err(error) = spared {
            audit.denied(event);
            return Err(error);
        }
        audit.before(event.for_the_log(is_own)).await
    }
}

/// What a change leaves behind.
trait Changed {
    /// The key as it is now.
    fn key(&self) -> Option<KeyOf>;
}

impl Changed for pb::Key {
    fn key(&self) -> Option<KeyOf> {
        let key = PublicKey::from_der(&self.public_key).ok()?;
        Some(KeyOf::known(&self.reference, &key))
    }
}

impl Changed for () {
    fn key(&self) -> Option<KeyOf> {
        None
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
