//! Names of key rings, keys and versions.

use std::fmt;

use signer_core::{Address, Error, ErrorKind, GcpKmsAddress, KeyName, KeySelector, Result};

/// `projects/P/locations/L/keyRings/R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    project: String,
    location: String,
    id: String,
}

/// A key of some ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) ring: Ring,
    pub(crate) id: String,
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: Key,
    pub(crate) number: u64,
}

impl Ring {
    pub(crate) fn new(project: &str, location: &str, ring: &str) -> Result<Self> {
        Self::parse(&format!("projects/{project}/locations/{location}/keyRings/{ring}"))
    }

    /// Reads the whole name.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // The rules are those of an address; the key is put there to have one.
        let address: Address = format!("gcpkms://{text}/cryptoKeys/x").parse().map_err(|e: Error| {
            Error::bad_request(format!("{text:?} is not the name of a key ring")).vendor(e.what())
        })?;
        let Address::GcpKms(address) = address else {
            return Err(Error::internal("gcpkms:// was read as another address"));
        };
        Ok(Self::of(&address))
    }

    fn of(address: &GcpKmsAddress) -> Self {
        let GcpKmsAddress { project, location, key_ring, .. } = address;
        Self { project: project.clone(), location: location.clone(), id: key_ring.clone() }
    }

    pub(crate) fn key(&self, id: &str) -> Key {
        Key { ring: self.clone(), id: id.to_owned() }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/locations/{}/keyRings/{}", self.project, self.location, self.id)
    }
}

impl Key {
    /// Whether Google lets a key be called that: 1 to 63 letters, digits, `_` and `-`.
    pub(crate) fn allows(id: &str) -> bool {
        (1..=63).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    }

    pub(crate) fn version(&self, number: u64) -> Version {
        Version { key: self.clone(), number }
    }

    /// Its name in a backend whose ring is `home`: the id alone there, the whole name elsewhere.
    fn label(&self, home: Option<&Ring>) -> String {
        if home == Some(&self.ring) { self.id.clone() } else { self.to_string() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/cryptoKeys/{}", self.ring, self.id)
    }
}

impl Version {
    /// Reads the whole name, as the service writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Ok(Address::GcpKms(address)) = format!("gcpkms://{text}").parse() else { return None };
        Some(Ring::of(&address).key(&address.key).version(address.version?))
    }

    /// What opens this very version in a backend whose ring is `home`.
    pub(crate) fn key_name(&self, home: Option<&Ring>) -> Result<KeyName> {
        KeyName::label(self.key.label(home))?.with_version(self.number.to_string())
    }

    pub(crate) fn address(&self) -> Address {
        let Key { ring, id } = &self.key;
        Address::GcpKms(GcpKmsAddress {
            project: ring.project.clone(),
            location: ring.location.clone(),
            key_ring: ring.id.clone(),
            key: id.clone(),
            version: Some(self.number),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/cryptoKeyVersions/{}", self.key, self.number)
    }
}

/// The key that a selector means, and the version where it names one.
pub(crate) fn find(selector: &KeySelector, home: Option<&Ring>) -> Result<(Key, Option<u64>)> {
    let found = match selector {
        KeySelector::Address(Address::GcpKms(address)) => {
            Key::allows(&address.key).then(|| (Ring::of(address).key(&address.key), address.version))
        }
        KeySelector::Address(_) => None,
        KeySelector::Name(name) => find_by_name(name, home),
    };
    found.ok_or_else(no_such_key)
}

fn find_by_name(name: &KeyName, home: Option<&Ring>) -> Option<(Key, Option<u64>)> {
    let label = name.as_label()?;
    let version = match name.version() {
        Some(version) => Some(version.parse::<u64>().ok().filter(|n| *n > 0 && n.to_string() == version)?),
        None => None,
    };
    let key = match label.rsplit_once("/cryptoKeys/") {
        Some((ring, id)) => Ring::parse(ring).ok().filter(|_| Key::allows(id))?.key(id),
        None => home.filter(|_| Key::allows(label))?.key(label),
    };
    Some((key, version))
}

pub(crate) fn no_such_key() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key")
        .next("`signer keys list` shows the keys that there are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_keys_and_back() {
        let home = Ring::new("p", "global", "r").unwrap();
        let find = |text: &str| find(&text.parse().unwrap(), Some(&home));
        let (key, version) = find("release@3").unwrap();
        assert_eq!(key.to_string(), "projects/p/locations/global/keyRings/r/cryptoKeys/release");
        let version = key.version(version.unwrap());
        assert_eq!(version.key_name(Some(&home)).unwrap().to_string(), "release@3");
        assert_eq!(find(&version.address().to_string()).unwrap(), (key.clone(), Some(3)));
        assert_eq!(Version::parse(&version.to_string()), Some(version.clone()));
        // Of another ring: by its whole name.
        let far = version.key_name(None).unwrap().to_string();
        assert_eq!(find(&far).unwrap(), (key, Some(3)));
        for bad in [
            "a/b",
            "a b",
            "release@x",
            "release@03",
            "release@0",
            "id:0a",
            "awskms:///alias/release",
            "../release",
        ] {
            assert_eq!(find(bad).unwrap_err().kind(), ErrorKind::NotFound, "{bad}");
        }
        assert!(Ring::parse("projects/p/locations/l").is_err());
        assert!(Ring::new("p", "l/x", "r").is_err());
    }
}
