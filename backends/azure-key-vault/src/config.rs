//! What is configured.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use signer_remote::Patience;

/// Which vault, how it is reached, and who asks. No secret is in it: a client secret is in a file or in the environment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// The vault: `https://NAME.vault.azure.net`, `https://NAME.managedhsm.azure.net`, or the host alone.
    pub vault: String,
    /// Another IP address for the vault than the one that its name leads to: a private endpoint.
    pub address: Option<IpAddr>,
    /// A PEM file of CA certificates that are accepted beside the system's.
    pub ca: Option<PathBuf>,
    /// Where new keys are.
    #[serde(default)]
    pub key_place: KeyPlace,
    /// Which credentials are used.
    #[serde(default)]
    pub credential: CredentialKind,
    /// The tenant; `AZURE_TENANT_ID` if it is not given.
    pub tenant: Option<String>,
    /// The application, or the user-assigned managed identity; `AZURE_CLIENT_ID` if it is not given.
    pub client_id: Option<String>,
    /// Where the application's secret is; `AZURE_CLIENT_SECRET` if it is not given.
    pub client_secret: Option<SecretFrom>,
    /// The file of a workload's token; `AZURE_FEDERATED_TOKEN_FILE` if it is not given.
    pub federated_token: Option<PathBuf>,
    /// Where tokens are had: `https://login.microsoftonline.com`, or another cloud's; `AZURE_AUTHORITY_HOST` if it is not
    /// given.
    pub authority: Option<String>,
    /// For how many seconds public keys are remembered; 3600 by default.
    pub public_key_lifetime: Option<u64>,
    /// Seconds that one attempt may take; 3 by default.
    pub attempt_timeout: Option<u64>,
    /// Seconds that a request without a deadline may take; 20 by default.
    pub timeout: Option<u64>,
}

impl AzureConfig {
    /// That vault, with everything else as usual.
    pub fn new(vault: impl Into<String>) -> Self {
        Self {
            vault: vault.into(),
            address: None,
            ca: None,
            key_place: KeyPlace::default(),
            credential: CredentialKind::default(),
            tenant: None,
            client_id: None,
            client_secret: None,
            federated_token: None,
            authority: None,
            public_key_lifetime: None,
            attempt_timeout: None,
            timeout: None,
        }
    }

    /// The same with relative paths taken from a folder: that of the configuration file.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        self.ca = self.ca.map(|path| folder.join(path));
        self.federated_token = self.federated_token.map(|path| folder.join(path));
        self.client_secret = self.client_secret.map(|from| match from {
            SecretFrom::File(path) => SecretFrom::File(folder.join(path)),
            other @ SecretFrom::Env(_) => other,
        });
        self
    }

    pub(crate) fn patience(&self) -> Patience {
        let seconds = |s: Option<u64>, default| Duration::from_secs(s.unwrap_or(default).clamp(1, 600));
        Patience { attempt: seconds(self.attempt_timeout, 3), total: seconds(self.timeout, 20) }
    }

    pub(crate) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.public_key_lifetime.unwrap_or(3600))
    }
}

/// Where a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPlace {
    /// Where the vault keeps them by default: software in a standard vault. A Managed HSM has hardware only, which needs
    /// no setting.
    #[default]
    Vault,
    /// In a hardware security module: key types `EC-HSM` and `RSA-HSM` of a premium vault.
    Hsm,
}

/// Which credentials are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// The first that is there: a client secret, a workload's token, a managed identity, the Azure CLI, the Azure Developer
    /// CLI.
    #[default]
    Default,
    /// An application with its secret.
    ClientSecret,
    /// A workload's token: Kubernetes, GitHub Actions.
    WorkloadIdentity,
    /// The identity of this machine.
    ManagedIdentity,
    /// Whoever is logged in with `az login`.
    Cli,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretFrom {
    /// In a file; a line end at its end does not count.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}
