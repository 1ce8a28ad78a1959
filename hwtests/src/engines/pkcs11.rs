//! What the engines behind `signerd-pkcs11` share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use signer_contract::Profile;
use signer_core::{Ability, Backend, Error, Pin, Result};
use signer_driver::{DriverBackend, DriverConfig};

use crate::{programs, toml_path};

/// A token that a module reaches.
pub(super) struct Token<'a> {
    pub(super) module: &'a Path,
    pub(super) label: &'a str,
    pub(super) environment: Vec<(String, String)>,
    pub(super) processes: usize,
}

impl Token<'_> {
    pub(super) fn toml(&self, name: &str, pin: Option<PathBuf>) -> String {
        let pin = pin.map_or_else(|| "\"prompt\"".to_owned(), |p| format!("{{ file = {} }}", toml_path(&p)));
        let environment: Vec<_> = self.environment.iter().map(|(n, v)| format!("{n} = {v:?}")).collect();
        format!(
            "[[backend]]\nname = {name:?}\nkind = \"pkcs11\"\nmodule = {}\ntoken = {:?}\npin = {pin}\n\
             processes = {}\nenvironment = {{ {} }}\n",
            toml_path(self.module),
            self.label,
            self.processes,
            environment.join(", ")
        )
    }

    pub(super) async fn direct(&self, pin: Option<PathBuf>) -> Result<Arc<dyn Backend>> {
        let loader = move || match &pin {
            None => Ok(None),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| Error::bad_request("the PIN file cannot be read").vendor(e))
                .and_then(|text| Pin::new(text).map(Some)),
        };
        let config = DriverConfig {
            backend: "hsm".into(),
            program: programs::ours("signerd-pkcs11"),
            arguments: Vec::new(),
            environment: self.environment.clone(),
            options: serde_json::json!({ "module": self.module, "token": self.label }),
            processes: self.processes,
            threads: 1,
            spin: false,
            queue: 4096,
            pin: Some(Arc::new(loader)),
            pin_ttl: None,
        };
        Ok(DriverBackend::start(config).await?)
    }
}

/// What PKCS#11 has at most, whoever's module it is: no versions of keys.
pub(crate) fn profile() -> Profile {
    Profile::full().without(Ability::Rotate)
}
