//! A transit key as the server describes it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use der::DateTime;
use serde::Deserialize;
use serde_json::Value;
use signer_core::{
    Address, Error, HashiVaultAddress, KeyInfo, KeyName, KeyOrigin, KeyPolicy, KeyType, PublicKey, Result,
    SignatureAlgorithm,
};

use crate::{fault, http::Answer, name};

/// The number of a version, from 1.
pub(crate) type Version = u64;

/// A key with its versions that sign.
#[derive(Clone, Debug)]
pub(crate) struct TransitKey {
    pub(crate) name: String,
    pub(crate) key_type: KeyType,
    pub(crate) latest: Version,
    origin: KeyOrigin,
    extractable: bool,
    pub(crate) versions: BTreeMap<Version, KeyVersion>,
}

/// One version.
#[derive(Clone, Debug)]
pub(crate) struct KeyVersion {
    pub(crate) public_key: PublicKey,
    created: Option<SystemTime>,
}

/// `GET keys/NAME`, as far as it matters here.
#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    parameter_set: Option<String>,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    imported_key: bool,
    #[serde(default)]
    min_encryption_version: Version,
    #[serde(default)]
    min_available_version: Version,
    latest_version: Version,
    // Of a symmetric key these are times.
    #[serde(default)]
    keys: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct VersionData {
    #[serde(default)]
    public_key: String,
    #[serde(default)]
    creation_time: Option<String>,
}

/// What the answer to the making of a key says.
pub(crate) enum Made {
    /// The key is new.
    New,
    /// There was one of that name.
    Old,
}

impl Made {
    pub(crate) fn read(answer: &Answer) -> Result<Self> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            warnings: Option<Vec<String>>,
        }
        // Older servers answer without a body.
        if answer.is_empty() {
            return Ok(Self::New);
        }
        let warnings = answer.read::<Body>()?.warnings.unwrap_or_default();
        Ok(if warnings.iter().any(|w| w.contains("already exist")) { Self::Old } else { Self::New })
    }
}

impl TransitKey {
    /// Reads the server's description; `None` for a key that does not sign with anything that the house knows.
    pub(crate) fn read(name: &str, answer: &Answer) -> Result<Option<Self>> {
        let Body { data } = answer.read()?;
        let Some(key_type) = data.key_type() else { return Ok(None) };
        let oldest = data.min_encryption_version.max(data.min_available_version).max(1);
        let mut versions = BTreeMap::new();
        for (number, value) in data.keys {
            let number: Version = number
                .parse()
                .map_err(|_| fault::of_nonsense("Vault numbers the versions of a key strangely"))?;
            // Below the least version for signing, a version only verifies.
            if number < oldest {
                continue;
            }
            let version: VersionData = serde_json::from_value(value)
                .map_err(|_| fault::of_nonsense("Vault describes a version of a key strangely"))?;
            versions.insert(number, KeyVersion::read(key_type, &version)?);
        }
        if !versions.contains_key(&data.latest_version) {
            return Err(fault::of_nonsense("Vault describes a key without its latest version"));
        }
        Ok(Some(Self {
            name: name.to_owned(),
            key_type,
            latest: data.latest_version,
            origin: if data.imported_key { KeyOrigin::Imported } else { KeyOrigin::Generated },
            extractable: data.exportable || data.allow_plaintext_backup,
            versions,
        }))
    }

    /// What is known of one version.
    pub(crate) fn info(&self, version: Version) -> Result<Option<KeyInfo>> {
        let Some(KeyVersion { public_key, created }) = self.versions.get(&version) else { return Ok(None) };
        Ok(Some(KeyInfo {
            name: KeyName::label(name::to_label(&self.name))?.with_version(version.to_string())?,
            public_key: public_key.clone(),
            algorithms: algorithms(self.key_type),
            origin: self.origin,
            extractable: Some(self.extractable),
            policy: KeyPolicy::default(),
            created: *created,
            id: None,
            // It names the key, and so its newest version.
            address: (version == self.latest)
                .then(|| Address::HashiVault(HashiVaultAddress { key: self.name.clone() })),
            certificate: None,
        }))
    }
}

impl Data {
    fn key_type(&self) -> Option<KeyType> {
        // A derived key has another public key for each context.
        if self.derived {
            return None;
        }
        match (self.kind.as_str(), self.parameter_set.as_deref()) {
            ("ml-dsa", Some("44")) => Some(KeyType::MlDsa44),
            ("ml-dsa", Some("65")) => Some(KeyType::MlDsa65),
            ("ml-dsa", Some("87")) => Some(KeyType::MlDsa87),
            ("ml-dsa", _) => None,
            // OpenBao and Vault call the others as they are called here.
            (kind, _) => KeyType::ALL.into_iter().find(|t| t.name() == kind),
        }
    }
}

impl KeyVersion {
    fn read(key_type: KeyType, data: &VersionData) -> Result<Self> {
        let text = data.public_key.trim();
        let public_key = if text.starts_with("-----") {
            PublicKey::from_pem(text)
        } else {
            let raw = STANDARD
                .decode(text)
                .map_err(|_| fault::of_nonsense("Vault gives a public key that is neither PEM nor base64"))?;
            PublicKey::from_raw(key_type, &raw)
        };
        let unreadable =
            |e: Error| fault::of_nonsense("Vault gives a public key that cannot be read").vendor(e.what());
        let public_key = public_key.map_err(unreadable)?;
        if public_key.key_type() != key_type {
            return Err(fault::of_nonsense(format!(
                "Vault calls a {} key {key_type}",
                public_key.key_type()
            )));
        }
        Ok(Self { public_key, created: data.creation_time.as_deref().and_then(time) })
    }
}

/// What a key of that kind signs with in Vault. It has no Ed25519ph outside of Vault Enterprise.
fn algorithms(key_type: KeyType) -> Vec<SignatureAlgorithm> {
    key_type.algorithms().iter().copied().filter(|a| *a != SignatureAlgorithm::Ed25519ph).collect()
}

/// An RFC 3339 time, to the second.
fn time(text: &str) -> Option<SystemTime> {
    let number = |range| text.get(range).and_then(|n: &str| n.parse::<u8>().ok());
    let local = DateTime::new(
        text.get(0..4)?.parse().ok()?,
        number(5..7)?,
        number(8..10)?,
        number(11..13)?,
        number(14..16)?,
        number(17..19)?,
    )
    .ok()?
    .to_system_time();
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let part = |range| zone.get(range).and_then(|n: &str| n.parse::<u64>().ok());
    let offset = || Some(Duration::from_secs(part(1..3)? * 3600 + part(4..6)? * 60));
    match zone.chars().next()? {
        'Z' => Some(local),
        '+' => local.checked_sub(offset()?),
        '-' => local.checked_add(offset()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |text| time(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:30:45.123456789Z"), Some(1_709_209_845));
        assert_eq!(seconds("2024-02-29T13:30:45+01:00"), Some(1_709_209_845));
        for bad in ["", "now", "2024-02-29", "2024-02-29T1", "2024-13-01T00:00:00Z", "ä024-01-01Täääää"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
