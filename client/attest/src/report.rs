//! What a statement came to, in one normal form for every kind of device.

use signer_core::{Digest, KeyType, PinPolicy, TouchPolicy};

/// What is proven of a key. It is only made when every check passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The device.
    pub device: Device,
    /// The key.
    pub key: KeyFacts,
    /// The certificates of each chain by name: the device's first, the root last.
    pub chains: Vec<Vec<String>>,
    /// Where each chain ended.
    pub roots: Vec<Root>,
    /// What is proven, in one sentence.
    pub proven: String,
    /// What is not, in one sentence.
    pub not_proven: String,
    /// Known flaws of such a device, a sentence each.
    pub warnings: Vec<String>,
}

/// A device, as its maker's certificates and its own words describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What kind of device.
    pub kind: DeviceKind,
    /// Who made it.
    pub maker: Option<String>,
    /// What the maker calls it.
    pub model: Option<String>,
    /// The version of its firmware, in its maker's form.
    pub firmware: Option<String>,
    /// Its serial number, in its maker's form.
    pub serial: Option<String>,
    /// Whether it is of a series that was certified for FIPS 140, where it says so.
    pub fips: Option<bool>,
}

/// The kinds of devices whose statements are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A YubiKey, or a card that speaks as one.
    YubiKey,
    /// A TPM 2.0.
    Tpm,
    /// A hardware security module of Google Cloud.
    GoogleHsm,
}

/// Where a private key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The device made it.
    Generated,
    /// It was brought in from outside.
    Imported,
}

/// A key, as its device describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// What kind of key.
    pub key_type: KeyType,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fingerprint: Digest,
    /// Where in the device it is: a slot, for one.
    pub place: Option<String>,
    /// Whether it was made there.
    pub origin: Origin,
    /// Whether the device gives it out, in whatever form.
    pub exportable: bool,
    /// When the device wants its PIN, where it says so.
    pub pin: Option<PinPolicy>,
    /// When it wants to be touched, where it says so.
    pub touch: Option<TouchPolicy>,
    /// The digest of the policy without which the key does not sign, where there is one (TPM).
    pub policy: Option<Vec<u8>>,
    /// More that the device says, by name.
    pub more: Vec<(&'static str, String)>,
}

/// A trusted certificate that a chain ended at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// SHA-256 of it.
    pub fingerprint: Digest,
    /// Whether it came with this program, and was not given by the caller.
    pub built_in: bool,
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::YubiKey, Self::Tpm, Self::GoogleHsm];

    /// The name that people type.
    pub fn name(self) -> &'static str {
        match self {
            Self::YubiKey => "yubikey",
            Self::Tpm => "tpm",
            Self::GoogleHsm => "google-hsm",
        }
    }

    pub(crate) fn article(self) -> &'static str {
        match self {
            Self::YubiKey => "a YubiKey",
            Self::Tpm => "a TPM",
            Self::GoogleHsm => "a Cloud HSM",
        }
    }
}

impl Origin {
    /// The name that travels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Imported => "imported",
        }
    }
}

impl Root {
    /// The end of the sentence: whose word it is.
    pub(crate) fn on_whose_word(&self, maker: &str) -> String {
        if self.built_in {
            format!("{maker}'s root {:?} vouches for it", self.name)
        } else {
            format!("the root {:?} that you gave vouches for it", self.name)
        }
    }
}
