//! Algorithms and policies by the numbers that they have on the wire.

use serde::{Deserialize, Serialize};

use crate::firmware::Firmware;

/// What kind of key is in a slot (SP 800-78 table 6-2, and Yubico's numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA, 1024 bits.
    Rsa1024,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits: from firmware 5.7.
    Rsa3072,
    /// RSA, 4096 bits: from firmware 5.7.
    Rsa4096,
    /// ECDSA and ECDH on P-256.
    P256,
    /// ECDSA and ECDH on P-384.
    P384,
    /// Ed25519: from firmware 5.7.
    Ed25519,
    /// X25519: from firmware 5.7.
    X25519,
}

impl Algorithm {
    /// Its number, where this firmware knows it.
    pub(crate) fn from_id(id: u8, firmware: Firmware) -> Option<Self> {
        let (algorithm, always) = match id {
            0x06 => (Self::Rsa1024, true),
            0x07 => (Self::Rsa2048, true),
            0x05 => (Self::Rsa3072, false),
            0x16 => (Self::Rsa4096, false),
            0x11 => (Self::P256, true),
            0x14 => (Self::P384, true),
            0xE0 => (Self::Ed25519, false),
            0xE1 => (Self::X25519, false),
            _ => return None,
        };
        (always || firmware.has_large_rsa_and_25519()).then_some(algorithm)
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Rsa1024 => 0x06,
            Self::Rsa2048 => 0x07,
            Self::Rsa3072 => 0x05,
            Self::Rsa4096 => 0x16,
            Self::P256 => 0x11,
            Self::P384 => 0x14,
            Self::Ed25519 => 0xE0,
            Self::X25519 => 0xE1,
        }
    }

    /// The bytes of an RSA modulus; none for curves.
    pub(crate) fn modulus_length(self) -> Option<usize> {
        match self {
            Self::Rsa1024 => Some(128),
            Self::Rsa2048 => Some(256),
            Self::Rsa3072 => Some(384),
            Self::Rsa4096 => Some(512),
            _ => None,
        }
    }
}

/// When the PIN is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinPolicy {
    /// The key works without a PIN.
    Never,
    /// Once since the applet was selected.
    Once,
    /// Before each use.
    Always,
}

impl PinPolicy {
    /// The policy of a request; 0 is the slot's own.
    pub(crate) fn from_id(id: u8, slot: u8) -> Option<Self> {
        match (id, slot) {
            (0, 0x9C) | (3, _) => Some(Self::Always),
            (0, 0x9E) | (1, _) => Some(Self::Never),
            (0 | 2, _) => Some(Self::Once),
            _ => None,
        }
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Once => 2,
            Self::Always => 3,
        }
    }
}

/// When a finger is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TouchPolicy {
    /// The key works without a touch.
    Never,
    /// Before each use.
    Always,
    /// One touch serves 15 seconds.
    Cached,
}

impl TouchPolicy {
    /// The policy of a request; 0 is the default.
    pub(crate) fn from_id(id: u8, firmware: Firmware) -> Option<Self> {
        match id {
            0 | 1 => Some(Self::Never),
            2 => Some(Self::Always),
            3 if firmware.has_cached_touch() => Some(Self::Cached),
            _ => None,
        }
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Always => 2,
            Self::Cached => 3,
        }
    }
}
