//! What a device demands before a key signs, fixed when the key is made.

use std::{fmt, str::FromStr};

use crate::{Error, PublicKey, Result};

/// When a device wants its PIN before a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinPolicy {
    /// Never: whoever reaches the device signs.
    Never,
    /// Once for as long as the device stays unlocked.
    Once,
    /// For each signature.
    Always,
}

/// When a device wants to be touched before a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// For each signature, unless it was touched in the last 15 seconds.
    Cached,
    /// For each signature.
    Always,
}

macro_rules! named {
    ($type:ident, $what:literal, $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that people type and that travels.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|p| p.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|p| p.name()).collect();
                    Error::bad_request(format!(concat!("{:?} is not a ", $what, " policy"), text))
                        .next(format!("use {}", names.join(", ")))
                })
            }
        }
    };
}

named!(PinPolicy, "PIN", Never = "never", Once = "once", Always = "always");
named!(TouchPolicy, "touch", Never = "never", Cached = "cached", Always = "always");

/// Platform configuration registers (PCRs) of a TPM, 0 to 23, in the SHA-256 bank. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PcrSelection(u32);

impl PcrSelection {
    /// These registers.
    pub fn new(registers: impl IntoIterator<Item = u8>) -> Result<Self> {
        let mut bits = 0;
        for register in registers {
            if register > 23 {
                return Err(Error::bad_request(format!("PCR {register} does not exist: they are 0 to 23")));
            }
            bits |= 1 << register;
        }
        if bits == 0 {
            return Err(Error::bad_request("the selection of PCRs is empty"));
        }
        Ok(Self(bits))
    }

    /// The registers, in ascending order.
    pub fn registers(self) -> impl Iterator<Item = u8> {
        (0..24).filter(move |r| self.0 & (1 << r) != 0)
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers: Vec<_> = self.registers().map(|r| r.to_string()).collect();
        f.write_str(&registers.join(","))
    }
}

impl FromStr for PcrSelection {
    type Err = Error;

    /// Numbers with commas between them: `0,2,7`.
    fn from_str(text: &str) -> Result<Self> {
        let number = |t: &str| {
            t.trim()
                .parse()
                .map_err(|_| Error::bad_request(format!("{t:?} is not the number of a PCR: 0 to 23")))
        };
        Self::new(text.split(',').map(number).collect::<Result<Vec<_>>>()?)
    }
}

/// What a device demands before a key signs. What is `None` is left to the device, or not known of a key that is there
/// already. A backend that cannot enforce what is asked for refuses to make the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// When the PIN is wanted.
    pub pin: Option<PinPolicy>,
    /// When a touch is wanted.
    pub touch: Option<TouchPolicy>,
    /// The key signs only while these registers have the values that they have when it is made (TPM2_PolicyPCR), or
    /// those that the holder of [`KeyPolicy::pcr_authority`] has approved.
    pub pcrs: Option<PcrSelection>,
    /// Whose signature approves other values of the registers (TPM2_PolicyAuthorize), so that a key survives an update of
    /// the firmware.
    pub pcr_authority: Option<PublicKey>,
}

impl KeyPolicy {
    /// Refuses every demand: for devices that have none. `device` is the backend's name.
    pub fn none(&self, device: &str) -> Result<()> {
        let asked = [
            (self.pin.is_some(), "a PIN policy"),
            (self.touch.is_some(), "a touch policy"),
            (self.pcrs.is_some() || self.pcr_authority.is_some(), "a PCR policy"),
        ];
        match asked.iter().find(|(is_asked, _)| *is_asked) {
            None => Ok(()),
            Some((_, what)) => Err(Error::unsupported(
                format_args!("give a key {what} of its own"),
                format_args!("backend {device}"),
            )
            .device(device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn policies_have_names() {
        for policy in PinPolicy::ALL {
            assert_eq!(policy.name().parse::<PinPolicy>().unwrap(), *policy);
        }
        for policy in TouchPolicy::ALL {
            assert_eq!(policy.name().parse::<TouchPolicy>().unwrap(), *policy);
        }
        let error = "often".parse::<TouchPolicy>().unwrap_err();
        assert_eq!(error.to_string(), "\"often\" is not a touch policy; use never, cached, always");
    }

    #[test]
    fn a_place_without_policies_refuses_them() {
        assert!(KeyPolicy::default().none("soft").is_ok());
        let touch = KeyPolicy { touch: Some(TouchPolicy::Always), ..KeyPolicy::default() };
        let error = touch.none("soft").unwrap_err();
        assert_eq!(error.what(), "backend soft cannot give a key a touch policy of its own");
    }

    proptest! {
        #[test]
        fn selections_are_read_back(registers in proptest::collection::btree_set(0u8..24, 1..24)) {
            let selection = PcrSelection::new(registers.iter().copied()).unwrap();
            prop_assert_eq!(selection.to_string().parse::<PcrSelection>().unwrap(), selection);
            prop_assert_eq!(selection.registers().collect::<Vec<_>>(), registers.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9, a-z-]{0,20}") {
            let _ = text.parse::<PcrSelection>();
        }
    }

    #[test]
    fn what_is_no_selection() {
        for bad in ["", "24", "-1", "0,", "x", "256"] {
            assert!(bad.parse::<PcrSelection>().is_err(), "{bad:?}");
        }
    }
}
