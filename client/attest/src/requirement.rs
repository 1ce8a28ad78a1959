//! What whoever verifies demands of a key, beyond that its device vouches for it.

use std::{fmt, str::FromStr};

use signer_core::{Error, PinPolicy, Result, TouchPolicy};

use crate::{DeviceKind, Origin, Report, refused};

/// One demand, as it is typed: `generated-inside`, `touch=always`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `generated-inside`: the device made the key.
    GeneratedInside,
    /// `not-exportable`: the device does not give it out.
    NotExportable,
    /// `pin=once`: it wants its PIN at least so often.
    Pin(PinPolicy),
    /// `touch=cached`: it wants to be touched at least so often.
    Touch(TouchPolicy),
    /// `device=yubikey`: it is of this kind.
    Device(DeviceKind),
    /// `serial=123`: it has one of these serial numbers, with a comma between them.
    Serial(Vec<String>),
    /// `firmware=5.7`: its firmware is this version or a later one.
    Firmware(Vec<u32>),
    /// `fips`: it is of a series that was certified for FIPS 140.
    Fips,
    /// `policy=HEX`: a TPM's key signs only under the policy of this digest.
    Policy(Vec<u8>),
}

const HOW: &str = "use generated-inside, not-exportable, pin=never|once|always, touch=never|cached|always, \
                   device=yubikey|tpm|google-hsm, serial=NUMBER[,NUMBER], firmware=VERSION, fips or policy=HEX";

impl Requirement {
    /// `Denied` when the report does not show it.
    pub fn check(&self, report: &Report) -> Result<()> {
        let Report { device, key, .. } = report;
        let unsaid = "the statement does not say";
        let found = match self {
            Self::GeneratedInside => (key.origin != Origin::Generated).then(|| "it was imported".to_owned()),
            Self::NotExportable => key.exportable.then(|| "the device may give it out".to_owned()),
            Self::Pin(wanted) => lacks(rank_pin(*wanted), key.pin.map(rank_pin), || {
                key.pin.map_or(unsaid.to_owned(), |p| format!("it is {p}"))
            }),
            Self::Touch(wanted) => lacks(rank_touch(*wanted), key.touch.map(rank_touch), || {
                key.touch.map_or(unsaid.to_owned(), |t| format!("it is {t}"))
            }),
            Self::Device(kind) => (device.kind != *kind).then(|| format!("it is {}", device.kind.article())),
            Self::Serial(wanted) => (!device.serial.as_ref().is_some_and(|s| wanted.contains(s)))
                .then(|| device.serial.as_ref().map_or(unsaid.to_owned(), |s| format!("it is {s}"))),
            Self::Firmware(wanted) => {
                let there = device.firmware.as_deref().and_then(version);
                there
                    .as_ref()
                    .is_none_or(|v| v < wanted)
                    .then(|| device.firmware.as_ref().map_or(unsaid.to_owned(), |f| format!("it is {f}")))
            }
            Self::Fips => (device.fips != Some(true)).then(|| match device.fips {
                Some(_) => "it is not".to_owned(),
                None => unsaid.to_owned(),
            }),
            Self::Policy(wanted) => (key.policy.as_ref() != Some(wanted)).then(|| {
                key.policy.as_ref().map_or_else(
                    || "no policy is enforced".to_owned(),
                    |p| format!("it is {}", hex::encode(p)),
                )
            }),
        };
        found.map_or(Ok(()), |found| Err(refused(format_args!("{self} is required, and {found}"))))
    }
}

fn lacks(wanted: u8, there: Option<u8>, found: impl FnOnce() -> String) -> Option<String> {
    there.is_none_or(|there| there < wanted).then(found)
}

fn rank_pin(policy: PinPolicy) -> u8 {
    match policy {
        PinPolicy::Never => 0,
        PinPolicy::Once => 1,
        PinPolicy::Always => 2,
    }
}

fn rank_touch(policy: TouchPolicy) -> u8 {
    match policy {
        TouchPolicy::Never => 0,
        TouchPolicy::Cached => 1,
        TouchPolicy::Always => 2,
    }
}

/// Numbers with dots between them.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|n| n.parse().ok()).collect()
}

impl FromStr for Requirement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::bad_request(format!("{text:?} is nothing that can be required")).next(HOW);
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        Ok(match (name, value) {
            ("generated-inside", None) => Self::GeneratedInside,
            ("not-exportable", None) => Self::NotExportable,
            ("fips", None) => Self::Fips,
            ("pin", Some(value)) => Self::Pin(value.parse()?),
            ("touch", Some(value)) => Self::Touch(value.parse()?),
            ("device", Some(value)) => {
                Self::Device(DeviceKind::ALL.into_iter().find(|k| k.name() == value).ok_or_else(unknown)?)
            }
            ("serial", Some(value)) if !value.is_empty() => {
                Self::Serial(value.split(',').map(str::to_owned).collect())
            }
            ("firmware", Some(value)) => Self::Firmware(version(value).ok_or_else(unknown)?),
            ("policy", Some(value)) => {
                Self::Policy(hex::decode(value).ok().filter(|p| !p.is_empty()).ok_or_else(unknown)?)
            }
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GeneratedInside => f.write_str("generated-inside"),
            Self::NotExportable => f.write_str("not-exportable"),
            Self::Pin(policy) => write!(f, "pin={policy}"),
            Self::Touch(policy) => write!(f, "touch={policy}"),
            Self::Device(kind) => write!(f, "device={}", kind.name()),
            Self::Serial(numbers) => write!(f, "serial={}", numbers.join(",")),
            Self::Firmware(version) => {
                let numbers: Vec<_> = version.iter().map(ToString::to_string).collect();
                write!(f, "firmware={}", numbers.join("."))
            }
            Self::Fips => f.write_str("fips"),
            Self::Policy(digest) => write!(f, "policy={}", hex::encode(digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requirements_are_written_as_they_are_read() {
        for text in [
            "generated-inside",
            "not-exportable",
            "pin=always",
            "touch=cached",
            "device=tpm",
            "serial=1,2",
            "firmware=5.7.4",
            "fips",
            "policy=00ff",
        ] {
            assert_eq!(text.parse::<Requirement>().unwrap().to_string(), text);
        }
        for bad in
            ["", "x", "pin", "pin=x", "fips=1", "serial=", "firmware=5.x", "policy=", "policy=0", "device=x"]
        {
            assert!(bad.parse::<Requirement>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text| version(text).unwrap();
        assert!(version("5.10") > version("5.7.4") && version("5.7") <= version("5.7.4"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(requirement) = text.parse::<Requirement>() {
                let again: Requirement = requirement.to_string().parse().unwrap();
                prop_assert_eq!(again, requirement);
            }
        }
    }
}
