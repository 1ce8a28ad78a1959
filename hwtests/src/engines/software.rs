//! The software backend: a folder of encrypted key files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Error, Pin, Result};
use signer_software::{Kdf, SoftwareBackend, SoftwareConfig};
use tempfile::TempDir;

use super::{Engine, PinFiles};
use crate::{random_secret, toml_path};

/// A folder of key files of its own.
pub struct Software {
    folder: TempDir,
    passphrase: String,
    pins: PinFiles,
}

impl Software {
    /// Makes the folder.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let passphrase = random_secret();
        Self { pins: PinFiles::new(folder.path(), &passphrase), folder, passphrase }
    }

    /// Where the key files are.
    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// The engine's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Engine for Software {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        toml(name, &self.keys(), self.pins.of(pin))
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let file = self
                .pins
                .of(pin)
                .ok_or_else(|| Error::bad_request("the software backend needs its passphrase"))?;
            let text = std::fs::read_to_string(file)
                .map_err(|e| Error::bad_request("the passphrase file cannot be read").vendor(e))?;
            let config = SoftwareConfig {
                directory: self.keys(),
                passphrase: Pin::new(text)?,
                kdf: Kdf::Scrypt,
                name: "soft".into(),
            };
            Ok(Arc::new(SoftwareBackend::open(config)?) as Arc<dyn Backend>)
        })
    }

    /// Everything but identifiers and addresses, which files do not have; its passphrase is configured, not given later.
    fn profile(&self) -> Profile {
        let profile = Profile::full().without(Ability::Unlock);
        Profile { identifiers: false, addresses: false, pins: false, ..profile }
    }

    fn pin(&self) -> String {
        self.passphrase.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.pins.of(pin)
    }
}

/// The `[[backend]]` table of a folder of key files.
pub fn toml(name: &str, keys: &Path, passphrase: Option<PathBuf>) -> String {
    let passphrase =
        passphrase.map_or_else(String::new, |p| format!("passphrase = {{ file = {} }}\n", toml_path(&p)));
    format!(
        "[[backend]]\nname = {name:?}\nkind = \"software\"\ndirectory = {}\n{passphrase}",
        toml_path(keys)
    )
}
