//! Firmware versions, and what each of them has.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A firmware version, such as 5.7.1. What the card can do follows from it, as Yubico documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Firmware {
    /// 5 of 5.7.1
    pub major: u8,
    /// 7 of 5.7.1
    pub minor: u8,
    /// 1 of 5.7.1
    pub patch: u8,
}

impl Firmware {
    /// The last YubiKey 4.
    pub const V4_3_5: Self = Self { major: 4, minor: 3, patch: 5 };
    /// A YubiKey 5 before metadata and AES management keys.
    pub const V5_2_7: Self = Self { major: 5, minor: 2, patch: 7 };
    /// A YubiKey 5 with metadata and AES management keys.
    pub const V5_4_3: Self = Self { major: 5, minor: 4, patch: 3 };
    /// A YubiKey 5 with larger RSA keys, Ed25519, X25519, and keys that can be moved and deleted.
    pub const V5_7_1: Self = Self { major: 5, minor: 7, patch: 1 };

    fn at_least(self, major: u8, minor: u8) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// As the three bytes of GET VERSION.
    pub(crate) fn bytes(self) -> [u8; 3] {
        [self.major, self.minor, self.patch]
    }

    /// GET SERIAL in the PIV applet; before, only the OTP applet tells it.
    pub(crate) fn has_serial(self) -> bool {
        self.at_least(5, 0)
    }

    pub(crate) fn has_metadata(self) -> bool {
        self.at_least(5, 3)
    }

    pub(crate) fn has_aes_management_keys(self) -> bool {
        self.at_least(5, 4)
    }

    /// A new card's management key is AES-192; before, Triple-DES.
    pub(crate) fn has_aes_by_default(self) -> bool {
        self.at_least(5, 7)
    }

    pub(crate) fn has_large_rsa_and_25519(self) -> bool {
        self.at_least(5, 7)
    }

    pub(crate) fn has_move_and_delete(self) -> bool {
        self.at_least(5, 7)
    }

    pub(crate) fn has_attestation(self) -> bool {
        self.at_least(4, 3)
    }

    pub(crate) fn has_cached_touch(self) -> bool {
        self.at_least(4, 3)
    }

    /// The form factor stands in attestation certificates.
    pub(crate) fn attests_form_factor(self) -> bool {
        self.at_least(5, 0)
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Firmware {
    type Err = UnknownFirmware;

    fn from_str(text: &str) -> Result<Self, UnknownFirmware> {
        let numbers: Vec<u8> =
            text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| UnknownFirmware)?;
        match numbers[..] {
            [major @ (4 | 5), minor, patch] => Ok(Self { major, minor, patch }),
            _ => Err(UnknownFirmware),
        }
    }
}

/// The text is not the version of a firmware that this card can play.
#[derive(Debug, thiserror::Error)]
#[error("a firmware version is three numbers such as 5.7.1, of a YubiKey 4 or 5")]
pub struct UnknownFirmware;
