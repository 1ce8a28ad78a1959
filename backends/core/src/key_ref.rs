//! How people and scripts name keys.

use std::{fmt, str::FromStr};

use crate::{Address, Error, Result, percent};

/// A reference to a key as it is typed: a configured name, `backend/key`, or an address that other tools know.
///
/// It never holds a secret: an address with a PIN in it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// `release`: the name of a `[[key]]` table.
    Configured(BackendName),
    /// `hsm/root`, `soft/release@2`, `hsm/id:0a1b`: a key of a configured backend.
    InBackend {
        /// Which backend.
        backend: BackendName,
        /// Which key there.
        key: KeyName,
    },
    /// `pkcs11:…`, `awskms://…`, …: the first configured backend that has it.
    Address(Address),
}

impl FromStr for KeyRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::bad_request("the key reference is empty").next(HOW));
        }
        if Address::is_address(text) {
            return Ok(Self::Address(text.parse()?));
        }
        match text.split_once('/') {
            Some((backend, key)) => Ok(Self::InBackend { backend: backend.parse()?, key: key.parse()? }),
            None => Ok(Self::Configured(text.parse()?)),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(name) => name.fmt(f),
            Self::InBackend { backend, key } => write!(f, "{backend}/{key}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

const HOW: &str = "write backend/key (as `signer keys list` shows them), a configured name, or an address such as \
                   pkcs11:token=…;object=…";

/// The name of a backend or of a `[[key]]` table: 1 to 64 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendName(String);

impl BackendName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackendName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts_well || text.len() > 64 || !text.bytes().all(plain) {
            return Err(Error::bad_request(format!("{text:?} is not a name of a backend or key"))
                .next("use up to 64 of a-z A-Z 0-9 . _ - beginning with a letter or digit"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a key inside a backend: a label or the device's identifier, and a version where there are versions.
///
/// Written as `label`, `label@version`, `id:0a1b`. In a label, all but ASCII letters, digits, `-._~/`, space and
/// non-ASCII characters is written as `%XX`, so that every label a device may hold can be named; a label that begins
/// with `id:`, or looks like an address, has its colon written as `%3A`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName {
    kind: NameKind,
    version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum NameKind {
    Label(String),
    Id(Vec<u8>),
}

/// The longest label, in bytes, and the longest identifier.
const MAX_LABEL: usize = 1024;

impl KeyName {
    /// A key by its label, taken as it is: any characters but NUL, 1 to 1024 bytes.
    pub fn label(label: impl Into<String>) -> Result<Self> {
        let label = label.into();
        if label.is_empty() || label.len() > MAX_LABEL || label.contains('\0') {
            return Err(Error::bad_request(format!(
                "a key's name has 1 to {MAX_LABEL} bytes and no NUL character"
            )));
        }
        Ok(Self { kind: NameKind::Label(label), version: None })
    }

    /// A key by the device's identifier (`CKA_ID`), 1 to 1024 bytes.
    pub fn id(id: impl Into<Vec<u8>>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.len() > MAX_LABEL {
            return Err(Error::bad_request(format!("a key's identifier has 1 to {MAX_LABEL} bytes")));
        }
        Ok(Self { kind: NameKind::Id(id), version: None })
    }

    /// The same key in a certain version: 1 to 64 ASCII letters and digits.
    pub fn with_version(mut self, version: impl Into<String>) -> Result<Self> {
        let version = version.into();
        if version.is_empty() || version.len() > 64 || !version.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::bad_request(format!(
                "{version:?} is not a key version: use 1 to 64 letters and digits"
            )));
        }
        self.version = Some(version);
        Ok(self)
    }

    /// The same key without a version: whatever is newest.
    #[must_use]
    pub fn without_version(mut self) -> Self {
        self.version = None;
        self
    }

    /// The label, decoded; `None` for a key that is named by its identifier.
    pub fn as_label(&self) -> Option<&str> {
        match &self.kind {
            NameKind::Label(label) => Some(label),
            NameKind::Id(_) => None,
        }
    }

    /// The identifier; `None` for a key that is named by its label.
    pub fn as_id(&self) -> Option<&[u8]> {
        match &self.kind {
            NameKind::Id(id) => Some(id),
            NameKind::Label(_) => None,
        }
    }

    /// The version.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

impl FromStr for KeyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, version) = match text.rsplit_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if name.contains('@') {
            return Err(
                Error::bad_request(format!("{text:?} has two @")).next("write an @ in a label as %40")
            );
        }
        let plain = match name.strip_prefix("id:") {
            Some(hex) => Self::id(percent::decode_hex(hex).ok_or_else(|| {
                Error::bad_request(format!(
                    "{name:?} is not an identifier: id: and pairs of hexadecimal digits"
                ))
            })?)?,
            None => Self::label(percent::decode_text(name)?)?,
        };
        match version {
            Some(version) => plain.with_version(version),
            None => Ok(plain),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            NameKind::Id(id) => write!(f, "id:{}", percent::encode_hex(id))?,
            NameKind::Label(label) => {
                let mut buffer = [0; 4];
                for (at, c) in label.char_indices() {
                    // So that no label is read back as an identifier or as an address.
                    let scheme_colon = c == ':'
                        && (["id", "pkcs11", "piv"].contains(&&label[..at])
                            || label[at..].starts_with("://"));
                    let plain = c.is_ascii_alphanumeric()
                        || "-._~/ :+=,()".contains(c)
                        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace());
                    if plain && !scheme_colon {
                        write!(f, "{c}")?;
                    } else {
                        f.write_str(&percent::encode(c.encode_utf8(&mut buffer).as_bytes(), b""))?;
                    }
                }
            }
        }
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

/// How a backend is asked for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySelector {
    /// By its name in this backend.
    Name(KeyName),
    /// By an address that other tools know. A backend that the address does not point into answers `NotFound`.
    Address(Address),
}

impl From<KeyName> for KeySelector {
    fn from(name: KeyName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for KeySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for KeySelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if Address::is_address(text) {
            Ok(Self::Address(text.parse()?))
        } else {
            Ok(Self::Name(text.parse()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_a_reference() {
        let reference: KeyRef = "hsm/id:0a1B".parse().unwrap();
        assert_eq!(reference.to_string(), "hsm/id:0a1b");
        let KeyRef::InBackend { backend, key } = "soft/release@2".parse().unwrap() else { panic!() };
        assert_eq!((backend.as_str(), key.as_label(), key.version()), ("soft", Some("release"), Some("2")));
        let KeyRef::InBackend { key, .. } = "hsm/a/b c%2540".parse().unwrap() else { panic!() };
        assert_eq!(key.as_label(), Some("a/b c%40"));
        assert!(matches!("release".parse().unwrap(), KeyRef::Configured(_)));
        for bad in
            ["", "/x", "hsm/", "hsm/%", "hsm/%zz", "hsm/x@", "hsm/x@@1", "hsm/x@a/b", "-x", "hsm/id:0", "a b"]
        {
            assert!(bad.parse::<KeyRef>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_label_can_be_named(label in "[^\\x00]{1,200}", version in proptest::option::of("[a-zA-Z0-9]{1,8}")) {
            let mut name = KeyName::label(label).unwrap();
            if let Some(version) = version {
                name = name.with_version(version).unwrap();
            }
            let text = name.to_string();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(text.parse::<KeyName>().unwrap(), name.clone());
            let reference = format!("hsm/{text}");
            prop_assert_eq!(reference.parse::<KeyRef>().unwrap().to_string(), reference);
        }

        #[test]
        fn a_label_is_never_read_as_an_address(
            scheme in prop_oneof![Just("pkcs11"), Just("piv"), Just("id"), Just("awskms"), Just("a/b")],
            rest in "(//)?[a-z0-9;=:/]{0,20}",
        ) {
            let name = KeyName::label(format!("{scheme}:{rest}")).unwrap();
            let text = name.to_string();
            prop_assert_eq!(text.parse::<KeySelector>().unwrap(), KeySelector::Name(name));
            let reference = format!("hsm/{text}");
            prop_assert_eq!(reference.parse::<KeyRef>().unwrap().to_string(), reference);
        }

        #[test]
        fn every_identifier_can_be_named(id in proptest::collection::vec(any::<u8>(), 1..64)) {
            let name = KeyName::id(id).unwrap();
            prop_assert_eq!(name.to_string().parse::<KeyName>().unwrap(), name);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            if let Ok(reference) = text.parse::<KeyRef>() {
                prop_assert_eq!(reference.to_string().parse::<KeyRef>().unwrap(), reference);
            }
        }
    }
}
