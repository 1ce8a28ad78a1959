//! Kryoptic: a PKCS#11 3.2 token with ML-DSA, on a SQLite file.

use std::{path::PathBuf, process::Command, sync::Arc};

use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Result, SignatureAlgorithm};
use tempfile::TempDir;

use super::{Engine, PinFiles, pkcs11::Token};
use crate::{programs, random_secret, toml_path};

/// A Kryoptic token of its own.
pub struct Kryoptic {
    folder: TempDir,
    module: PathBuf,
    pin: String,
    pins: PinFiles,
}

/// The label of the token.
const LABEL: &str = "signerd test";

impl Kryoptic {
    /// Makes a token. The module is built first, where it never was (three minutes).
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (pin, so_pin) = (random_secret(), random_secret());
        let this = Self {
            module: programs::kryoptic_module(),
            pins: PinFiles::new(folder.path(), &pin),
            folder,
            pin,
        };
        let database = this.folder.path().join("token.sql");
        std::fs::write(
            this.configuration(),
            format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {}\n", toml_path(&database)),
        )
        .expect("the configuration can be written");
        let tool = || {
            let mut command = Command::new(programs::system("pkcs11-tool", "opensc"));
            command.env("KRYOPTIC_CONF", this.configuration()).env("SO_PIN", &so_pin).env("PIN", &this.pin);
            command.arg("--module").arg(&this.module);
            command
        };
        programs::must(tool().args([
            "--init-token",
            "--slot-index",
            "0",
            "--label",
            LABEL,
            "--so-pin",
            "env:SO_PIN",
        ]));
        programs::must(
            tool().args(["--init-pin", "--login", "--login-type", "so", "--so-pin", "env:SO_PIN"]).args([
                "--new-pin",
                "env:PIN",
                "--token-label",
                LABEL,
            ]),
        );
        this
    }

    /// What `KRYOPTIC_CONF` must name.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("kryoptic.conf")
    }

    fn token(&self) -> Token<'_> {
        let environment = vec![("KRYOPTIC_CONF".to_owned(), self.configuration().display().to_string())];
        Token { module: &self.module, label: LABEL, environment, processes: 1 }
    }
}

impl Engine for Kryoptic {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        self.token().toml(name, self.pins.of(pin))
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { self.token().direct(self.pins.of(pin)).await })
    }

    /// PKCS#11 has no versions of keys; Ed25519ph cannot be asked for safely through the binding.
    fn profile(&self) -> Profile {
        Profile::full().without_algorithm(SignatureAlgorithm::Ed25519ph).without(Ability::Rotate)
    }

    fn pin(&self) -> String {
        self.pin.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.pins.of(pin)
    }
}
