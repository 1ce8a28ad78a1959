//! What the service knows of keys.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use google_cloud_kms_v1::model::{
    self, CryptoKeyVersion,
    crypto_key::CryptoKeyPurpose,
    crypto_key_version::{CryptoKeyVersionAlgorithm, CryptoKeyVersionState as State},
    public_key::PublicKeyFormat,
};
use signer_core::{
    Error, ErrorKind, KeyInfo, KeyOrigin, KeyPage, KeyPolicy, KeySelector, ListRequest, PublicKey, Result,
};
use signer_remote::{Failure, Memory, Patience};

use crate::{
    GoogleConfig, algorithm,
    client::Clients,
    fault::{self, damaged, not_enabled},
    name::{self, Key, Ring, Version},
};

/// The service as all keys share it.
pub(crate) struct Service {
    /// The backend's configured name.
    pub(crate) name: String,
    pub(crate) config: GoogleConfig,
    pub(crate) home: Option<Ring>,
    pub(crate) clients: Clients,
    pub(crate) patience: Patience,
    /// Versions by their whole name. Google never changes the public key of one.
    known: Memory<Arc<KeyInfo>>,
}

/// So many requests are made at once for a list.
const AT_ONCE: usize = 8;
/// Keys of a page that the service gives.
const SERVICE_PAGE: i32 = 100;

impl Service {
    pub(crate) fn new(name: &str, config: GoogleConfig) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            home: config.ring()?,
            clients: Clients::new(&config),
            patience: config.patience(),
            known: Memory::new(config.lifetime()),
            config,
        })
    }

    /// The version that a selector means: the newest enabled one where it does not say.
    pub(crate) async fn find(&self, selector: &KeySelector) -> Result<Version> {
        match name::find(selector, self.home.as_ref())? {
            (key, Some(number)) => Ok(key.version(number)),
            (key, None) => self.newest(&key).await,
        }
    }

    async fn newest(&self, key: &Key) -> Result<Version> {
        let versions = self.versions(key).await?;
        let enabled = versions.iter().rev().find(|(_, v)| v.state == State::Enabled);
        if let Some((version, _)) = enabled {
            return Ok(version.clone());
        }
        // The newest one says what is the matter.
        let newest = versions.last().and_then(|(_, v)| not_enabled(v.state.name()?));
        Err(newest.map_or_else(name::no_such_key, |f| f.error))
    }

    /// Every version of a key, the oldest first.
    pub(crate) async fn versions(&self, key: &Key) -> Result<Vec<(Version, CryptoKeyVersion)>> {
        let parent = key.to_string();
        let mut versions = Vec::new();
        let mut token = String::new();
        loop {
            let page = self
                .patience
                .persist(None, || {
                    self.clients.ask(fault::LIST_VERSIONS, |client| {
                        let call = client.list_crypto_key_versions().set_parent(&parent).set_page_size(1000);
                        call.set_page_token(&token).send()
                    })
                })
                .await?;
            versions.extend(
                page.crypto_key_versions.into_iter().filter_map(|v| Some((Version::parse(&v.name)?, v))),
            );
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        versions.retain(|(version, _)| version.key == *key);
        versions.sort_by_key(|(version, _)| version.number);
        Ok(versions)
    }

    /// What is known of a version: remembered for the configured time.
    pub(crate) async fn info(&self, version: &Version) -> Result<Arc<KeyInfo>> {
        match self.known.recall(&version.to_string()) {
            Some(info) => Ok(info),
            None => self.fresh_info(version).await,
        }
    }

    /// The same, asked for anew.
    pub(crate) async fn fresh_info(&self, version: &Version) -> Result<Arc<KeyInfo>> {
        let name = version.to_string();
        let details = self.details(&name).await?;
        if let Some(failure) = details.as_ref().and_then(|d| not_enabled(d.state.name()?)) {
            return Err(failure.error);
        }
        let algorithm = details.as_ref().map(|d| &d.algorithm);
        let (public_key, algorithm) = self.public_key(&name, algorithm).await?;
        if self.known.last(&name).is_some_and(|before| before.public_key != public_key) {
            return Err(Error::internal("the service answers with another public key than before").next(
                "a version's public key never changes: look for something between here and the service",
            ));
        }
        let info = Arc::new(self.describe(version, public_key, &algorithm, details.as_ref())?);
        self.known.remember(&name, info.clone());
        Ok(info)
    }

    pub(crate) fn forget(&self, version: &Version) {
        self.known.forget(&version.to_string());
    }

    /// A version without its public key; `None` where the caller may only sign.
    pub(crate) async fn details(&self, name: &str) -> Result<Option<CryptoKeyVersion>> {
        let got = self
            .patience
            .persist(None, || {
                self.clients
                    .ask(fault::GET_VERSION, |client| client.get_crypto_key_version().set_name(name).send())
            })
            .await;
        match got {
            Ok(details) => Ok(Some(details)),
            Err(e) if e.kind() == ErrorKind::Denied => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The public key of a version, verified by its checksum, and its algorithm.
    pub(crate) async fn public_key(
        &self,
        name: &str,
        algorithm: Option<&CryptoKeyVersionAlgorithm>,
    ) -> Result<(PublicKey, CryptoKeyVersionAlgorithm)> {
        let known = algorithm.and_then(algorithm::known).map(|(key_type, _)| key_type);
        let post_quantum = known.is_some_and(algorithm::is_post_quantum);
        let got = self.public_key_as(name, post_quantum).await;
        match got {
            // Only the service knows that it is a post-quantum key, and refuses the usual form.
            Err(e) if e.kind() == ErrorKind::BadRequest && known.is_none() => {
                self.public_key_as(name, true).await
            }
            other => other,
        }
    }

    async fn public_key_as(
        &self,
        name: &str,
        post_quantum: bool,
    ) -> Result<(PublicKey, CryptoKeyVersionAlgorithm)> {
        self.patience
            .persist(None, || async {
                let answer = self
                    .clients
                    .ask(fault::VIEW_PUBLIC_KEY, |client| {
                        let call = client.get_public_key().set_name(name);
                        let raw =
                            |call: google_cloud_kms_v1::builder::key_management_service::GetPublicKey| {
                                call.set_public_key_format(PublicKeyFormat::NistPqc)
                            };
                        if post_quantum { raw(call) } else { call }.send()
                    })
                    .await?;
                if answer.name != name {
                    return Err(damaged("the public key is another version's"));
                }
                let public_key = if post_quantum { read_raw(&answer)? } else { read_pem(&answer)? };
                Ok((public_key, answer.algorithm))
            })
            .await
    }

    fn describe(
        &self,
        version: &Version,
        public_key: PublicKey,
        algorithm: &CryptoKeyVersionAlgorithm,
        details: Option<&CryptoKeyVersion>,
    ) -> Result<KeyInfo> {
        let unsupported =
            || Error::unsupported(format_args!("use a key with the algorithm {algorithm}"), "this backend");
        let (key_type, signs) = algorithm::known(algorithm).ok_or_else(unsupported)?;
        if public_key.key_type() != key_type {
            return Err(Error::internal(format!(
                "a {algorithm} key has a public key of {}",
                public_key.key_type()
            )));
        }
        let origin = match details {
            Some(d) if d.import_time.is_some() || !d.import_job.is_empty() => KeyOrigin::Imported,
            Some(d) if d.generate_time.is_some() => KeyOrigin::Generated,
            _ => KeyOrigin::Unknown,
        };
        Ok(KeyInfo {
            name: version.key_name(self.home.as_ref())?,
            public_key,
            algorithms: vec![signs],
            origin,
            extractable: Some(false),
            policy: KeyPolicy::default(),
            created: details.and_then(|d| d.create_time).and_then(|t| to_system_time(&t)),
            id: None,
            address: Some(version.address()),
            certificate: None,
        })
    }

    /// One page of the key ring: every enabled version that signs.
    pub(crate) async fn list(&self, request: &ListRequest) -> Result<KeyPage> {
        let ring = self.home.as_ref().ok_or_else(no_ring)?;
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(10_000) };
        let mut at = Place::read(request.page_token.as_deref())?;
        loop {
            let (versions, next) = self.versions_after(ring, at, size).await?;
            let keys: Vec<Option<KeyInfo>> = stream::iter(versions)
                .map(|version| async move { self.listed(&version).await })
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            let keys: Vec<_> = keys.into_iter().flatten().collect();
            match next {
                // Everything on the page went away while it was looked at.
                Some(next) if keys.is_empty() => at = next,
                next => return Ok(KeyPage { keys, next: next.map(|n| n.to_string()) }),
            }
        }
    }

    /// A version for a list: left out when it cannot be used.
    async fn listed(&self, version: &Version) -> Result<Option<KeyInfo>> {
        match self.info(version).await {
            Ok(info) => Ok(Some(KeyInfo::clone(&info))),
            Err(e) if [ErrorKind::NotFound, ErrorKind::Unsupported].contains(&e.kind()) => Ok(None),
            Err(e) if e.what().contains("disabled") || matches!(e.kind(), ErrorKind::Busy { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Up to `size` enabled versions from a place on, and the place of the next page if there is another version.
    async fn versions_after(
        &self,
        ring: &Ring,
        mut at: Place,
        size: usize,
    ) -> Result<(Vec<Version>, Option<Place>)> {
        let parent = ring.to_string();
        let mut found: Vec<(Version, String)> = Vec::new();
        loop {
            let page = self
                .patience
                .persist(None, || {
                    self.clients.ask(fault::LIST_KEYS, |client| {
                        let call = client.list_crypto_keys().set_parent(&parent).set_page_size(SERVICE_PAGE);
                        call.set_order_by("name").set_page_token(&at.token).send()
                    })
                })
                .await?;
            let after = at.clone();
            let keys = page.crypto_keys.iter().filter(|k| k.purpose == CryptoKeyPurpose::AsymmetricSign);
            let ids =
                keys.filter_map(|k| Some(k.name.rsplit_once('/')?.1)).filter(|id| *id >= after.key.as_str());
            let keys: Vec<_> = ids.map(|id| ring.key(id)).collect();
            let of_keys = stream::iter(keys).map(|key| async move { self.versions(&key).await });
            let mut versions = std::pin::pin!(of_keys.buffered(AT_ONCE));
            while let Some(of_key) = versions.next().await {
                let enabled = of_key?.into_iter().filter(|(_, v)| v.state == State::Enabled);
                let enabled = enabled.filter(|(_, v)| algorithm::known(&v.algorithm).is_some());
                let wanted = enabled.filter(|(v, _)| v.key.id != after.key || v.number > after.version);
                found.extend(wanted.map(|(version, _)| (version, at.token.clone())));
                if found.len() > size {
                    found.truncate(size);
                    let next = found.last().map(|(version, token)| Place {
                        key: version.key.id.clone(),
                        version: version.number,
                        token: token.clone(),
                    });
                    return Ok((found.into_iter().map(|(v, _)| v).collect(), next));
                }
            }
            if page.next_page_token.is_empty() {
                return Ok((found.into_iter().map(|(v, _)| v).collect(), None));
            }
            at = Place { token: page.next_page_token, ..at };
        }
    }
}

/// Where a list goes on: after a version, on a page of the service.
#[derive(Clone, Default)]
struct Place {
    key: String,
    version: u64,
    token: String,
}

impl Place {
    fn read(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        let place = || {
            let (name, token) = text.split_once(' ')?;
            let (key, version) = name.split_once('@')?;
            let version = version.parse().ok()?;
            Key::allows(key).then(|| Self { key: key.to_owned(), version, token: token.to_owned() })
        };
        place().ok_or_else(|| {
            Error::bad_request("this page token is not from this backend").next("list from the start")
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} {}", self.key, self.version, self.token)
    }
}

pub(crate) fn no_ring() -> Error {
    Error::bad_request("no key ring is configured: keys are opened by their address alone")
        .next("set project, location and key_ring")
}

fn read_pem(answer: &model::PublicKey) -> Result<PublicKey, Failure> {
    if answer.pem_crc32c != Some(crc32c(answer.pem.as_bytes())) {
        return Err(damaged("the checksum of a public key is wrong"));
    }
    Ok(PublicKey::from_pem(&answer.pem)?)
}

fn read_raw(answer: &model::PublicKey) -> Result<PublicKey, Failure> {
    let Some((key_type, _)) = algorithm::known(&answer.algorithm) else {
        let what = format!("use a key with the algorithm {}", answer.algorithm);
        return Err(Error::unsupported(what, "this backend").into());
    };
    let key = answer.public_key.as_ref().ok_or_else(|| damaged("a public key is missing"))?;
    if key.crc32c_checksum != Some(crc32c(&key.data)) {
        return Err(damaged("the checksum of a public key is wrong"));
    }
    Ok(PublicKey::from_raw(key_type, &key.data)?)
}

/// A checksum as the service writes it.
pub(crate) fn crc32c(bytes: &[u8]) -> i64 {
    i64::from(::crc32c::crc32c(bytes))
}

fn to_system_time(time: &google_cloud_wkt::Timestamp) -> Option<SystemTime> {
    UNIX_EPOCH
        .checked_add(Duration::new(u64::try_from(time.seconds()).ok()?, u32::try_from(time.nanos()).ok()?))
}
