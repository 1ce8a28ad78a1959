//! Azure Key Vault: the test engine's face over TLS, under a vault's real name, and Microsoft's own client with an
//! application of the engine.

use std::{path::PathBuf, sync::Arc};

use hwtests_kms_engine::{AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT, Engine as KmsEngine};
use signer_azure_key_vault::{AzureConfig, AzureKeyVault, CredentialKind, SecretFrom};
use signer_contract::{Names, PinSetup, Profile};
use signer_core::{Backend, BoxFuture, KeyType, Result, SignatureAlgorithm};
use tempfile::TempDir;

use super::{Engine, cloud_profile, private_file};
use crate::toml_path;

/// A vault of its own.
pub struct Azure {
    folder: TempDir,
    engine: KmsEngine,
}

impl Azure {
    /// Starts a service with an empty vault.
    pub fn start() -> Self {
        let this = Self { folder: super::temporary(), engine: KmsEngine::start() };
        private_file(&this.ca(), this.engine.ca_pem());
        private_file(&this.secret(), AZURE_CLIENT_SECRET);
        this
    }

    /// The engine behind it: faults and counters.
    pub fn kms(&self) -> &KmsEngine {
        &self.engine
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("client-secret")
    }

    /// The vault's real name leads to the engine.
    fn vault(&self) -> String {
        format!("https://tests.vault.azure.net:{}", self.engine.tls_address().port())
    }

    /// What is configured.
    pub fn config(&self) -> AzureConfig {
        AzureConfig {
            address: Some(self.engine.tls_address().ip()),
            ca: Some(self.ca()),
            credential: CredentialKind::ClientSecret,
            tenant: Some(AZURE_TENANT.into()),
            client_id: Some(AZURE_CLIENT_ID.into()),
            client_secret: Some(SecretFrom::File(self.secret())),
            authority: Some(self.engine.tls_url()),
            ..AzureConfig::new(self.vault())
        }
    }
}

impl Engine for Azure {
    fn toml(&self, name: &str, _: PinSetup) -> String {
        format!(
            "[[backend]]\nname = \"{name}\"\nkind = \"azure-key-vault\"\nvault = \"{}\"\naddress = \"{}\"\nca = {}\n\
             credential = \"client-secret\"\ntenant = \"{AZURE_TENANT}\"\nclient_id = \"{AZURE_CLIENT_ID}\"\n\
             client_secret = {{ file = {} }}\nauthority = \"{}\"\n",
            self.vault(),
            self.engine.tls_address().ip(),
            toml_path(&self.ca()),
            toml_path(&self.secret()),
            self.engine.tls_url()
        )
    }

    fn direct(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { Ok(Arc::new(AzureKeyVault::new("azure", self.config())?) as Arc<dyn Backend>) })
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn pin(&self) -> String {
        String::new()
    }

    fn pin_file(&self, _: PinSetup) -> Option<PathBuf> {
        None
    }
}

/// ECDSA and RSA alone, a curve with its own hash only. A version of several cannot be deleted, and the name of a
/// deleted key is not free.
pub(crate) fn profile() -> Profile {
    let not_there = [KeyType::Ed25519, KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87];
    let mut profile = cloud_profile().without_types(&not_there);
    for (key_type, algorithms) in &mut profile.algorithms {
        algorithms
            .retain(|a| !matches!(a, SignatureAlgorithm::Ecdsa(_)) || *a == key_type.default_algorithm());
    }
    profile.names = Names::restricted(
        |name| (1..=127).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
        true,
    );
    profile.deletes_versions = false;
    profile
}
