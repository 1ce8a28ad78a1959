//! The slots that a PIV card keeps keys in.

use std::fmt;

use signer_core::{Error, ErrorKind, KeyName, PinPolicy, PivAddress, Result};

/// One slot with a key that signs (SP 800-73-4 part 1, table 4b).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(u8);

/// The certificate of the card itself, which signs attestations: the object of slot f9.
pub(crate) const ATTESTATION_OBJECT: u32 = 0x005f_ff01;

const HOW: &str = "use 9a, 9c, 9d, 9e or 82 to 95";

impl Slot {
    /// Every slot, in ascending order of its number.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0x82..=0x95).chain([0x9a, 0x9c, 0x9d, 0x9e]).map(Self)
    }

    /// The slot that a name means: two hexadecimal digits, small letters.
    pub(crate) fn named(name: &KeyName) -> Option<Self> {
        let label = name.as_label().filter(|_| name.version().is_none())?;
        Self::all().find(|slot| slot.to_string() == label)
    }

    /// The slot to put a key in; `BadRequest` when the name is none.
    pub(crate) fn for_a_new_key(name: &KeyName) -> Result<Self> {
        Self::named(name).ok_or_else(|| {
            Error::bad_request(format!("{:?} is not a slot of a PIV card", name.to_string())).next(HOW)
        })
    }

    /// The slot of a key that should be there; `NotFound` when the name is none.
    pub(crate) fn of_a_key(name: &KeyName) -> Result<Self> {
        Self::named(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{:?} is not a slot of a PIV card", name.to_string()))
                .next(HOW)
        })
    }

    pub(crate) fn of_address(address: PivAddress) -> Self {
        Self(address.slot())
    }

    /// Its key reference in commands.
    pub(crate) fn reference(self) -> u8 {
        self.0
    }

    /// The data object that holds its certificate.
    pub(crate) fn certificate_object(self) -> u32 {
        match self.0 {
            0x9a => 0x005f_c105,
            0x9c => 0x005f_c10a,
            0x9d => 0x005f_c10b,
            0x9e => 0x005f_c101,
            retired => 0x005f_c10d + u32::from(retired - 0x82),
        }
    }

    /// When a key here wants the PIN if nobody said anything about it.
    pub(crate) fn default_pin_policy(self) -> PinPolicy {
        match self.0 {
            0x9c => PinPolicy::Always,
            0x9e => PinPolicy::Never,
            _ => PinPolicy::Once,
        }
    }

    pub(crate) fn name(self) -> Result<KeyName> {
        KeyName::label(self.to_string())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_by_their_numbers() {
        assert_eq!(Slot::all().count(), 24);
        for slot in Slot::all() {
            assert_eq!(Slot::of_a_key(&slot.name().unwrap()).unwrap(), slot);
            assert!(PivAddress::new(1, slot.reference()).is_ok());
        }
        for bad in ["9b", "9C", "f9", "81", "96", "9", "9c ", "signature", "9c@1"] {
            let name: KeyName = bad.replace(' ', "%20").parse().unwrap();
            assert_eq!(Slot::of_a_key(&name).unwrap_err().kind(), ErrorKind::NotFound, "{bad}");
            assert_eq!(Slot::for_a_new_key(&name).unwrap_err().kind(), ErrorKind::BadRequest, "{bad}");
        }
    }

    #[test]
    fn certificates_have_their_objects() {
        let object = |slot: u8| Slot(slot).certificate_object();
        assert_eq!(
            [object(0x9a), object(0x9e), object(0x82), object(0x95)],
            [0x005f_c105, 0x005f_c101, 0x005f_c10d, 0x005f_c120]
        );
    }
}
