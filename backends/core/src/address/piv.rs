//! PIV cards and their slots.

use std::fmt;

use super::{Error, Result};

/// A key slot of a PIV card: the card's serial number and the slot (NIST SP 800-73-4 part 1, table 4b).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PivAddress {
    serial: u32,
    slot: u8,
}

impl PivAddress {
    /// Puts an address together: slot 9a, 9c, 9d, 9e or one of the retired slots 82 to 95.
    pub fn new(serial: u32, slot: u8) -> Result<Self> {
        if !matches!(slot, 0x9a | 0x9c..=0x9e | 0x82..=0x95) {
            return Err(Error::bad_request(format!("{slot:02x} is not a PIV key slot"))
                .next("use 9a, 9c, 9d, 9e or 82 to 95"));
        }
        Ok(Self { serial, slot })
    }

    /// The card's serial number.
    pub fn serial(self) -> u32 {
        self.serial
    }

    /// The slot.
    pub fn slot(self) -> u8 {
        self.slot
    }

    /// Reads what follows `piv:`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (serial, slot) = text
            .split_once('/')
            .ok_or_else(|| Error::bad_request(format!("{text:?} is not a PIV serial number and slot")))?;
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
        let serial = number(serial).ok_or_else(|| {
            Error::bad_request(format!("{serial:?} is not the serial number of a PIV card"))
        })?;
        let slot = (slot.len() == 2)
            .then(|| u8::from_str_radix(slot, 16).ok())
            .flatten()
            .ok_or_else(|| Error::bad_request(format!("{slot:?} is not a PIV key slot")))?;
        Self::new(serial, slot)
    }
}

impl fmt::Display for PivAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:02x}", self.serial, self.slot)
    }
}
