//! The client of the vault, built once, and its credentials.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use signer_core::{Error, ErrorKind, Result};
use signer_remote::Failure;

use crate::{
    AzureConfig,
    credential::Chain,
    fault::{CREDENTIAL_ADVICE, Doing, GET, classify},
    name::Vault,
};

/// Makes clients: one, until the vault says that its credentials are no good.
pub(crate) struct Clients {
    config: AzureConfig,
    vault: Vault,
    current: Mutex<Option<Client>>,
    /// When it was last found out whether credentials can be had anew, and what came of it.
    renewal: Mutex<Option<(Instant, Result<()>)>>,
}

#[derive(Clone)]
struct Client {
    service: Arc<KeyClient>,
    since: Instant,
}

/// Credentials are not built anew more often than this.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Whether credentials can be renewed is tried this often: each time costs a token.
const PROBE_PAUSE: Duration = Duration::from_mins(1);

impl Clients {
    pub(crate) fn new(config: AzureConfig, vault: Vault) -> Self {
        Self { config, vault, current: Mutex::default(), renewal: Mutex::default() }
    }

    /// One attempt at a call.
    pub(crate) async fn ask<T, F: Future<Output = azure_core::Result<T>>>(
        &self,
        doing: Doing,
        call: impl FnOnce(Arc<KeyClient>) -> F,
    ) -> Result<T, Failure> {
        let client = self.client()?;
        let error = match call(client.service).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let refused = error.http_status().map(u16::from) == Some(401);
        if refused || matches!(error.kind(), azure_core::error::ErrorKind::Credential) {
            self.drop_older_than(client.since);
        }
        Err(classify(error, doing))
    }

    /// Whether credentials can be had anew: before those in use run out.
    pub(crate) async fn can_renew(&self) -> Result<()> {
        let known = self.renewal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((when, result)) = known
            && (result.is_ok() && when.elapsed() < PROBE_PAUSE || when.elapsed() < RENEWAL_PAUSE)
        {
            return result;
        }
        let result = self.renew_once().await;
        *self.renewal.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), result.clone()));
        result
    }

    async fn renew_once(&self) -> Result<()> {
        let chain = Chain::new(&self.config, &self.transport()?)?;
        let scope = self.vault.scope();
        let got =
            tokio::time::timeout(self.config.patience().attempt, chain.get_token(&[&scope], None)).await;
        match got {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => {
                let cause = classify(e, GET).error;
                let new = Error::new(cause.kind(), "the credentials for Azure cannot be renewed");
                Err(new.vendor(cause.vendor_code().unwrap_or_default()).next(CREDENTIAL_ADVICE))
            }
            Err(_) => Err(Error::new(ErrorKind::DeviceGone, "Microsoft's token service does not answer")),
        }
    }

    fn client(&self) -> Result<Client, Failure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let transport = self.transport()?;
        let credential = Chain::new(&self.config, &transport)?;
        let options = KeyClientOptions {
            client_options: ClientOptions {
                transport: Some(transport),
                // Retries are ours: the client's own go on for a minute, whatever the caller's deadline.
                retry: RetryOptions::none(),
                ..Default::default()
            },
            ..Default::default()
        };
        let service = KeyClient::new(self.vault.url().as_str(), credential, Some(options))
            .map_err(|e| Error::bad_request("Microsoft's client cannot be set up").vendor(e))?;
        let client = Client { service: Arc::new(service), since: Instant::now() };
        *current = Some(client.clone());
        Ok(client)
    }

    fn drop_older_than(&self, since: Instant) {
        if since.elapsed() < RENEWAL_PAUSE {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|c| c.since <= since) {
            *current = None;
        }
    }

    /// Connections, with time limits of their own: an HTTP client that is given to the SDK has none.
    fn transport(&self) -> Result<Transport> {
        let attempt = self.config.patience().attempt;
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(attempt)
            .timeout(attempt.saturating_mul(2));
        if let Some(path) = &self.config.ca {
            let unusable =
                || Error::bad_request(format!("{} is not a file of CA certificates", path.display()));
            let pem = std::fs::read(path).map_err(|e| unusable().vendor(e))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| unusable().vendor(e))?;
            if certificates.is_empty() {
                return Err(unusable());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(address) = self.config.address {
            builder = builder.resolve(self.vault.host(), (address, 0).into());
        }
        let client =
            builder.build().map_err(|e| Error::internal("the HTTP client cannot be set up").vendor(e))?;
        Ok(Transport::new(Arc::new(client)))
    }
}
