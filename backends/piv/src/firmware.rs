//! Firmware versions of YubiKeys, and what each can do.

use std::fmt;

use signer_core::KeyType;

/// A version; `None` elsewhere stands for a card of another maker, with no instructions but the standard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Firmware {
    pub(crate) major: u8,
    pub(crate) minor: u8,
    pub(crate) patch: u8,
}

impl Firmware {
    pub(crate) const fn new(major: u8, minor: u8, patch: u8) -> Self {
        Self { major, minor, patch }
    }

    /// GET SERIAL in the PIV application; before, it was only in the OTP application.
    pub(crate) fn has_serial_command(self) -> bool {
        self >= Self::new(5, 0, 0)
    }

    /// GET METADATA.
    pub(crate) fn has_metadata(self) -> bool {
        self >= Self::new(5, 3, 0)
    }

    /// ATTEST.
    pub(crate) fn attests(self) -> bool {
        self >= Self::new(4, 3, 0)
    }

    /// A key may have PIN and touch policies of its own.
    pub(crate) fn has_policies(self) -> bool {
        self >= Self::new(4, 0, 0)
    }

    /// A touch may hold for 15 seconds.
    pub(crate) fn caches_touch(self) -> bool {
        self >= Self::new(4, 3, 0)
    }

    /// MOVE KEY, which also deletes.
    pub(crate) fn deletes_keys(self) -> bool {
        self >= Self::new(5, 7, 0)
    }

    /// Kinds of keys that it takes in and signs with.
    pub(crate) fn key_types(self) -> Vec<KeyType> {
        let mut types = vec![KeyType::EcdsaP256, KeyType::Rsa2048];
        if self >= Self::new(4, 0, 0) {
            types.push(KeyType::EcdsaP384);
        }
        if self >= Self::new(5, 7, 0) {
            types.extend([KeyType::Rsa3072, KeyType::Rsa4096, KeyType::Ed25519]);
        }
        types
    }

    /// Kinds of keys that it makes.
    pub(crate) fn generated_types(self) -> Vec<KeyType> {
        let mut types = self.key_types();
        if self.makes_weak_rsa_keys() {
            types.retain(|t| t.rsa_bits().is_none());
        }
        types
    }

    /// CVE-2017-15361: RSA keys that are made in it can be factored.
    pub(crate) fn makes_weak_rsa_keys(self) -> bool {
        (Self::new(4, 0, 0)..Self::new(4, 3, 5)).contains(&self)
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_firmware_has_its_kinds_of_keys() {
        assert!(Firmware::new(5, 7, 1).key_types().contains(&KeyType::Ed25519));
        assert!(!Firmware::new(5, 4, 3).key_types().contains(&KeyType::Rsa3072));
        assert!(Firmware::new(4, 3, 5).generated_types().contains(&KeyType::Rsa2048));
        assert!(!Firmware::new(4, 3, 4).generated_types().contains(&KeyType::Rsa2048));
        assert!(Firmware::new(4, 3, 4).key_types().contains(&KeyType::Rsa2048), "imported ones are sound");
        assert!(!Firmware::new(3, 4, 0).has_policies());
    }
}
