//! The management key: what it encrypts, and how it is replaced.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use serde::{Deserialize, Serialize};

use super::{Answer, Piv};
use crate::{
    algorithm::TouchPolicy,
    apdu::{Command, Status},
    card::Finger,
    firmware::Firmware,
};

/// Where the management key is found by P2.
pub(super) const SLOT: u8 = 0x9B;

/// The key that every card has at first.
const FACTORY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManagementKey {
    pub(super) cipher: Cipher,
    key: Vec<u8>,
    pub(super) touch: TouchPolicy,
}

impl ManagementKey {
    pub(super) fn factory(firmware: Firmware) -> Self {
        let cipher = if firmware.has_aes_by_default() { Cipher::Aes192 } else { Cipher::TripleDes };
        Self { cipher, key: FACTORY.to_vec(), touch: TouchPolicy::Never }
    }

    pub(super) fn is_default(&self) -> bool {
        self.key == FACTORY
    }

    /// One block; none where it is not of the cipher's size.
    pub(super) fn encrypt(&self, block: &[u8]) -> Option<Vec<u8>> {
        match self.cipher {
            Cipher::TripleDes => encrypt::<des::TdesEde3>(&self.key, block),
            Cipher::Aes128 => encrypt::<aes::Aes128>(&self.key, block),
            Cipher::Aes192 => encrypt::<aes::Aes192>(&self.key, block),
            Cipher::Aes256 => encrypt::<aes::Aes256>(&self.key, block),
        }
    }
}

fn encrypt<C: KeyInit + BlockCipherEncrypt>(key: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let mut block = Array::<u8, C::BlockSize>::try_from(block).ok()?;
    C::new_from_slice(key).ok()?.encrypt_block(&mut block);
    Some(block.to_vec())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cipher {
    TripleDes,
    Aes128,
    Aes192,
    Aes256,
}

impl Cipher {
    pub(super) fn from_id(id: u8, firmware: Firmware) -> Option<Self> {
        match id {
            0x00 | 0x03 => Some(Self::TripleDes),
            _ if !firmware.has_aes_management_keys() => None,
            0x08 => Some(Self::Aes128),
            0x0A => Some(Self::Aes192),
            0x0C => Some(Self::Aes256),
            _ => None,
        }
    }

    pub(super) fn id(self) -> u8 {
        match self {
            Self::TripleDes => 0x03,
            Self::Aes128 => 0x08,
            Self::Aes192 => 0x0A,
            Self::Aes256 => 0x0C,
        }
    }

    pub(super) fn block_length(self) -> usize {
        if self == Self::TripleDes { 8 } else { 16 }
    }

    fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::TripleDes | Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

impl Piv {
    /// SET MANAGEMENT KEY: `FF FF FF` (FE with touch), algorithm, 9B, length, key.
    pub(super) fn set_management_key(&mut self, command: &Command, _finger: &dyn Finger) -> Answer {
        self.need_management()?;
        let touch = match (command.p1, command.p2) {
            (0xFF, 0xFF) => TouchPolicy::Never,
            (0xFF, 0xFE) => TouchPolicy::Always,
            (0xFF, 0xFD) if self.firmware.has_cached_touch() => TouchPolicy::Cached,
            _ => return Err(Status::WRONG_PARAMETERS),
        };
        let [id, SLOT, length, key @ ..] = &command.data[..] else { return Err(Status::WRONG_DATA) };
        let cipher = Cipher::from_id(*id, self.firmware).ok_or(Status::WRONG_DATA)?;
        if usize::from(*length) != key.len() || key.len() != cipher.key_length() {
            return Err(Status::WRONG_DATA);
        }
        self.stored.management = ManagementKey { cipher, key: key.to_vec(), touch };
        Ok(Vec::new())
    }
}
