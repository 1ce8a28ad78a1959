//! A YubiKey's attestation: a certificate that the card signs for the key in a slot, with Yubico's extensions (Yubico,
//! "PIV attestation").

use const_oid::ObjectIdentifier;
use der::{Decode, asn1::UintRef};
use signer_core::{Error, KeyType, PinPolicy, PublicKey, Result, TouchPolicy};

use crate::{
    Certificate, Device, DeviceKind, KeyFacts, Origin, Report,
    chain::{Chain, Rules},
    refused,
    roots::Maker,
    verifier::Verifier,
};

/// The firmware, a byte each: major, minor, patch.
const FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.3");
/// The serial number, an INTEGER.
const SERIAL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.7");
/// A byte for the PIN, a byte for the touch.
pub(crate) const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.8");
/// The form factor, and in the high bit whether it is of the FIPS series.
const FORM_FACTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.9");

/// Under this root Yubico certifies the attestation keys of all its products. One of them, the YubiHSM, signs certificates
/// whose extensions its user writes: only what an authority for PIV has issued counts.
const SHARED_ROOT: &str = "Yubico Attestation Root 1";
const PIV_AUTHORITY: &str = "Yubico PIV Attestation ";

/// A statement as it came, not yet judged.
#[derive(Clone, Debug)]
pub(crate) struct PivStatement {
    /// The certificate of the key.
    pub(crate) statement: Certificate,
    /// The card's own (slot f9), and those above it.
    pub(crate) others: Vec<Certificate>,
}

/// What Yubico's extensions say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    firmware: [u8; 3],
    serial: Option<u32>,
    pin: PinPolicy,
    /// Whether a finger's print does for the PIN.
    biometric: bool,
    touch: TouchPolicy,
    form_factor: Option<u8>,
}

pub(crate) fn verify(verifier: &Verifier, piv: &PivStatement, key: &PublicKey) -> Result<Report> {
    let statement = &piv.statement;
    // 1. It is about this key.
    if statement.spki()? != key.as_der() {
        return Err(
            refused("the statement is about another key").next("check --key, and which slot was attested")
        );
    }
    // 2. The card signed it, and Yubico the card.
    let mut pool = piv.others.clone();
    pool.extend_from_slice(verifier.roots.intermediates(Maker::Yubico));
    let anchors = verifier.roots.anchors(Maker::Yubico);
    let chain = Chain::build(statement, &pool, &anchors, verifier.at, Rules::Yubico)?;
    // 3. As the maker of PIV cards, not as that of something else.
    check_authority(&chain)?;
    // 4. What the card says.
    let words = Words::read(statement)?;
    // 5. Keys that such a card made are worth something.
    words.check_flaws(key)?;
    Ok(report(&words, &chain, statement, key))
}

fn check_authority(chain: &Chain) -> Result<()> {
    let root = chain.root();
    let above_the_card = chain.certificates.iter().skip(2);
    if root.built_in
        && root.name == SHARED_ROOT
        && !above_the_card.clone().any(|c| c.subject_name().starts_with(PIV_AUTHORITY))
    {
        return Err(refused("Yubico certified that device for something else than PIV"));
    }
    Ok(())
}

impl Words {
    fn read(statement: &Certificate) -> Result<Self> {
        let wrong =
            |what: &str| Error::bad_request(format!("the card's statement holds no {what} that can be read"));
        let firmware = statement
            .extension(FIRMWARE)
            .and_then(|v| v.try_into().ok())
            .ok_or_else(|| wrong("firmware version"))?;
        let serial =
            statement.extension(SERIAL).map(serial).transpose().map_err(|()| wrong("serial number"))?;
        let policies: Option<[u8; 2]> = statement.extension(POLICIES).and_then(|v| v.try_into().ok());
        let [pin, touch] = policies.ok_or_else(|| wrong("PIN and touch policy"))?;
        let (pin, biometric) = match pin {
            1 => (PinPolicy::Never, false),
            2 => (PinPolicy::Once, false),
            3 => (PinPolicy::Always, false),
            4 => (PinPolicy::Once, true),
            5 => (PinPolicy::Always, true),
            _ => return Err(wrong("PIN policy")),
        };
        let touch = match touch {
            1 => TouchPolicy::Never,
            2 => TouchPolicy::Always,
            3 => TouchPolicy::Cached,
            _ => return Err(wrong("touch policy")),
        };
        let form_factor = match statement.extension(FORM_FACTOR) {
            None => None,
            Some([one]) => Some(*one),
            Some(_) => return Err(wrong("form factor")),
        };
        Ok(Self { firmware, serial, pin, biometric, touch, form_factor })
    }

    fn version(&self) -> String {
        let [major, minor, patch] = self.firmware;
        format!("{major}.{minor}.{patch}")
    }

    /// Yubico's advisory YSA-2017-01: RSA keys of these versions follow from their public halves.
    fn check_flaws(&self, key: &PublicKey) -> Result<()> {
        let weak = ([4_u8, 2, 6]..[4, 3, 5]).contains(&self.firmware);
        if weak && matches!(key.key_type(), KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096) {
            return Err(refused(format_args!(
                "RSA keys that firmware {} made can be computed from their public keys (CVE-2017-15361)",
                self.version()
            ))
            .next("replace the key: Yubico replaces such YubiKeys"));
        }
        Ok(())
    }

    /// Yubico's advisory YSA-2024-03.
    fn warnings(&self, key: &PublicKey) -> Vec<String> {
        let elliptic = matches!(key.key_type(), KeyType::EcdsaP256 | KeyType::EcdsaP384);
        if elliptic && self.firmware < [5, 7, 0] {
            vec![format!(
                "Whoever holds the YubiKey, opens it and measures it while it signs can compute this key: firmware {} \
                 is older than 5.7 (CVE-2024-45678).",
                self.version()
            )]
        } else {
            Vec::new()
        }
    }

    fn fips(&self) -> Option<bool> {
        self.form_factor.map(|f| f & 0x80 != 0)
    }

    fn model(&self) -> String {
        let fips = if self.fips() == Some(true) { " FIPS" } else { "" };
        let form = match self.form_factor.map(|f| f & 0x0F) {
            Some(1) => ", USB-A keychain",
            Some(2) => ", USB-A nano",
            Some(3) => ", USB-C keychain",
            Some(4) => ", USB-C nano",
            Some(5) => ", USB-C and Lightning",
            Some(6) => ", USB-A biometric keychain",
            Some(7) => ", USB-C biometric keychain",
            _ => "",
        };
        format!("YubiKey {} series{fips}{form}", self.firmware[0])
    }
}

/// An INTEGER of at most four bytes.
fn serial(value: &[u8]) -> Result<u32, ()> {
    let number = UintRef::from_der(value).map_err(drop)?;
    let bytes = number.as_bytes();
    if bytes.len() > 4 {
        return Err(());
    }
    Ok(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

fn report(words: &Words, chain: &Chain, statement: &Certificate, key: &PublicKey) -> Report {
    let root = chain.root();
    let slot = slot(&statement.subject_name());
    let name = words.serial.map_or("a YubiKey".to_owned(), |serial| format!("YubiKey {serial}"));
    let place = slot.as_ref().map_or(String::new(), |slot| format!(" in its slot {slot}"));
    let mut more = Vec::new();
    if words.biometric {
        more.push(("biometric", "yes".to_owned()));
    }
    Report {
        device: Device {
            kind: DeviceKind::YubiKey,
            maker: Some("Yubico".to_owned()).filter(|_| root.built_in),
            model: Some(words.model()),
            firmware: Some(words.version()),
            serial: words.serial.map(|s| s.to_string()),
            fips: words.fips(),
        },
        key: KeyFacts {
            key_type: key.key_type(),
            fingerprint: key.fingerprint(),
            place: slot.map(|slot| format!("slot {slot}")),
            // A card states nothing on a key that was imported, and has no way to give one out.
            origin: Origin::Generated,
            exportable: false,
            pin: Some(words.pin),
            touch: Some(words.touch),
            policy: None,
            more,
        },
        proven: format!(
            "{name} (firmware {}) generated this key{place} and cannot give it out; before it signs it wants {} and \
             {}; {}.",
            words.version(),
            match words.pin {
                PinPolicy::Never => "no PIN",
                PinPolicy::Once => "the PIN once a session",
                PinPolicy::Always => "the PIN each time",
            },
            match words.touch {
                TouchPolicy::Never => "no touch",
                TouchPolicy::Cached => "a touch in the last 15 seconds",
                TouchPolicy::Always => "a touch each time",
            },
            root.on_whose_word("Yubico"),
        ),
        not_proven: "Not proven: when the key was made, whether it is still there, who holds the YubiKey, and, where \
                     devices of a batch share the attestation key, which of them it is but by the firmware's word."
            .to_owned(),
        chains: vec![chain.names()],
        roots: vec![root],
        warnings: words.warnings(key),
    }
}

/// `YubiKey PIV Attestation 9c`: the slot stands last.
fn slot(subject: &str) -> Option<String> {
    let last = subject.rsplit(' ').next()?;
    let is_slot = last.len() == 2 && last.chars().all(|c| c.is_ascii_hexdigit());
    is_slot.then(|| last.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_and_serial_numbers_are_read() {
        assert_eq!(slot("YubiKey PIV Attestation 9C").as_deref(), Some("9c"));
        assert_eq!(slot("Yubico PIV Attestation"), None);
        assert_eq!(serial(&[2, 4, 0, 0xF3, 0x34, 0xCD]), Ok(15_938_765));
        assert_eq!(serial(&[2, 5, 1, 0, 0, 0, 0]), Err(()));
        assert_eq!(serial(&[2, 1, 0xFF]), Err(()), "a negative number");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = serial(&bytes);
            let _ = slot(&String::from_utf8_lossy(&bytes));
        }
    }
}
