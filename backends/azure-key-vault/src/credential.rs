//! Who asks: Microsoft's own credentials, in the order that its users expect.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions},
    error::ErrorKind as AzureKind,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use signer_core::{Error, ErrorKind, Result};

use crate::{AzureConfig, CredentialKind, SecretFrom, fault::CREDENTIAL_ADVICE};

/// The first source that gives a token is asked from then on.
pub(crate) struct Chain {
    sources: Vec<Source>,
    chosen: Mutex<Option<usize>>,
}

struct Source {
    name: &'static str,
    credential: Arc<dyn TokenCredential>,
}

impl Chain {
    /// The credentials of a configuration. Secrets are read now; tokens are asked for when they are needed.
    pub(crate) fn new(config: &AzureConfig, transport: &Transport) -> Result<Arc<Self>> {
        let maker = Maker { config, transport };
        let mut sources = Vec::new();
        let mut add = |name, made: Result<Option<Arc<dyn TokenCredential>>>| -> Result<()> {
            if let Some(credential) = made? {
                sources.push(Source { name, credential });
            }
            Ok(())
        };
        let only = |kind| [CredentialKind::Default, kind].contains(&config.credential);
        if only(CredentialKind::ClientSecret) {
            add("a client secret", maker.client_secret())?;
        }
        if only(CredentialKind::WorkloadIdentity) {
            add("a workload's token", maker.workload())?;
        }
        if only(CredentialKind::ManagedIdentity) {
            add("a managed identity", maker.managed())?;
        }
        if only(CredentialKind::Cli) {
            add("the Azure CLI", Maker::cli())?;
        }
        if config.credential == CredentialKind::Default {
            add("the Azure Developer CLI", Maker::developer_cli())?;
        }
        if sources.is_empty() {
            return Err(Error::new(ErrorKind::Denied, "the configured kind of credential is not there")
                .next(CREDENTIAL_ADVICE));
        }
        Ok(Arc::new(Self { sources, chosen: Mutex::default() }))
    }

    fn chosen(&self) -> Option<usize> {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.iter().map(|s| s.name)).finish()
    }
}

#[async_trait::async_trait]
impl TokenCredential for Chain {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if let Some(source) = self.chosen().and_then(|at| self.sources.get(at)) {
            return source.credential.get_token(scopes, options).await;
        }
        let mut refused = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            match source.credential.get_token(scopes, options.clone()).await {
                Ok(token) => {
                    *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
                    return Ok(token);
                }
                Err(e) if self.sources.len() == 1 => return Err(e),
                Err(e) => refused.push(format!("{}: {}", source.name, first_words(&e))),
            }
        }
        Err(azure_core::Error::with_message(AzureKind::Credential, refused.join("; ")))
    }
}

fn first_words(error: &azure_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(100).collect()
}

/// Makes credentials; `None` where a kind is not there.
struct Maker<'a> {
    config: &'a AzureConfig,
    transport: &'a Transport,
}

type Made = Result<Option<Arc<dyn TokenCredential>>>;

impl Maker<'_> {
    fn client_secret(&self) -> Made {
        let config = self.config;
        let needed = config.credential == CredentialKind::ClientSecret || config.client_secret.is_some();
        let secret = match &config.client_secret {
            Some(from) => Some(read(from)?),
            None => variable("AZURE_CLIENT_SECRET"),
        };
        let parts = (self.tenant(), self.client_id(), secret);
        let (Some(tenant), Some(client_id), Some(secret)) = parts else {
            let missing = || {
                Error::new(
                    ErrorKind::Denied,
                    "a client secret needs the tenant, the application and the secret",
                )
                .next(CREDENTIAL_ADVICE)
            };
            return if needed { Err(missing()) } else { Ok(None) };
        };
        let options = ClientSecretCredentialOptions { client_options: self.options() };
        let made = ClientSecretCredential::new(&tenant, client_id, Secret::new(secret), Some(options));
        Ok(Some(made.map_err(|e| unusable(&e))?))
    }

    fn workload(&self) -> Made {
        let there = self.config.federated_token.is_some() || variable("AZURE_FEDERATED_TOKEN_FILE").is_some();
        if !there && self.config.credential == CredentialKind::Default {
            return Ok(None);
        }
        let options = WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options: self.options() },
            client_id: self.config.client_id.clone(),
            tenant_id: self.config.tenant.clone(),
            token_file_path: self.config.federated_token.clone(),
        };
        Ok(Some(WorkloadIdentityCredential::new(Some(options)).map_err(|e| unusable(&e))?))
    }

    fn managed(&self) -> Made {
        let identity = self.client_id().map(UserAssignedId::ClientId);
        let options =
            ManagedIdentityCredentialOptions { user_assigned_id: identity, client_options: self.options() };
        Ok(Some(ManagedIdentityCredential::new(Some(options)).map_err(|e| unusable(&e))?))
    }

    fn cli() -> Made {
        Ok(Some(AzureCliCredential::new(None).map_err(|e| unusable(&e))?))
    }

    fn developer_cli() -> Made {
        Ok(Some(AzureDeveloperCliCredential::new(None).map_err(|e| unusable(&e))?))
    }

    fn tenant(&self) -> Option<String> {
        self.config.tenant.clone().or_else(|| variable("AZURE_TENANT_ID"))
    }

    fn client_id(&self) -> Option<String> {
        self.config.client_id.clone().or_else(|| variable("AZURE_CLIENT_ID"))
    }

    /// The vault's transport, without the client's own retries.
    fn options(&self) -> ClientOptions {
        let cloud = self.config.authority.as_ref().map(|authority| {
            let mut custom = CustomConfiguration::default();
            custom.authority_host.clone_from(authority);
            Arc::new(CloudConfiguration::from(custom))
        });
        ClientOptions {
            transport: Some(self.transport.clone()),
            retry: RetryOptions::none(),
            cloud,
            ..Default::default()
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(from: &SecretFrom) -> Result<String> {
    let denied = |what: String| Error::new(ErrorKind::Denied, what).next(CREDENTIAL_ADVICE);
    match from {
        SecretFrom::File(path) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|e| denied(format!("the client secret in {} cannot be read", path.display())).vendor(e)),
        SecretFrom::Env(name) => {
            variable(name).ok_or_else(|| denied(format!("the variable {name} is not set")))
        }
    }
}

fn unusable(error: &azure_core::Error) -> Error {
    Error::new(ErrorKind::Denied, "the credentials for Azure cannot be used")
        .vendor(first_words(error))
        .next(CREDENTIAL_ADVICE)
}
