//! The backend: the traits over the service.

use std::{sync::Arc, time::Duration};

use google_cloud_kms_v1::model::{
    CryptoKey, CryptoKeyVersion, CryptoKeyVersionTemplate, ProtectionLevel as GoogleLevel,
    crypto_key::CryptoKeyPurpose, crypto_key_version::CryptoKeyVersionState as State,
};
use signer_core::{
    Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Evidence, Generate, GenerateRequest,
    KeyInfo, KeyName, KeyPage, KeySelector, ListRequest, Result, Rotate, Signer,
};
use signer_remote::Patience;

use crate::{
    GoogleConfig, ProtectionLevel, algorithm, attest,
    fault::{self, not_enabled},
    keys::{Service, no_ring},
    name::{self, Key, Version},
    signer::{LONGEST, VersionSigner},
};

/// Keys in Google Cloud KMS.
pub struct GoogleKms {
    service: Arc<Service>,
}

/// How long a new key may take to be made: an RSA key in a module takes some tens of seconds.
const MAKING: Patience = Patience { attempt: Duration::from_secs(5), total: Duration::from_mins(2) };

impl GoogleKms {
    /// A backend with that configured name. The service is not asked anything yet.
    pub fn new(name: &str, config: GoogleConfig) -> Result<Self> {
        Ok(Self { service: Arc::new(Service::new(name, config)?) })
    }

    async fn open_now(&self, selector: &KeySelector) -> Result<Arc<dyn Signer>> {
        let version = self.service.find(selector).await?;
        let info = self.service.info(&version).await?;
        Ok(Arc::new(VersionSigner::new(self.service.clone(), version, info)))
    }

    /// Lists one key; who may only sign is healthy, too: the refusal came from the service, to good credentials.
    async fn health_now(&self) -> Result<()> {
        let service = &self.service;
        service.clients.can_renew().await?;
        let Some(ring) = &service.home else { return Ok(()) };
        let parent = ring.to_string();
        let listed = service
            .patience
            .persist(None, || async {
                let call = |client: google_cloud_kms_v1::client::KeyManagementService| {
                    client.list_crypto_keys().set_parent(&parent).set_page_size(1).send()
                };
                service.clients.ask(fault::LIST_KEYS, call).await
            })
            .await;
        match listed {
            Err(e) if e.kind() == ErrorKind::Denied && e.what().starts_with("the permission") => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound, format!("there is no key ring {ring}")).next(
                    "make it with `gcloud kms keyrings create`, or check project, location and key_ring",
                ))
            }
            other => other.map(drop),
        }
    }

    async fn generate_now(&self, request: &GenerateRequest) -> Result<KeyInfo> {
        let service = &self.service;
        request.policy.none(&service.name)?;
        let key = self.new_key(request)?;
        let level = service.config.protection_level;
        let algorithm = algorithm::for_new(request.key_type, level, service.config.rsa_padding);
        let algorithm = algorithm.ok_or_else(|| {
            Error::unsupported(
                format_args!("make {} keys", request.key_type),
                "Google Cloud KMS as configured",
            )
        })?;
        let template =
            CryptoKeyVersionTemplate::new().set_algorithm(algorithm).set_protection_level(match level {
                ProtectionLevel::Software => GoogleLevel::Software,
                ProtectionLevel::Hsm => GoogleLevel::Hsm,
            });
        let new =
            CryptoKey::new().set_purpose(CryptoKeyPurpose::AsymmetricSign).set_version_template(template);
        let parent = key.ring.to_string();
        service
            .patience
            .change(None, || {
                service.clients.ask(fault::CREATE_KEY, |client| {
                    let call = client.create_crypto_key().set_parent(&parent).set_crypto_key_id(&key.id);
                    call.set_crypto_key(new.clone()).send()
                })
            })
            .await?;
        self.made(&key.version(1)).await
    }

    fn new_key(&self, request: &GenerateRequest) -> Result<Key> {
        let name = &request.name;
        let ring = self.service.home.as_ref().ok_or_else(no_ring)?;
        if request.id.is_some() {
            return Err(Error::bad_request("keys of Google Cloud KMS have no identifier besides their name")
                .next("leave the identifier out"));
        }
        if name.version().is_some() {
            return Err(Error::bad_request("the version of a new key is not chosen: it is 1")
                .next("leave out the @ and what follows"));
        }
        let id = name.as_label().filter(|label| Key::allows(label)).ok_or_else(|| {
            Error::bad_request("Google Cloud KMS does not let a key be called that")
                .next("use 1 to 63 letters, digits, _ and -")
        })?;
        Ok(ring.key(id))
    }

    /// Waits until a version that was just made can be used.
    async fn made(&self, version: &Version) -> Result<KeyInfo> {
        let name = version.to_string();
        let wait = MAKING.persist(None, || async {
            let call = |client: google_cloud_kms_v1::client::KeyManagementService| {
                client.get_crypto_key_version().set_name(&name).send()
            };
            match self.service.clients.ask(fault::GET_VERSION, call).await {
                Ok(v) => v.state.name().and_then(not_enabled).map_or(Ok(()), Err),
                // Who may make keys but not look at them sees whether it is there by its public key.
                Err(f) if f.error.kind() == ErrorKind::Denied => Ok(()),
                Err(f) => Err(f),
            }
        });
        wait.await.map_err(Error::may_have_happened)?;
        let info = self.service.info(version).await.map_err(Error::may_have_happened)?;
        Ok(KeyInfo::clone(&info))
    }

    async fn rotate_now(&self, name: &KeyName) -> Result<KeyInfo> {
        let (key, version) = name::find(&KeySelector::Name(name.clone()), self.service.home.as_ref())?;
        if version.is_some() {
            return Err(Error::bad_request("a new version is made of a key, not of a version of it")
                .next("leave out the @ and what follows"));
        }
        let parent = key.to_string();
        let service = &self.service;
        let made = service
            .patience
            .change(None, || {
                service.clients.ask(fault::CREATE_VERSION, |client| {
                    let call = client.create_crypto_key_version().set_parent(&parent);
                    call.set_crypto_key_version(CryptoKeyVersion::new()).send()
                })
            })
            .await?;
        let version = Version::parse(&made.name).filter(|v| v.key == key).ok_or_else(|| {
            Error::internal("the service answers with a new version of another key").may_have_happened()
        })?;
        self.made(&version).await
    }

    /// Has versions destroyed: Google waits, 30 days if nothing else was configured, and gives them back until then.
    async fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let versions = match name::find(selector, self.service.home.as_ref())? {
            (key, Some(number)) => vec![key.version(number)],
            (key, None) => {
                let alive = |v: &CryptoKeyVersion| [State::Enabled, State::Disabled].contains(&v.state);
                let versions = self.service.versions(&key).await?;
                versions.into_iter().filter(|(_, v)| alive(v)).map(|(version, _)| version).collect()
            }
        };
        if versions.is_empty() {
            return Err(name::no_such_key());
        }
        for version in &versions {
            self.destroy(version).await?;
            self.service.forget(version);
        }
        Ok(())
    }

    async fn destroy(&self, version: &Version) -> Result<()> {
        let name = version.to_string();
        let service = &self.service;
        let mut attempts = 0;
        let destroyed = service
            .patience
            .persist(None, || {
                attempts += 1;
                service
                    .clients
                    .ask(fault::DESTROY, |client| client.destroy_crypto_key_version().set_name(&name).send())
            })
            .await;
        match destroyed {
            Ok(_) => Ok(()),
            // An earlier attempt did it, and its answer was lost.
            Err(e) if e.kind() == ErrorKind::NotFound && attempts > 1 => Ok(()),
            // Says in which state it is.
            Err(e) if e.kind() == ErrorKind::Denied && !e.what().starts_with("the permission") => {
                let state = service.details(&name).await?.and_then(|d| not_enabled(d.state.name()?));
                Err(state.map_or(e, |f| f.error))
            }
            Err(e) => Err(e),
        }
    }

    fn about<T>(&self, key: impl std::fmt::Display, result: Result<T>) -> Result<T> {
        self.here(result.map_err(|e| e.key(key)))
    }

    fn here<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.device(&self.service.name))
    }
}

impl Backend for GoogleKms {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move {
            let config = &self.service.config;
            let endpoint = config.endpoint.as_deref().unwrap_or("https://cloudkms.googleapis.com");
            let device = self.service.home.as_ref().map_or_else(|| endpoint.to_owned(), ToString::to_string);
            let level = match config.protection_level {
                ProtectionLevel::Software => "software",
                ProtectionLevel::Hsm => "hardware security modules",
            };
            Ok(BackendInfo {
                kind: "google-kms".into(),
                device,
                model: format!("Google Cloud KMS, new keys in {level}"),
                firmware: "v1".into(),
                serial: String::new(),
                generates: algorithm::generates(config.protection_level),
                imports: Vec::new(),
                max_message: Some(LONGEST as u64),
            })
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.here(self.service.list(&request).await) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move { self.about(key, self.open_now(key).await) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.here(self.health_now().await) })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        Some(self)
    }

    fn delete(&self) -> Option<&dyn Delete> {
        Some(self)
    }

    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }

    fn attest(&self) -> Option<&dyn Attest> {
        Some(self)
    }
}

impl Generate for GoogleKms {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move { self.about(&request.name, self.generate_now(&request).await) })
    }
}

impl Delete for GoogleKms {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.delete_now(key).await) })
    }
}

impl Rotate for GoogleKms {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move { self.about(name, self.rotate_now(name).await) })
    }
}

impl Attest for GoogleKms {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        Box::pin(async move { self.about(key, attest::attest(&self.service, key).await) })
    }
}
