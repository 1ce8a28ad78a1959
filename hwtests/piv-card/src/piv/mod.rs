//! The PIV applet: NIST SP 800-73-4 part 2, and the instructions that Yubico has added.

mod authenticate;
mod keys;
mod management_key;
mod objects;
mod pins;
mod yubico;

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    algorithm::{PinPolicy, TouchPolicy},
    apdu::{Command, Status},
    card::{Finger, TOUCH_TIME},
    firmware::Firmware,
    keys::PrivateKey,
    tlv::encode,
    x509,
};
use management_key::ManagementKey;
use pins::Reference;

/// The AID of the PIV card application, with the version (SP 800-73-4 part 1, section 2.2).
pub(crate) const AID: [u8; 11] = [0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0];

/// The slot of the attestation key.
pub(crate) const ATTESTATION: u8 = 0xF9;

/// The object with the attestation key's certificate.
const ATTESTATION_CERTIFICATE: u32 = 0x005F_FF01;

/// How long a cached touch serves.
const TOUCH_CACHE: Duration = Duration::from_secs(15);

/// What has been done on the card since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// VERIFY commands with a PIN in them.
    pub verifies: u64,
    /// Those of them that were answered with an error.
    pub failed_verifies: u64,
    /// Private key operations that succeeded.
    pub signatures: u64,
    /// Private key operations that failed.
    pub failed_signatures: u64,
    /// Successful authentications with the management key.
    pub management: u64,
    /// Failed ones.
    pub failed_management: u64,
    /// Touches that a key has waited for.
    pub touches_asked: u64,
    /// All command APDUs, chains counted by their parts.
    pub commands: u64,
    /// How often the PIV applet was selected.
    pub selects: u64,
}

/// What stays without power.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pin: Reference,
    puk: Reference,
    management: ManagementKey,
    keys: BTreeMap<u8, SlotKey>,
    objects: BTreeMap<u32, Vec<u8>>,
}

/// A key in a slot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SlotKey {
    key: PrivateKey,
    pin: PinPolicy,
    touch: TouchPolicy,
    generated: bool,
}

/// What is lost when another applet is selected or the power goes.
#[derive(Default)]
struct Session {
    pin_verified: bool,
    /// The command before this one was a VERIFY that succeeded.
    pin_just_verified: bool,
    management: bool,
    pending: Option<authenticate::Pending>,
}

pub(crate) struct Piv {
    firmware: Firmware,
    serial: u32,
    stored: Stored,
    session: Session,
    touched: Option<Instant>,
    pub(crate) counters: Counters,
}

type Answer = Result<Vec<u8>, Status>;

impl Piv {
    /// A card as it leaves the factory.
    pub(crate) fn new(serial: u32, firmware: Firmware) -> Self {
        let mut stored = Stored {
            pin: Reference::new(*b"123456\xFF\xFF"),
            puk: Reference::new(*b"12345678"),
            management: ManagementKey::factory(firmware),
            keys: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        if firmware.has_attestation()
            && let Some((key, certificate)) = x509::attestation_key(firmware)
        {
            let slot = SlotKey { key, pin: PinPolicy::Never, touch: TouchPolicy::Never, generated: false };
            stored.keys.insert(ATTESTATION, slot);
            stored.objects.insert(ATTESTATION_CERTIFICATE, objects::certificate(&certificate));
        }
        Self::with(serial, firmware, stored)
    }

    pub(crate) fn with(serial: u32, firmware: Firmware, stored: Stored) -> Self {
        Self {
            firmware,
            serial,
            stored,
            session: Session::default(),
            touched: None,
            counters: Counters::default(),
        }
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The answer to SELECT: the application property template (SP 800-73-4 part 2, table 3).
    pub(crate) fn select(&mut self) -> Vec<u8> {
        self.counters.selects += 1;
        let authority = encode(0x79, &encode(0x4F, &AID[..5]));
        encode(0x61, &[encode(0x4F, &AID[5..]), authority].concat())
    }

    /// Another applet was selected.
    pub(crate) fn deselect(&mut self) {
        self.session = Session::default();
    }

    /// The power was off.
    pub(crate) fn power_cycle(&mut self) {
        self.session = Session::default();
        self.touched = None;
    }

    pub(crate) fn process(&mut self, command: &Command, finger: &dyn Finger) -> Answer {
        let just_verified = mem::take(&mut self.session.pin_just_verified);
        match command.instruction {
            0x20 => self.verify(command),
            0x24 => self.change_reference_data(command),
            0x2C => self.reset_retry_counter(command),
            0x47 => self.generate(command),
            0x87 => self.general_authenticate(command, just_verified, finger),
            0xCB => self.read_object(command),
            0xDB => self.write_object(command),
            0xF6 if self.firmware.has_move_and_delete() => self.move_key(command),
            0xF7 if self.firmware.has_metadata() => self.metadata(command),
            0xF8 if self.firmware.has_serial() => Ok(self.serial.to_be_bytes().to_vec()),
            0xF9 if self.firmware.has_attestation() => self.attest(command),
            0xFA => self.set_pin_tries(command),
            0xFB => self.factory_reset(command),
            0xFD => Ok(self.firmware.bytes().to_vec()),
            0xFE => self.import(command),
            0xFF => self.set_management_key(command, finger),
            _ => Err(Status::UNKNOWN_INSTRUCTION),
        }
    }

    /// As if the management key and the PIN had been shown.
    #[cfg(test)]
    pub(crate) fn open(&mut self) {
        self.session.management = true;
        self.session.pin_verified = true;
    }

    fn need_management(&self) -> Result<(), Status> {
        if self.session.management { Ok(()) } else { Err(Status::SECURITY_STATUS) }
    }

    /// Waits for a finger where the policy wants one.
    fn touch(&mut self, policy: TouchPolicy, finger: &dyn Finger) -> Result<(), Status> {
        let cached = self.touched.is_some_and(|at| at.elapsed() < TOUCH_CACHE);
        if policy == TouchPolicy::Never || policy == TouchPolicy::Cached && cached {
            return Ok(());
        }
        self.counters.touches_asked += 1;
        if !finger.wait(TOUCH_TIME) {
            return Err(Status::SECURITY_STATUS);
        }
        if policy == TouchPolicy::Cached {
            self.touched = Some(Instant::now());
        }
        Ok(())
    }
}

/// The slots that hold keys: 9A, 9C, 9D, 9E, the twenty retired ones, and the attestation key's.
fn key_slot(slot: u8) -> Result<u8, Status> {
    match slot {
        0x9A | 0x9C..=0x9E | 0x82..=0x95 | ATTESTATION => Ok(slot),
        _ => Err(Status::WRONG_PARAMETERS),
    }
}
