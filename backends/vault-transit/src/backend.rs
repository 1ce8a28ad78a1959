//! The backend: the traits over the client.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use signer_core::{
    Address, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Generate, GenerateRequest, KeyInfo,
    KeyName, KeyPage, KeySelector, KeyType, ListRequest, Result, Rotate, Signer,
};

use crate::{
    SecretLoader, VaultConfig,
    client::Client,
    delete, fault,
    http::Http,
    key::{Made, TransitKey, Version},
    login::Source,
    name,
    session::Session,
    signer::{Shared, VaultSigner},
    target::Target,
};

/// Keys in a transit secrets engine.
///
/// Nothing is connected to until something is asked for. It must be polled on a tokio runtime with timers and I/O.
pub struct VaultBackend {
    shared: Arc<Shared>,
    allow_deletion: bool,
    /// One key is made at a time: Vault answers who asks for a key that is there as it answers who makes it, so the look
    /// before must be one step with the making. Only two daemons that make the same key at the same moment both get it.
    making: tokio::sync::Mutex<()>,
}

const LIFETIME: u64 = 3600;
/// What Vault takes by default as one text of a request, without base64.
const MAX_MESSAGE: u64 = (1 << 20) / 4 * 3;
/// So many keys are read at once for a list.
const AT_ONCE: usize = 8;

impl VaultBackend {
    /// Takes the configuration, and from the environment what it leaves open. `name` is the backend's configured name.
    pub fn new(name: impl Into<String>, config: VaultConfig<SecretLoader>) -> Result<Self> {
        let target = Target::new(&config, |name| std::env::var(name).ok())?;
        let source = Source::new(config.login)?;
        let session = Session::new(Http::new(target), source);
        let shared = Shared {
            name: name.into(),
            client: Client::new(session),
            lifetime: Duration::from_secs(config.public_key_lifetime.unwrap_or(LIFETIME)),
            max_message: config.max_message.unwrap_or(MAX_MESSAGE),
        };
        Ok(Self {
            shared: Arc::new(shared),
            allow_deletion: config.allow_deletion,
            making: tokio::sync::Mutex::default(),
        })
    }

    fn client(&self) -> &Client {
        &self.shared.client
    }

    async fn describe_now(&self) -> Result<BackendInfo> {
        let health: ServerHealth =
            self.client().ask_anonymously("sys/health", STANDBY_IS_FINE).await?.read()?;
        let target = self.client().http().target();
        let mut generates: Vec<_> = KeyType::ALL.into_iter().filter(|t| !is_ml_dsa(*t)).collect();
        if health.has_ml_dsa() {
            generates.extend(KeyType::ALL.into_iter().filter(|t| is_ml_dsa(*t)));
        }
        let namespace = target.namespace.as_ref().map_or_else(String::new, |n| format!(", namespace {n}"));
        Ok(BackendInfo {
            kind: "vault-transit".into(),
            device: format!("{} {}{namespace}", target.shown, target.mount),
            model: "transit secrets engine of HashiCorp Vault or OpenBao".into(),
            firmware: health.version,
            serial: health.cluster_id,
            generates,
            imports: Vec::new(),
            max_message: Some(self.shared.max_message),
        })
    }

    /// The engine is there, and the token is good for something in it.
    async fn health_now(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Body {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            #[serde(rename = "type")]
            kind: String,
        }
        let mount = &self.client().http().target().mount;
        let answer = self.client().read(&format!("sys/internal/ui/mounts/{mount}")).await;
        let answer = answer.map_err(|e| match e.kind() {
            ErrorKind::Denied if e.what().contains("lack") => Error::new(
                ErrorKind::Denied,
                format!("there is no engine at {mount}, or the token's policies allow nothing in it"),
            )
            .next("check mount and namespace, and the token's policies (vault token lookup)"),
            _ => e,
        })?;
        let kind = answer.read::<Body>()?.data.kind;
        if kind != "transit" {
            return Err(Error::bad_request(format!("the engine at {mount} is called {kind}, not transit"))
                .next("set mount to where the transit engine is"));
        }
        self.client().session().trouble().map_or(Ok(()), Err)
    }

    async fn list_now(&self, request: &ListRequest) -> Result<KeyPage> {
        let names = self.names().await?;
        let mut names: Vec<(String, String)> = names
            .into_iter()
            .filter_map(|name| Some((KeyName::label(name::to_label(&name)).ok()?.to_string(), name)))
            .collect();
        names.sort_unstable();
        // Versions of one key stand together: tokens are `name@version` of the last key given.
        let after = request.page_token.as_deref().map(PageToken::read).transpose()?;
        let size = if request.page_size == 0 { 1000 } else { request.page_size };
        let start = after.as_ref().map_or(0, |a| names.partition_point(|(shown, _)| *shown < a.key));
        let mut keys = stream::iter(names.drain(start..))
            .map(|(shown, name)| async move { (shown, self.shared.key(&name).await) })
            .buffered(AT_ONCE);
        let mut page = KeyPage::default();
        while let Some((shown, key)) = keys.next().await {
            let key = match key {
                Ok(key) => key,
                // Symmetric keys, and what was deleted meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let first = after.as_ref().filter(|a| a.key == shown).map_or(0, |a| a.version + 1);
            for version in key.versions.range(first..).map(|(v, _)| *v) {
                if page.keys.len() == size {
                    page.next = page.keys.last().map(|k| k.name.to_string());
                    return Ok(page);
                }
                page.keys.extend(key.info(version)?);
            }
        }
        Ok(page)
    }

    /// The names of all transit keys; none where the engine has no keys.
    async fn names(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Body {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            keys: Vec<String>,
        }
        match self.client().list(&self.client().path("keys")).await {
            Ok(answer) => Ok(answer.read::<Body>()?.data.keys),
            Err(e) if e.kind() == ErrorKind::NotFound && e.vendor_code() == Some("HTTP 404") => {
                Ok(Vec::new())
            }
            Err(e) => Err(e),
        }
    }

    async fn open_now(&self, selector: &KeySelector) -> Result<Arc<dyn Signer>> {
        let (name, version) = wanted(selector)?;
        let key = self.shared.key(&name).await?;
        let number = version.unwrap_or(key.latest);
        let info = key.info(number)?.ok_or_else(no_version)?;
        Ok(Arc::new(VaultSigner::new(self.shared.clone(), &key, number, info, version.is_none())))
    }

    async fn generate_now(&self, request: GenerateRequest) -> Result<KeyInfo> {
        let GenerateRequest { name, key_type, id, policy } = request;
        policy.none(&self.shared.name)?;
        if id.is_some() {
            return Err(Error::bad_request("keys in Vault have no identifier besides their name")
                .next("leave the identifier out"));
        }
        if name.version().is_some() {
            return Err(Error::bad_request("the version of a new key is not chosen: it is 1")
                .next("leave out the @ and what follows"));
        }
        let label = name.as_label().ok_or_else(|| {
            Error::bad_request("keys in Vault are named by a label, not by an identifier")
                .next("choose a name that does not begin with id:")
        })?;
        let key = name::of_label(label);
        let path = self.client().path(&format!("keys/{key}"));
        let taken = || {
            Error::new(ErrorKind::AlreadyExists, "there is a key of that name already")
                .next("choose another name, or make a new version of it with `signer keys rotate`")
        };
        let _turn = self.making.lock().await;
        match self.client().read(&path).await {
            Ok(_) => return Err(taken()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let body = match key_type {
            KeyType::MlDsa44 => json!({ "type": "ml-dsa", "parameter_set": "44" }),
            KeyType::MlDsa65 => json!({ "type": "ml-dsa", "parameter_set": "65" }),
            KeyType::MlDsa87 => json!({ "type": "ml-dsa", "parameter_set": "87" }),
            other => json!({ "type": other.name() }),
        };
        let answer = self.client().change(Method::POST, &path, Some(&body)).await?;
        // Some servers say so.
        if matches!(Made::read(&answer)?, Made::Old) {
            return Err(taken());
        }
        self.newest(&key).await
    }

    async fn rotate_now(&self, name: &KeyName) -> Result<KeyInfo> {
        if name.version().is_some() {
            return Err(Error::bad_request("a new version is made of a key, not of a version of it")
                .next("leave out the @ and what follows"));
        }
        let (key, _) = wanted(&KeySelector::Name(name.clone()))?;
        self.shared.key(&key).await?;
        let path = self.client().path(&format!("keys/{key}/rotate"));
        self.client().change(Method::POST, &path, Some(&json!({}))).await?;
        self.newest(&key).await
    }

    /// The version that was just made.
    async fn newest(&self, name: &str) -> Result<KeyInfo> {
        let made = |e: Error| e.may_have_happened();
        let key: TransitKey = self.shared.key(name).await.map_err(made)?;
        key.info(key.latest)?
            .ok_or_else(|| made(fault::of_nonsense("Vault describes a key without its latest version")))
    }

    async fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let (name, version) = wanted(selector)?;
        match version {
            Some(version) => delete::version(&self.shared, &name, version, self.allow_deletion).await,
            None => delete::key(&self.shared, &name, self.allow_deletion).await,
        }
    }

    fn about<T>(&self, key: impl std::fmt::Display, result: Result<T>) -> Result<T> {
        result.map_err(|e| self.client().here(e.key(key)))
    }

    fn here<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| self.client().here(e))
    }
}

/// The transit key that a selector means, and the version if it names one.
fn wanted(selector: &KeySelector) -> Result<(String, Option<Version>)> {
    let not_found = || Error::new(ErrorKind::NotFound, "there is no such key in the transit engine");
    match selector {
        KeySelector::Name(wanted) => {
            let label = wanted.as_label().ok_or_else(not_found)?;
            let version = match wanted.version() {
                Some(text) => Some(text.parse().ok().filter(|n| *n > 0).ok_or_else(no_version)?),
                None => None,
            };
            Ok((name::of_label(label), version))
        }
        KeySelector::Address(Address::HashiVault(address)) if name::is_name(&address.key) => {
            Ok((address.key.clone(), None))
        }
        KeySelector::Address(_) => Err(not_found()),
    }
}

fn no_version() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such version of the key")
}

fn is_ml_dsa(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87)
}

/// A standby node answers, too, and forwards.
const STANDBY_IS_FINE: &str = "?standbyok=true&perfstandbyok=true";

/// `GET sys/health`, as far as it matters here.
#[derive(Deserialize)]
struct ServerHealth {
    #[serde(default)]
    version: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    enterprise: bool,
}

impl ServerHealth {
    /// ML-DSA came with Vault Enterprise 1.19.
    fn has_ml_dsa(&self) -> bool {
        let mut numbers = self.version.split(['.', '+', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        self.enterprise && version >= (1, 19)
    }
}

/// Where a list goes on: after this version of this key.
struct PageToken {
    key: String,
    version: Version,
}

impl PageToken {
    fn read(text: &str) -> Result<Self> {
        let read = || {
            let name: KeyName = text.parse().ok()?;
            let version = name.version()?.parse().ok()?;
            Some(Self { key: name.without_version().to_string(), version })
        };
        read().ok_or_else(|| Error::bad_request("this page token was not given by this backend"))
    }
}

impl Backend for VaultBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move { self.here(self.describe_now().await) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.here(self.list_now(&request).await) })
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

impl Generate for VaultBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let name = request.name.clone();
            self.about(&name, self.generate_now(request).await)
        })
    }
}

impl Delete for VaultBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.delete_now(key).await) })
    }
}

impl Rotate for VaultBackend {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move { self.about(name, self.rotate_now(name).await) })
    }
}
