//! The backend's table of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use signer_core::{Error, Result};

use crate::identity::Number;

/// The table of a `kind = "piv"` backend, as far as it is for the driver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PivConfig {
    /// The card's serial number, or the GUID of a card that has none. Without it, the only card that is there.
    #[serde(default, deserialize_with = "number_or_text")]
    pub serial: Option<String>,
    /// The file with the management key in hexadecimal digits. Without it, the one that `ykman` keeps in the card behind
    /// its PIN. It is needed to make, import and delete keys and to store certificates, and never to sign.
    #[serde(default)]
    pub management_key_file: Option<PathBuf>,
    /// Whether the PIN and the management key that cards leave the factory with may be used. They protect nothing.
    #[serde(default)]
    pub allow_defaults: bool,
    /// Never to change anything in the card.
    #[serde(default)]
    pub read_only: bool,
}

impl PivConfig {
    /// Reads the table. `BadRequest` names what is wrong with it.
    pub fn from_json(options: serde_json::Value) -> Result<Self> {
        let options = if options.is_null() { serde_json::json!({}) } else { options };
        let config: Self = serde_json::from_value(options).map_err(|e| {
            Error::bad_request(format!("the configuration of the piv backend is wrong: {e}"))
                .next("it has serial, management_key_file, allow_defaults and read_only")
        })?;
        config.wanted()?;
        Ok(config)
    }

    /// Which card is meant; `None` for the only one.
    pub(crate) fn wanted(&self) -> Result<Option<Number>> {
        self.serial.as_deref().map(Number::parse).transpose()
    }
}

/// A serial number may be written with or without quotes.
fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::Number(number) => number.to_string(),
        Either::Text(text) => text,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_card_is_named_by_number_and_unknown_settings_are_refused() {
        let read = |v| PivConfig::from_json(v).and_then(|c| c.wanted());
        assert_eq!(read(json!({})).unwrap(), None);
        assert_eq!(read(json!(null)).unwrap(), None);
        assert_eq!(read(json!({"serial": 123})).unwrap(), Some(Number::Serial(123)));
        assert_eq!(read(json!({"serial": "123"})).unwrap(), Some(Number::Serial(123)));
        for bad in [json!({"serial": "x"}), json!({"pin": "123456"}), json!({"serial": -1}), json!(5)] {
            let error = read(bad.clone()).unwrap_err().to_string();
            assert!(!error.contains("123456"), "{bad}: {error}");
        }
    }
}
