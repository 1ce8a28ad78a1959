//! The backend: the traits over the vault.

use std::{collections::HashMap, sync::Arc};

use azure_security_keyvault_keys::{
    KeyClient,
    models::{CreateKeyParameters, Key, KeyClientListKeyPropertiesOptions, KeyOperation},
};
use futures_util::StreamExt;
use signer_core::{
    Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Generate, GenerateRequest, KeyInfo, KeyName,
    KeyPage, KeySelector, ListRequest, Result, Rotate, Signer,
};

use crate::{
    AzureConfig, KeyPlace, algorithm,
    fault::{self, deleted, disabled},
    keys::{ORIGIN_TAG, Service},
    name::{self, Version, is_key},
    signer::VersionSigner,
};

/// Keys in Azure Key Vault or Managed HSM.
pub struct AzureKeyVault {
    service: Arc<Service>,
    /// Held while a key is made: the vault would make a new version of a key whose name is taken.
    making: tokio::sync::Mutex<()>,
}

impl AzureKeyVault {
    /// A backend with that configured name. The vault is not asked anything yet.
    pub fn new(name: &str, config: AzureConfig) -> Result<Self> {
        Ok(Self { service: Arc::new(Service::new(name, config)?), making: tokio::sync::Mutex::default() })
    }

    async fn open_now(&self, selector: &KeySelector) -> Result<Arc<dyn Signer>> {
        let (version, info) = self.service.find(selector).await?;
        Ok(Arc::new(VersionSigner::new(self.service.clone(), version, info)))
    }

    /// Lists one key; who may only sign is healthy, too: the refusal came from the vault, to good credentials.
    async fn health_now(&self) -> Result<()> {
        let service = &self.service;
        service.clients.can_renew().await?;
        let listed = service
            .patience
            .persist(None, || {
                let options = KeyClientListKeyPropertiesOptions { maxresults: Some(1), ..Default::default() };
                let call = |client: Arc<KeyClient>| async move {
                    let mut pages = client.list_key_properties(Some(options))?.into_pages();
                    match pages.next().await {
                        Some(page) => page?.into_model().map(drop),
                        None => Ok(()),
                    }
                };
                service.clients.ask(fault::LIST, call)
            })
            .await;
        match listed {
            Err(e) if e.kind() == ErrorKind::Denied && e.what().starts_with("the permission") => Ok(()),
            other => other,
        }
    }

    async fn generate_now(&self, request: &GenerateRequest) -> Result<KeyInfo> {
        let service = &self.service;
        request.policy.none(&service.name)?;
        let key = new_name(request)?;
        let hsm = service.config.key_place == KeyPlace::Hsm || service.vault.is_managed_hsm();
        let recipe = algorithm::recipe(request.key_type, hsm).ok_or_else(|| {
            Error::unsupported(format_args!("make {} keys", request.key_type), "Azure Key Vault")
        })?;
        let _making = self.making.lock().await;
        self.must_be_free(key).await?;
        let made = service
            .patience
            .change(None, || {
                let parameters = CreateKeyParameters {
                    kty: Some(recipe.kty.clone()),
                    curve: recipe.curve.clone(),
                    key_size: recipe.bits,
                    key_ops: Some(vec![KeyOperation::Sign, KeyOperation::Verify]),
                    tags: Some(HashMap::from([(ORIGIN_TAG.to_owned(), "generated".to_owned())])),
                    ..Default::default()
                };
                let call = |client: Arc<KeyClient>| async move {
                    client.create_key(key, parameters.try_into()?, None).await?.into_model()
                };
                service.clients.ask(fault::CREATE, call)
            })
            .await;
        match made {
            Ok(bundle) => self.made(key, &bundle),
            // The name of a deleted key is not free until it is purged.
            Err(e) if e.what() == deleted().what() => Err(taken_by_deleted()),
            Err(e) => Err(e),
        }
    }

    async fn must_be_free(&self, key: &str) -> Result<()> {
        match self.service.fetch(key, None).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(taken()),
            Err(e) if e.what() == disabled().what() || e.kind() == ErrorKind::Unsupported => Err(taken()),
            Err(e) => Err(e),
        }
    }

    /// What is known of a version that was just made.
    fn made(&self, key: &str, bundle: &Key) -> Result<KeyInfo> {
        let kid = bundle.key.as_ref().and_then(|k| k.kid.as_deref()).unwrap_or_default();
        let version = self.service.vault.read_kid(kid).filter(|v| v.key.eq_ignore_ascii_case(key));
        let version = version.ok_or_else(|| {
            Error::internal("the vault answers with a new version of another key").may_have_happened()
        })?;
        let (_, info) = self.service.take(version, bundle).map_err(Error::may_have_happened)?;
        Ok(KeyInfo::clone(&info))
    }

    async fn rotate_now(&self, name: &KeyName) -> Result<KeyInfo> {
        let (key, version) = name::find(&KeySelector::Name(name.clone()), &self.service.vault)?;
        if version.is_some() {
            return Err(Error::bad_request("a new version is made of a key, not of a version of it")
                .next("leave out the @ and what follows"));
        }
        let key = key.as_str();
        let made = self
            .service
            .patience
            .change(None, || {
                let call =
                    |client: Arc<KeyClient>| async move { client.rotate_key(key, None).await?.into_model() };
                self.service.clients.ask(fault::ROTATE, call)
            })
            .await?;
        self.made(key, &made)
    }

    /// Deletes a key with all its versions; the vault keeps it for some time, so that it can be brought back. One version
    /// of several cannot be deleted.
    async fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let (key, version) = name::find(selector, &self.service.vault)?;
        if let Some(id) = version {
            let wanted = Version { key: key.clone(), id };
            let versions = self.service.versions(&key).await?;
            if !versions.iter().any(|(v, _)| v.is(&wanted)) {
                return Err(name::no_such_key());
            }
            if versions.len() > 1 {
                return Err(Error::unsupported("delete one version of several", "Azure Key Vault").next(
                    "delete the key with all its versions (leave out the @ and what follows), or disable the version with `az \
                     keyvault key set-attributes --enabled false`",
                ));
            }
        }
        let key = key.as_str();
        let mut attempts = 0;
        let gone = self
            .service
            .patience
            .persist(None, || {
                attempts += 1;
                let call = |client: Arc<KeyClient>| async move {
                    client.delete_key(key, None).await?.into_model().map(drop)
                };
                self.service.clients.ask(fault::DELETE, call)
            })
            .await;
        match gone {
            // An earlier attempt did it, and its answer was lost.
            Err(e) if e.kind() == ErrorKind::NotFound && attempts > 1 => {}
            other => other?,
        }
        self.service.forget_key(key);
        Ok(())
    }

    fn about<T>(&self, key: impl std::fmt::Display, result: Result<T>) -> Result<T> {
        self.here(result.map_err(|e| e.key(key)))
    }

    fn here<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.device(&self.service.name))
    }
}

fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a key of that name already")
        .next("choose another name, or make a new version of it with `signer keys rotate`")
}

fn taken_by_deleted() -> Error {
    Error::new(ErrorKind::AlreadyExists, "a deleted key of that name waits to be purged").next(
        "choose another name, or bring the key back with `az keyvault key recover`, or give it up with `az keyvault key purge`",
    )
}

/// The name that a new key gets.
fn new_name(request: &GenerateRequest) -> Result<&str> {
    let name = &request.name;
    if request.id.is_some() {
        return Err(Error::bad_request("keys of Azure Key Vault have no identifier besides their name")
            .next("leave the identifier out"));
    }
    if name.version().is_some() {
        return Err(Error::bad_request("the version of a new key is not chosen: the vault gives it")
            .next("leave out the @ and what follows"));
    }
    name.as_label().filter(|label| is_key(label)).ok_or_else(|| {
        Error::bad_request("Azure Key Vault does not let a key be called that")
            .next("use 1 to 127 letters, digits and -")
    })
}

impl Backend for AzureKeyVault {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move {
            let service = &self.service;
            let model = match (service.vault.is_managed_hsm(), service.config.key_place) {
                (true, _) => "Azure Managed HSM",
                (false, KeyPlace::Hsm) => "Azure Key Vault, new keys in hardware security modules",
                (false, KeyPlace::Vault) => "Azure Key Vault",
            };
            Ok(BackendInfo {
                kind: "azure-key-vault".into(),
                device: service.vault.to_string(),
                model: model.into(),
                firmware: "2025-07-01".into(),
                serial: String::new(),
                generates: algorithm::GENERATES.to_vec(),
                imports: Vec::new(),
                max_message: None,
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
}

impl Generate for AzureKeyVault {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move { self.about(&request.name, self.generate_now(&request).await) })
    }
}

impl Delete for AzureKeyVault {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.delete_now(key).await) })
    }
}

impl Rotate for AzureKeyVault {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move { self.about(name, self.rotate_now(name).await) })
    }
}
