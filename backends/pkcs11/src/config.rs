//! The backend's table of the configuration.

use std::path::PathBuf;

use serde::Deserialize;
use signer_core::{Error, Result};

/// The table of a `kind = "pkcs11"` backend, as far as it is for the driver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The vendor's library, by its path.
    pub module: PathBuf,
    /// The token's label. One of `token` and `serial` is needed: slot numbers change, so there is no setting for them.
    #[serde(default)]
    pub token: Option<String>,
    /// The token's serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// Never to change anything in the token: no keys are made, imported or deleted, and sessions are read-only.
    #[serde(default)]
    pub read_only: bool,
}

impl Pkcs11Config {
    /// Reads the table. `BadRequest` names what is wrong with it.
    pub fn from_json(options: serde_json::Value) -> Result<Self> {
        serde_json::from_value(options).map_err(|e| {
            Error::bad_request(format!("the configuration of the pkcs11 backend is wrong: {e}"))
                .next("it has module, one of token and serial, and read_only")
        })
    }

    /// Which token is meant.
    pub(crate) fn wanted(&self) -> Result<Wanted> {
        match (self.token.clone(), self.serial.clone()) {
            (Some(label), None) if !label.is_empty() => Ok(Wanted::Label(label)),
            (None, Some(serial)) if !serial.is_empty() => Ok(Wanted::Serial(serial)),
            _ => Err(Error::bad_request("a pkcs11 backend needs either token (a label) or serial").next(
                format!(
                    "`signerd-pkcs11 list-tokens {}` shows the tokens that there are",
                    self.module.display()
                ),
            )),
        }
    }
}

/// How a token is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Label(String),
    Serial(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "the label {label:?}"),
            Self::Serial(serial) => write!(f, "the serial number {serial:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_named_in_exactly_one_way_and_unknown_settings_are_refused() {
        let read = |v| Pkcs11Config::from_json(v).and_then(|c| c.wanted());
        assert_eq!(read(json!({"module": "/m", "token": "t"})).unwrap(), Wanted::Label("t".into()));
        assert_eq!(read(json!({"module": "/m", "serial": "s"})).unwrap(), Wanted::Serial("s".into()));
        for bad in [
            json!({"module": "/m"}),
            json!({"token": "t"}),
            json!({"module": "/m", "token": ""}),
            json!({"module": "/m", "token": "t", "serial": "s"}),
            json!({"module": "/m", "token": "t", "slot": 3}),
            json!({"module": "/m", "token": "t", "pin": "1234"}),
        ] {
            let error = read(bad.clone()).unwrap_err().to_string();
            assert!(!error.contains("1234"), "{bad}: {error}");
        }
    }
}
