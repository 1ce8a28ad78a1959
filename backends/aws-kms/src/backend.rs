//! The backend: the traits over the client.

use std::{sync::Arc, time::Duration};

use signer_core::{
    Address, AwsKmsAddress, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Generate,
    GenerateRequest, KeyInfo, KeyPage, KeySelector, ListRequest, Result, Signer,
};

use crate::{
    AwsConfig,
    client::Client,
    credentials::Lookout,
    delete,
    fault::{self, Asked},
    generate, inventory,
    key::Lacks,
    name,
    shared::Shared,
    signer::{KmsSigner, MAX_MESSAGE},
};

/// Keys in one account and region of AWS KMS.
///
/// Nothing is connected to until something is asked for. It must be polled on a tokio runtime with timers and I/O.
pub struct AwsBackend {
    shared: Arc<Shared>,
    lookout: Lookout,
    /// One key is made at a time, so that two of one name are told apart before there are two keys.
    making: tokio::sync::Mutex<()>,
}

const LIFETIME: u64 = 3600;
/// A service that answered in this time, with nothing failed since, is not asked again to prove its health.
const HEALTHY_FOR: Duration = Duration::from_secs(10);

impl AwsBackend {
    /// Takes the configuration. `name` is the backend's configured name.
    pub fn new(name: impl Into<String>, config: AwsConfig) -> Result<Self> {
        delete::window(config.deletion_window_days)?;
        let lacks = Lacks::read(&config.lacks)?;
        let lifetime = Duration::from_secs(config.public_key_lifetime.unwrap_or(LIFETIME));
        let shared = Shared::new(name.into(), Client::new(config), lifetime, lacks);
        Ok(Self {
            shared: Arc::new(shared),
            lookout: Lookout::default(),
            making: tokio::sync::Mutex::default(),
        })
    }

    async fn describe_now(&self) -> Result<BackendInfo> {
        let connection = self.shared.client.connection().await?;
        let device = match &connection.endpoint {
            Some(endpoint) => format!("{endpoint} {}", connection.region),
            None => connection.region.clone(),
        };
        Ok(BackendInfo {
            kind: "aws-kms".into(),
            device,
            model: "AWS Key Management Service".into(),
            firmware: String::new(),
            serial: String::new(),
            generates: self.shared.lacks.rest(),
            imports: Vec::new(),
            max_message: Some(MAX_MESSAGE as u64),
        })
    }

    async fn open_now(&self, selector: &KeySelector) -> Result<Arc<dyn Signer>> {
        let asked = self.wanted(selector).await?;
        let key = self.shared.describe(&asked).await?;
        key.usable()?;
        let alias =
            if asked.starts_with(name::ALIAS) { Some(asked.clone()) } else { self.alias_of(&key.id).await? };
        let info = inventory::info(&self.shared, &key, alias.as_deref()).await?;
        Ok(Arc::new(KmsSigner::new(self.shared.clone(), info, key, asked)))
    }

    /// The alias that a key is listed under; none where these credentials may not see it.
    async fn alias_of(&self, key_id: &str) -> Result<Option<String>> {
        match inventory::aliases(&self.shared, Some(key_id)).await {
            Ok(aliases) => Ok(aliases
                .into_iter()
                .map(|(alias, _)| alias)
                .find(|alias| !name::is_key_id(&alias[name::ALIAS.len()..]))),
            Err(e) if e.kind() == ErrorKind::Denied => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What the service is asked for: an alias, a key id or an ARN.
    async fn wanted(&self, selector: &KeySelector) -> Result<String> {
        match selector {
            KeySelector::Name(wanted) => {
                let label =
                    wanted.as_label().filter(|_| wanted.version().is_none()).ok_or_else(fault::no_key)?;
                Ok(name::key_id_of(label))
            }
            KeySelector::Address(Address::AwsKms(address)) => self.wanted_address(address).await,
            KeySelector::Address(_) => Err(fault::no_key()),
        }
    }

    /// An address of another endpoint or region is not in this place.
    async fn wanted_address(&self, address: &AwsKmsAddress) -> Result<String> {
        let elsewhere = |what: &str| {
            Err(Error::new(ErrorKind::NotFound, format!("the key is in another {what} than this backend")))
        };
        if address.endpoint.is_some() && address.endpoint != self.shared.endpoint().await? {
            return elsewhere("endpoint");
        }
        let region = &self.shared.client.connection().await?.region;
        // arn:aws:kms:REGION:ACCOUNT:key/ID
        if address.key_id.starts_with("arn:") && address.key_id.split(':').nth(3) != Some(region) {
            return elsewhere("region");
        }
        Ok(address.key_id.clone())
    }

    async fn health_now(&self) -> Result<()> {
        let connection = self.shared.client.connection().await?;
        self.lookout.check(connection.credentials.as_ref()).await?;
        if self.shared.client.answered_within(HEALTHY_FOR) {
            return Ok(());
        }
        let asked = Asked { action: "ListKeys", on: "*", repeatable: true };
        match self.shared.client.call(asked, None, |c| c.list_keys().limit(1).send()).await {
            Ok(_) => Ok(()),
            // Who may sign need not list: the service has answered, and takes the credentials.
            Err(e) if e.what().contains("does not permit kms:ListKeys") => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn generate_now(&self, request: GenerateRequest) -> Result<KeyInfo> {
        let _turn = self.making.lock().await;
        generate::generate(&self.shared, request).await
    }

    async fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let asked = self.wanted(selector).await?;
        delete::key(&self.shared, &asked).await
    }

    fn about<T>(&self, key: impl std::fmt::Display, result: Result<T>) -> Result<T> {
        self.here(result.map_err(|e| e.key(key)))
    }

    fn here<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.device(&self.shared.name))
    }
}

impl Backend for AwsBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move { self.here(self.describe_now().await) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.here(inventory::list(&self.shared, &request).await) })
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
}

impl Generate for AwsBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let name = request.name.clone();
            self.about(&name, self.generate_now(request).await)
        })
    }
}

impl Delete for AwsBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.delete_now(key).await) })
    }
}
