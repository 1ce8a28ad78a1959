//! The backend's table of the configuration.

use std::{path::PathBuf, str::FromStr};

use serde::Deserialize;
use signer_core::{Error, PinPolicy, Result};
use tss_esapi::TctiNameConf;
use zeroize::Zeroizing;

/// Where the storage parent is kept when nobody says: the place that the TCG's provisioning guidance names for it.
const PARENT: u32 = 0x8100_0001;

/// Persistent handles that belong to the owner of the TPM.
const OWNERS: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x817F_FFFF;

/// The options of a TPM backend.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmConfig {
    /// How the TPM is reached: `device:/dev/tpmrm0` (the kernel's resource manager), `device:/dev/tpm0`, `tabrmd`,
    /// `swtpm:host=…,port=…`, `mssim:…`.
    #[serde(default = "default_tcti")]
    pub tcti: String,
    /// The folder of key files. It is made if it is not there.
    pub state: PathBuf,
    /// The persistent handle of the storage parent that keys are sealed under.
    #[serde(default, deserialize_with = "handle")]
    pub parent: Handle,
    /// Encrypts what goes to and from the TPM. About six times slower.
    #[serde(default)]
    pub parameter_encryption: bool,
    /// A file with the owner's authorisation, where it has one. Needed once, to make the parent.
    #[serde(default)]
    pub owner_auth_file: Option<PathBuf>,
    /// A file with the authorisation of the endorsement hierarchy, where it has one. Needed to attest.
    #[serde(default)]
    pub endorsement_auth_file: Option<PathBuf>,
    /// When the PIN is wanted for keys whose maker does not say: `never`, `once` or `always`.
    #[serde(default, deserialize_with = "pin_policy")]
    pub pin_policy: DefaultPin,
    /// Persistent keys whose authorisation is the PIN; all others are taken to have none.
    #[serde(default, deserialize_with = "handles")]
    pub handles_with_pin: Vec<Handle>,
}

/// A persistent handle of the TPM's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub(crate) u32);

impl Default for Handle {
    fn default() -> Self {
        Self(PARENT)
    }
}

impl FromStr for Handle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("0x")
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .filter(|handle| OWNERS.contains(handle))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a persistent handle: 0x81000000 to 0x817fffff"))
    }
}

/// The PIN policy of keys whose maker has no wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultPin(pub(crate) PinPolicy);

impl Default for DefaultPin {
    fn default() -> Self {
        Self(PinPolicy::Never)
    }
}

fn default_tcti() -> String {
    "device:/dev/tpmrm0".to_owned()
}

fn handle<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Handle, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn handles<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Handle>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

fn pin_policy<'de, D: serde::Deserializer<'de>>(from: D) -> Result<DefaultPin, D::Error> {
    String::deserialize(from)?.parse().map(DefaultPin).map_err(serde::de::Error::custom)
}

impl TpmConfig {
    /// Reads the table. `BadRequest` names what is wrong with it.
    pub fn from_json(options: serde_json::Value) -> Result<Self> {
        let config: Self = serde_json::from_value(options).map_err(|e| {
            Error::bad_request(format!("the configuration of the tpm backend is wrong: {e}")).next(
                "it has state, and perhaps tcti, parent, parameter_encryption, owner_auth_file, \
                 endorsement_auth_file, pin_policy, handles_with_pin",
            )
        })?;
        if !config.state.is_absolute() {
            return Err(Error::bad_request(format!(
                "the state folder {} of the tpm backend is not an absolute path",
                config.state.display()
            )));
        }
        config.tcti()?;
        Ok(config)
    }

    /// How to reach the TPM.
    pub(crate) fn tcti(&self) -> Result<TctiNameConf> {
        self.tcti.parse().map_err(|_| {
            Error::bad_request(format!("{:?} is no way to reach a TPM", self.tcti)).next(
                "use device:/dev/tpmrm0, device:/dev/tpm0, tabrmd, swtpm:host=ADDRESS,port=N or \
                 mssim:host=ADDRESS,port=N",
            )
        })
    }

    /// Whether nobody stands between us and the TPM who would clear up behind a process.
    pub(crate) fn is_bare(&self) -> bool {
        !(self.tcti.starts_with("tabrmd") || self.tcti == "device" || self.tcti.contains("tpmrm"))
    }

    /// The owner's authorisation, empty where none is configured.
    pub(crate) fn owner_auth(&self) -> Result<Zeroizing<Vec<u8>>> {
        auth(self.owner_auth_file.as_ref(), "owner_auth_file")
    }

    /// The authorisation of the endorsement hierarchy, empty where none is configured.
    pub(crate) fn endorsement_auth(&self) -> Result<Zeroizing<Vec<u8>>> {
        auth(self.endorsement_auth_file.as_ref(), "endorsement_auth_file")
    }
}

fn auth(file: Option<&PathBuf>, setting: &str) -> Result<Zeroizing<Vec<u8>>> {
    let Some(file) = file else { return Ok(Zeroizing::default()) };
    let mut bytes = Zeroizing::new(std::fs::read(file).map_err(|e| {
        Error::bad_request(format!("{} ({setting}) cannot be read", file.display())).vendor(e)
    })?);
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_has_a_sensible_value_and_what_is_unknown_is_refused() {
        let config = TpmConfig::from_json(json!({"state": "/s"})).unwrap();
        assert_eq!((config.tcti.as_str(), config.parent.0), ("device:/dev/tpmrm0", 0x8100_0001));
        assert_eq!(config.pin_policy.0, PinPolicy::Never);
        assert!(!config.is_bare());
        let config = TpmConfig::from_json(json!({
            "state": "/s", "tcti": "swtpm:host=127.0.0.1,port=1", "parent": "0x81000042", "pin_policy": "once",
            "handles_with_pin": ["0x81010001"],
        }));
        let config = config.unwrap();
        assert!(config.is_bare() && config.parent.0 == 0x8100_0042);
        for bad in [
            json!({}),
            json!({"state": "relative"}),
            json!({"state": "/s", "tcti": "nonsense"}),
            json!({"state": "/s", "parent": "0x81800000"}),
            json!({"state": "/s", "parent": "81000001"}),
            json!({"state": "/s", "pin_policy": "often"}),
            json!({"state": "/s", "owner_auth": "1234"}),
            json!({"state": "/s", "pin": "1234"}),
        ] {
            let error = TpmConfig::from_json(bad.clone()).unwrap_err().to_string();
            assert!(!error.contains("1234"), "{bad}: {error}");
        }
    }
}
