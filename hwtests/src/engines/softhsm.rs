//! SoftHSM 2: a PKCS#11 token in files.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, KeyType, Result, SignatureAlgorithm};
use tempfile::TempDir;

use super::{Engine, PinFiles, pkcs11::Token};
use crate::{programs, random_secret};

/// A SoftHSM token of its own.
pub struct SoftHsm {
    folder: TempDir,
    /// What is loaded: SoftHSM itself, or the spy.
    module: PathBuf,
    pin: String,
    so_pin: String,
    pins: PinFiles,
    /// Where OpenSC's spy logs the calls, when it stands between.
    spy: Option<PathBuf>,
    processes: usize,
}

/// The label of the token.
const LABEL: &str = "signerd test";

impl SoftHsm {
    /// Makes a token.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("tokens")).expect("a folder can be made");
        let (pin, so_pin) = (random_secret(), random_secret());
        let this = Self {
            module: programs::softhsm_module(),
            pins: PinFiles::new(folder.path(), &pin),
            folder,
            pin,
            so_pin,
            spy: None,
            processes: 2,
        };
        let tokens = this.tokens();
        std::fs::write(
            this.configuration(),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                tokens.display()
            ),
        )
        .expect("the configuration can be written");
        programs::must(
            Command::new(programs::system("softhsm2-util", "softhsm2"))
                .env("SOFTHSM2_CONF", this.configuration())
                .args([
                    "--init-token",
                    "--free",
                    "--label",
                    LABEL,
                    "--pin",
                    &this.pin,
                    "--so-pin",
                    &this.so_pin,
                ]),
        );
        this
    }

    /// Makes a token whose module logs every call.
    pub fn spied() -> Self {
        let mut this = Self::start();
        this.spy = Some(this.folder.path().join("calls"));
        this.module = programs::pkcs11_spy();
        this
    }

    /// The folder of the token's files: move it away, and the token is gone.
    pub fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    /// The engine's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `SOFTHSM2_CONF` must name.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The token's label.
    pub fn label(&self) -> &'static str {
        LABEL
    }

    /// What the spy has logged.
    pub fn calls(&self) -> String {
        let bytes = self.spy.as_ref().and_then(|log| std::fs::read(log).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Changes the PIN behind everybody's back.
    pub fn change_pin(&self, new: &str) {
        programs::must(
            Command::new(programs::system("pkcs11-tool", "opensc"))
                .env("SOFTHSM2_CONF", self.configuration())
                .env("OLD_PIN", &self.pin)
                .env("NEW_PIN", new)
                .arg("--module")
                .arg(programs::softhsm_module())
                .args(["--token-label", LABEL, "--login", "--pin", "env:OLD_PIN"])
                .args(["--change-pin", "--new-pin", "env:NEW_PIN"]),
        );
    }

    fn token(&self) -> Token<'_> {
        let mut environment = vec![("SOFTHSM2_CONF".to_owned(), self.configuration().display().to_string())];
        if let Some(log) = &self.spy {
            environment.push(("PKCS11SPY".into(), programs::softhsm_module().display().to_string()));
            environment.push(("PKCS11SPY_OUTPUT".into(), log.display().to_string()));
        }
        Token { module: &self.module, label: LABEL, environment, processes: self.processes }
    }
}

impl Engine for SoftHsm {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        self.token().toml(name, self.pins.of(pin))
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { self.token().direct(self.pins.of(pin)).await })
    }

    /// SoftHSM 2.6.1 has neither ML-DSA nor Ed25519ph, and PKCS#11 has no versions of keys.
    fn profile(&self) -> Profile {
        Profile::full()
            .without_types(&[KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87])
            .without_algorithm(SignatureAlgorithm::Ed25519ph)
            .without(Ability::Rotate)
    }

    fn pin(&self) -> String {
        self.pin.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.pins.of(pin)
    }

    fn logins(&self) -> Option<u64> {
        self.spy.as_ref()?;
        Some(self.calls().lines().filter(|line| line.ends_with(": C_Login")).count() as u64)
    }
}
