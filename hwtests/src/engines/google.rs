//! Google Cloud KMS: the test engine's face, and Google's own client with a service account of the engine.

use std::{path::PathBuf, sync::Arc};

use hwtests_kms_engine::Engine as KmsEngine;
use signer_contract::{Names, PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, HashAlgorithm, KeyType, Result, SignatureAlgorithm};
use signer_google_kms::{GoogleConfig, GoogleKms};
use tempfile::TempDir;

use super::{Engine, cloud_profile, private_file};
use crate::toml_path;

/// A key ring of its own.
pub struct Google {
    folder: TempDir,
    engine: KmsEngine,
}

const PROJECT: &str = "signerd-tests";

impl Google {
    /// Starts a service with an empty key ring.
    pub fn start() -> Self {
        let this = Self { folder: super::temporary(), engine: KmsEngine::start() };
        private_file(&this.credentials(), &this.engine.google_service_account());
        this.engine.add_google_key_ring(&format!("projects/{PROJECT}/locations/global/keyRings/tests"));
        this
    }

    /// The engine behind it: faults and counters.
    pub fn kms(&self) -> &KmsEngine {
        &self.engine
    }

    /// A file of credentials for it.
    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("google.json")
    }

    /// What is configured.
    pub fn config(&self) -> GoogleConfig {
        GoogleConfig {
            project: Some(PROJECT.into()),
            location: Some("global".into()),
            key_ring: Some("tests".into()),
            endpoint: Some(self.engine.url()),
            credentials: Some(self.credentials()),
            ..GoogleConfig::default()
        }
    }
}

impl Engine for Google {
    fn toml(&self, name: &str, _: PinSetup) -> String {
        format!(
            "[[backend]]\nname = \"{name}\"\nkind = \"google-kms\"\nproject = \"{PROJECT}\"\nlocation = \"global\"\n\
             key_ring = \"tests\"\nendpoint = \"{}\"\ncredentials = {}\n",
            self.engine.url(),
            toml_path(&self.credentials())
        )
    }

    fn direct(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { Ok(Arc::new(GoogleKms::new("google", self.config())?) as Arc<dyn Backend>) })
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

/// Each key signs in one way, fixed when it is made. No P-521, no Ed25519ph, no import; names are for ever.
pub(crate) fn profile() -> Profile {
    use SignatureAlgorithm::{Ecdsa, Ed25519, MlDsa, RsaPkcs1};
    let mut profile = cloud_profile().without_types(&[KeyType::EcdsaP521]);
    for (key_type, algorithms) in &mut profile.algorithms {
        *algorithms = match key_type {
            KeyType::EcdsaP384 => vec![Ecdsa(HashAlgorithm::Sha384)],
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                vec![RsaPkcs1(HashAlgorithm::Sha256)]
            }
            KeyType::Ed25519 => vec![Ed25519],
            KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => vec![MlDsa],
            _ => vec![Ecdsa(HashAlgorithm::Sha256)],
        };
    }
    profile.abilities.push(Ability::Attest);
    profile.names = Names::restricted(
        |name| {
            (1..=63).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        },
        false,
    );
    profile.signs_nothing = false;
    profile
}
