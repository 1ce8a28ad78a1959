//! What the vault knows of keys.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use azure_security_keyvault_keys::{
    KeyClient,
    models::{
        Key, KeyClientGetKeyOptions, KeyClientListKeyPropertiesOptions,
        KeyClientListKeyPropertiesVersionsOptions, KeyProperties,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use signer_core::{
    Error, ErrorKind, KeyInfo, KeyOrigin, KeyPage, KeyPolicy, KeySelector, ListRequest, Result,
};
use signer_remote::{Memory, Patience};

use crate::{
    AzureConfig, algorithm,
    client::Clients,
    fault::{self, damaged, disabled},
    name::{self, Vault, Version, is_key},
};

/// The vault as all keys share it.
pub(crate) struct Service {
    /// The backend's configured name.
    pub(crate) name: String,
    pub(crate) config: AzureConfig,
    pub(crate) vault: Vault,
    pub(crate) clients: Clients,
    pub(crate) patience: Patience,
    /// Versions by key and id. The vault never changes the public key of one.
    known: Memory<Arc<KeyInfo>>,
}

/// So many requests are made at once for a list.
const AT_ONCE: usize = 8;
/// Items of a page that the service gives: its maximum.
const SERVICE_PAGE: i32 = 25;

impl Service {
    pub(crate) fn new(name: &str, config: AzureConfig) -> Result<Self> {
        let vault = Vault::parse(&config.vault)?;
        Ok(Self {
            name: name.to_owned(),
            clients: Clients::new(config.clone(), vault.clone()),
            vault,
            patience: config.patience(),
            known: Memory::new(config.lifetime()),
            config,
        })
    }

    /// What is known of the version that a selector means: the newest where it does not say.
    pub(crate) async fn find(&self, selector: &KeySelector) -> Result<(Version, Arc<KeyInfo>)> {
        let (key, version) = name::find(selector, &self.vault)?;
        match version {
            Some(id) => self.info(&Version { key, id }).await,
            None => self.fetch(&key, None).await,
        }
    }

    /// What is known of a version: remembered for the configured time.
    pub(crate) async fn info(&self, version: &Version) -> Result<(Version, Arc<KeyInfo>)> {
        match self.known.recall(&version.to_string()) {
            Some(info) => Ok((version.clone(), info)),
            None => self.fetch(&version.key, Some(&version.id)).await,
        }
    }

    /// The same, asked for anew; without an id, the newest version.
    pub(crate) async fn fetch(&self, key: &str, id: Option<&str>) -> Result<(Version, Arc<KeyInfo>)> {
        let bundle = self
            .patience
            .persist(None, || async {
                let options =
                    KeyClientGetKeyOptions { key_version: id.map(str::to_owned), ..Default::default() };
                let call = |client: Arc<KeyClient>| async move {
                    client.get_key(key, Some(options)).await?.into_model()
                };
                let bundle: Key = self.clients.ask(fault::GET, call).await?;
                let kid = bundle.key.as_ref().and_then(|k| k.kid.as_deref()).unwrap_or_default();
                let version = self
                    .vault
                    .read_kid(kid)
                    .ok_or_else(|| damaged("the key has an identifier of another vault"))?;
                let asked = Version { key: key.to_owned(), id: id.unwrap_or(&version.id).to_owned() };
                if !version.is(&asked) {
                    return Err(damaged("another key answers"));
                }
                Ok((version, bundle))
            })
            .await;
        let (version, bundle) = bundle?;
        self.take(version, &bundle)
    }

    /// Checks and remembers what the vault says of a version.
    pub(crate) fn take(&self, version: Version, bundle: &Key) -> Result<(Version, Arc<KeyInfo>)> {
        if bundle.attributes.as_ref().and_then(|a| a.enabled) == Some(false) {
            return Err(disabled());
        }
        let info = Arc::new(self.describe(&version, bundle)?);
        let name = version.to_string();
        if self.known.last(&name).is_some_and(|before| before.public_key != info.public_key) {
            return Err(Error::internal("the vault answers with another public key than before").next(
                "a version's public key never changes: look for something between here and the vault",
            ));
        }
        self.known.remember(&name, info.clone());
        Ok((version, info))
    }

    pub(crate) fn forget(&self, version: &Version) {
        self.known.forget(&version.to_string());
    }

    pub(crate) fn forget_key(&self, key: &str) {
        self.known.forget_all(&format!("{}/", key.to_ascii_lowercase()));
    }

    fn describe(&self, version: &Version, bundle: &Key) -> Result<KeyInfo> {
        let jwk = bundle.key.as_ref().ok_or_else(|| Error::internal("the vault answers without a key"))?;
        let public_key = algorithm::public_key(jwk)?;
        let may = |operation: &str| jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|o| o == operation));
        if !may("sign") {
            return Err(Error::unsupported(
                "sign with a key that was made without that operation",
                "the vault",
            ));
        }
        let attributes = bundle.attributes.as_ref();
        let created = attributes.and_then(|a| a.created).and_then(|t| {
            let seconds = u64::try_from(t.unix_timestamp()).ok()?;
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        });
        Ok(KeyInfo {
            name: version.key_name()?,
            algorithms: algorithm::of(public_key.key_type()),
            public_key,
            // Whether a key was made in the vault is nowhere said, but by the tag that this backend gives.
            origin: match bundle.tags.as_ref().and_then(|t| t.get(ORIGIN_TAG)).map(String::as_str) {
                Some("generated") => KeyOrigin::Generated,
                _ => KeyOrigin::Unknown,
            },
            extractable: attributes.and_then(|a| a.exportable).or(Some(false)),
            policy: KeyPolicy::default(),
            created: created.filter(|t| *t <= SystemTime::now() + Duration::from_hours(1)),
            id: None,
            address: Some(self.vault.address(version)),
            certificate: None,
        })
    }

    /// A key's versions in the order of their ids, and whether each is enabled.
    pub(crate) async fn versions(&self, key: &str) -> Result<Vec<(Version, bool)>> {
        let items = self
            .list_patience()
            .persist(None, || {
                let options = KeyClientListKeyPropertiesVersionsOptions {
                    maxresults: Some(SERVICE_PAGE),
                    ..Default::default()
                };
                let call = |client: Arc<KeyClient>| async move {
                    let mut items = Vec::new();
                    let mut pages = client.list_key_properties_versions(key, Some(options))?.into_pages();
                    while let Some(page) = pages.next().await {
                        items.extend(page?.into_model()?.value);
                    }
                    Ok(items)
                };
                self.clients.ask(fault::LIST, call)
            })
            .await?;
        let read =
            |item: &KeyProperties| Some((self.vault.read_kid(item.kid.as_deref()?)?, is_enabled(item)));
        let mut versions: Vec<_> =
            items.iter().filter_map(read).filter(|(v, _)| v.key.eq_ignore_ascii_case(key)).collect();
        versions.sort_by_cached_key(|(version, _)| version.to_string());
        Ok(versions)
    }

    /// A whole list is one attempt, of many requests.
    fn list_patience(&self) -> Patience {
        let attempt = self.patience.attempt * 10;
        Patience { attempt, total: self.patience.total.max(attempt) }
    }

    /// The names of all keys, in the order of the alphabet.
    async fn keys(&self) -> Result<Vec<String>> {
        let items = self
            .list_patience()
            .persist(None, || {
                let options = KeyClientListKeyPropertiesOptions {
                    maxresults: Some(SERVICE_PAGE),
                    ..Default::default()
                };
                let call = |client: Arc<KeyClient>| async move {
                    let mut items = Vec::new();
                    let mut pages = client.list_key_properties(Some(options))?.into_pages();
                    while let Some(page) = pages.next().await {
                        items.extend(page?.into_model()?.value);
                    }
                    Ok(items)
                };
                self.clients.ask(fault::LIST, call)
            })
            .await?;
        let names = items.iter().filter_map(|item| Some(self.vault.read_key_id(item.kid.as_deref()?)?.0));
        let mut names: Vec<_> = names.map(|n| n.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// One page: every enabled version that signs.
    pub(crate) async fn list(&self, request: &ListRequest) -> Result<KeyPage> {
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(10_000) };
        let mut after = read_token(request.page_token.as_deref())?;
        let keys = self.keys().await?;
        loop {
            let (versions, more) = self.versions_after(&keys, &after, size).await?;
            let listed: Vec<Option<KeyInfo>> = stream::iter(versions.clone())
                .map(|version| async move { self.listed(&version).await })
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            let listed: Vec<_> = listed.into_iter().flatten().collect();
            match versions.last().filter(|_| more) {
                None => return Ok(KeyPage { keys: listed, next: None }),
                // Everything on the page went away while it was looked at.
                Some(last) if listed.is_empty() => after = (last.key.to_ascii_lowercase(), last.id.clone()),
                Some(last) => {
                    let next = format!("{}@{}", last.key.to_ascii_lowercase(), last.id);
                    return Ok(KeyPage { keys: listed, next: Some(next) });
                }
            }
        }
    }

    /// Up to `size` versions after a place, and whether there are others.
    async fn versions_after(
        &self,
        keys: &[String],
        (key, id): &(String, String),
        size: usize,
    ) -> Result<(Vec<Version>, bool)> {
        let mut found = Vec::new();
        let rest: Vec<_> = keys.iter().filter(|k| *k >= key).cloned().collect();
        let of_keys = stream::iter(rest).map(|k| async move { self.versions_if_there(&k).await });
        let mut of_keys = std::pin::pin!(of_keys.buffered(AT_ONCE));
        while let Some(versions) = of_keys.next().await {
            let wanted = |v: &Version| !v.key.eq_ignore_ascii_case(key) || v.id > *id;
            found
                .extend(versions?.into_iter().filter(|(_, enabled)| *enabled).map(|(v, _)| v).filter(wanted));
            if found.len() > size {
                found.truncate(size);
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }

    /// A key may go while a list is made.
    async fn versions_if_there(&self, key: &str) -> Result<Vec<(Version, bool)>> {
        match self.versions(key).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// A version for a list: left out when it cannot be used.
    async fn listed(&self, version: &Version) -> Result<Option<KeyInfo>> {
        match self.info(version).await {
            Ok((_, info)) => Ok(Some(KeyInfo::clone(&info))),
            Err(e) if [ErrorKind::NotFound, ErrorKind::Unsupported].contains(&e.kind()) => Ok(None),
            Err(e) if e.what() == disabled().what() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A tag that says how a key came to be.
pub(crate) const ORIGIN_TAG: &str = "signerd-origin";

fn is_enabled(item: &KeyProperties) -> bool {
    item.attributes.as_ref().and_then(|a| a.enabled) != Some(false)
}

fn read_token(text: Option<&str>) -> Result<(String, String)> {
    let Some(text) = text else { return Ok(Default::default()) };
    match text.split_once('@') {
        Some((key, id)) if is_key(key) => Ok((key.to_owned(), id.to_owned())),
        _ => Err(Error::bad_request("this page token is not from this backend").next("list from the start")),
    }
}
