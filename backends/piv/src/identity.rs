//! Which card it is.

use std::fmt;

use signer_core::{Error, Result};

use crate::{
    apdu::{self, Command},
    applet,
    firmware::Firmware,
    status::Status,
    tlv,
};

/// The object with the cardholder's unique identifier (SP 800-73-4 part 1, section 3.1.2).
const CHUID: u32 = 0x5f_c102;
const OTP_APPLICATION: [u8; 8] = [0xa0, 0, 0, 5, 0x27, 0x20, 1, 1];

/// What a card says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) number: Number,
    /// `None` for a card that is not Yubico's: it is only read.
    pub(crate) firmware: Option<Firmware>,
    pub(crate) reader: String,
}

/// What tells one card from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    /// The serial number that is printed on a YubiKey.
    Serial(u32),
    /// The identifier of a card of another maker, out of its CHUID.
    Guid([u8; 16]),
    /// It does not say.
    Unknown,
}

impl Number {
    /// Reads what stands in a configuration: a serial number, or a GUID of 32 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let mut guid = [0; 16];
        if digits.len() == 32 && hex::decode_to_slice(&digits, &mut guid).is_ok() {
            return Ok(Self::Guid(guid));
        }
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
            .map(Self::Serial)
            .ok_or_else(|| {
                Error::bad_request(format!("{text:?} is not the serial number of a card"))
                    .next("write the number that is printed on it, or that `signerd-piv list-cards` shows")
            })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "{serial}"),
            Self::Guid(guid) => f.write_str(&hex::encode(guid)),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Identity {
    /// Asks a card who it is; `None` for one without a PIV application. The application stays selected.
    pub(crate) fn of(card: &pcsc::Card, reader: &str) -> Result<Option<Self>, pcsc::Error> {
        if applet::select(card)?.is_none() {
            return Ok(None);
        }
        let version = apdu::exchange(card, &Command::new(0xfd, 0, 0))?;
        let firmware = match (version.status, &version.data[..]) {
            (Status::OK, [major, minor, patch]) => Some(Firmware::new(*major, *minor, *patch)),
            _ => None,
        };
        let number = match firmware {
            Some(firmware) => serial(card, firmware)?.map(Number::Serial),
            None => guid(card)?.map(Number::Guid),
        };
        let number = number.unwrap_or(Number::Unknown);
        Ok(Some(Self { number, firmware, reader: reader.to_owned() }))
    }

    pub(crate) fn serial(&self) -> Option<u32> {
        match self.number {
            Number::Serial(serial) => Some(serial),
            _ => None,
        }
    }

    pub(crate) fn model(&self) -> &'static str {
        if self.firmware.is_some() { "YubiKey" } else { "PIV card" }
    }
}

impl fmt::Display for Identity {
    /// As its owner knows it: `YubiKey 5.7.1 serial 12345678`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model())?;
        if let Some(firmware) = self.firmware {
            write!(f, " {firmware}")?;
        }
        match self.number {
            Number::Serial(serial) => write!(f, " serial {serial}"),
            Number::Guid(guid) => write!(f, " GUID {}", hex::encode(guid)),
            Number::Unknown => write!(f, " in reader {}", self.reader),
        }
    }
}

/// The serial number once more, where it costs no more than a question.
pub(crate) fn current_serial(card: &pcsc::Card, known: &Identity) -> Result<Option<u32>, pcsc::Error> {
    match known.firmware {
        Some(firmware) if firmware.has_serial_command() => serial(card, firmware),
        _ => Ok(None),
    }
}

fn serial(card: &pcsc::Card, firmware: Firmware) -> Result<Option<u32>, pcsc::Error> {
    let answer = if firmware.has_serial_command() {
        apdu::exchange(card, &Command::new(0xf8, 0, 0))?
    } else {
        // Before firmware 5, the OTP application alone tells it.
        apdu::exchange(card, &Command::new(0xa4, 4, 0).data(OTP_APPLICATION.to_vec()))?;
        let answer = apdu::exchange(card, &Command::new(0x01, 0x10, 0))?;
        applet::select(card)?;
        answer
    };
    let bytes: Option<[u8; 4]> = answer.data[..].try_into().ok();
    Ok(bytes.filter(|_| answer.status == Status::OK).map(u32::from_be_bytes))
}

fn guid(card: &pcsc::Card) -> Result<Option<[u8; 16]>, pcsc::Error> {
    let tag = CHUID.to_be_bytes();
    let command = Command::new(0xcb, 0x3f, 0xff).data(tlv::of(0x5c, &tag[1..]));
    let answer = apdu::exchange(card, &command)?;
    let guid = tlv::find(&answer.data, 0x53).and_then(|chuid| tlv::find(chuid, 0x34));
    Ok(guid.and_then(|g| g.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_number() {
        assert_eq!(Number::parse("12345678").unwrap(), Number::Serial(12_345_678));
        let guid = Number::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(guid.to_string(), "00112233445566778899aabbccddeeff");
        for bad in ["", "-1", "x", "4294967296", "0x10", "12 34"] {
            assert!(Number::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_card_is_called_what_its_owner_calls_it() {
        let firmware = Some(Firmware::new(5, 7, 1));
        let card = Identity { number: Number::Serial(12_345_678), firmware, reader: "R".into() };
        assert_eq!(card.to_string(), "YubiKey 5.7.1 serial 12345678");
        let other = Identity { number: Number::Unknown, firmware: None, reader: "R 00".into() };
        assert_eq!(other.to_string(), "PIV card in reader R 00");
    }
}
