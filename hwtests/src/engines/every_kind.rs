//! All kinds of backends at once.

use signer_contract::PinSetup;
use signer_core::KeyType;

use super::{AwsFace, Azure, Engine, Google, Piv, SoftHsm, Software, SwTpm, Vault};
use crate::daemon::Daemon;

/// An engine for each kind of backend.
pub struct EveryKind {
    soft: Software,
    hsm: SoftHsm,
    card: Piv,
    tpm: SwTpm,
    vault: Option<Vault>,
    aws: AwsFace,
    google: Google,
    azure: Azure,
}

impl EveryKind {
    /// The backends, and a key for each: a card has slots.
    pub const KEYS: [(&'static str, &'static str); 8] = [
        ("soft", "k"),
        ("hsm", "k"),
        ("card", "9a"),
        ("tpm", "k"),
        ("vault", "k"),
        ("aws", "k"),
        ("google", "k"),
        ("azure", "k"),
    ];

    /// Starts all of them.
    #[must_use]
    pub fn start() -> Self {
        Self {
            soft: Software::start(),
            hsm: SoftHsm::start(),
            card: Piv::start(),
            tpm: SwTpm::start(),
            vault: Some(Vault::start()),
            aws: AwsFace::start(),
            google: Google::start(),
            azure: Azure::start(),
        }
    }

    /// Ends one of them for good.
    pub fn take_vault_away(&mut self) {
        self.vault = None;
    }

    /// Their `[[backend]]` tables.
    pub fn toml(&self) -> String {
        let engines: [&dyn Engine; 8] = [
            &self.soft,
            &self.hsm,
            &self.card,
            &self.tpm,
            self.vault.as_ref().expect("all are there"),
            &self.aws,
            &self.google,
            &self.azure,
        ];
        let tables =
            Self::KEYS.iter().zip(engines).map(|((name, _), engine)| engine.toml(name, PinSetup::Right));
        tables.collect::<Vec<_>>().join("\n")
    }

    /// Waits for each backend and makes its key, ECDSA P-256.
    pub async fn make_keys(daemon: &Daemon) {
        for (name, key) in Self::KEYS {
            daemon.backend(name).await;
            daemon.make_key_of(name, key, KeyType::EcdsaP256).await;
        }
    }
}
