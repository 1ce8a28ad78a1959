//! The rest of Yubico's instructions: what is on the card, attestation, tries, and back to the factory's state.

use super::{
    ATTESTATION, ATTESTATION_CERTIFICATE, Answer, Piv, key_slot,
    management_key::{self, ManagementKey},
    objects, pins,
};
use crate::{
    apdu::{Command, Status},
    tlv::encode,
    x509,
};

impl Piv {
    /// GET METADATA of a key, the PIN, the PUK or the management key in P2.
    pub(super) fn metadata(&mut self, command: &Command) -> Answer {
        let reference = |reference: &pins::Reference| {
            [
                encode(0x01, &[0xFF]),
                encode(0x05, &[u8::from(reference.is_default())]),
                encode(0x06, &[reference.tries, reference.tries_left]),
            ]
        };
        let fields = match command.p2 {
            _ if command.p1 != 0 => return Err(Status::WRONG_PARAMETERS),
            pins::PIN => reference(&self.stored.pin).concat(),
            pins::PUK => reference(&self.stored.puk).concat(),
            management_key::SLOT => {
                let key = &self.stored.management;
                [
                    encode(0x01, &[key.cipher.id()]),
                    encode(0x02, &[0, key.touch.id()]),
                    encode(0x05, &[u8::from(key.is_default())]),
                ]
                .concat()
            }
            slot => {
                let key = self.stored.keys.get(&slot).ok_or(Status::NO_REFERENCE)?;
                [
                    encode(0x01, &[key.key.algorithm.id()]),
                    encode(0x02, &[key.pin.id(), key.touch.id()]),
                    encode(0x03, &[if key.generated { 1 } else { 2 }]),
                    encode(0x04, &key.key.public()),
                ]
                .concat()
            }
        };
        Ok(fields)
    }

    /// ATTEST the key in the slot of P1: a certificate, signed by the attestation key. Only for keys that were made here.
    pub(super) fn attest(&mut self, command: &Command) -> Answer {
        let slot = key_slot(command.p1)?;
        let key = self.stored.keys.get(&slot).ok_or(Status::NO_REFERENCE)?;
        let signer = self.stored.keys.get(&ATTESTATION).ok_or(Status::NO_REFERENCE)?;
        let certificate = self
            .stored
            .objects
            .get(&ATTESTATION_CERTIFICATE)
            .and_then(|object| objects::certificate_of(object))
            .ok_or(Status::NOT_FOUND)?;
        if !key.generated || slot == ATTESTATION {
            return Err(Status::WRONG_DATA);
        }
        let statement = x509::Statement {
            slot,
            key: &key.key,
            firmware: self.firmware,
            serial: self.serial,
            pin: key.pin,
            touch: key.touch,
        };
        x509::attest(&statement, &signer.key, certificate).ok_or(Status::BROKEN)
    }

    /// SET PIN RETRIES: P1 for the PIN, P2 for the PUK. Both get the factory's values again.
    pub(super) fn set_pin_tries(&mut self, command: &Command) -> Answer {
        self.need_management()?;
        if !self.session.pin_verified {
            return Err(Status::SECURITY_STATUS);
        }
        if command.p1 == 0 || command.p2 == 0 {
            return Err(Status::WRONG_PARAMETERS);
        }
        self.restore_pins(command.p1, command.p2);
        Ok(Vec::new())
    }

    /// The same without asking: for a test that sets the scene.
    pub(crate) fn restore_pins(&mut self, pin_tries: u8, puk_tries: u8) {
        self.stored.pin.restore(pin_tries);
        self.stored.puk.restore(puk_tries);
        self.session.pin_verified = false;
    }

    /// So many tries are left from now on; the values stay.
    pub(crate) fn set_tries_left(&mut self, pin: Option<u8>, puk: Option<u8>) {
        for (reference, tries) in [(&mut self.stored.pin, pin), (&mut self.stored.puk, puk)] {
            if let Some(tries) = tries {
                reference.tries_left = tries;
                reference.tries = reference.tries.max(tries);
            }
        }
    }

    /// Tries left: PIN, PUK.
    pub(crate) fn tries_left(&self) -> (u8, u8) {
        (self.stored.pin.tries_left, self.stored.puk.tries_left)
    }

    /// RESET, which wants both PIN and PUK blocked. The attestation key and its certificate stay.
    pub(super) fn factory_reset(&mut self, command: &Command) -> Answer {
        if (command.p1, command.p2) != (0, 0) {
            return Err(Status::WRONG_PARAMETERS);
        }
        if self.tries_left() != (0, 0) {
            return Err(Status::CONDITIONS);
        }
        self.stored.keys.retain(|slot, _| *slot == ATTESTATION);
        self.stored.objects.retain(|tag, _| *tag == ATTESTATION_CERTIFICATE);
        self.stored.management = ManagementKey::factory(self.firmware);
        self.restore_pins(3, 3);
        self.session = super::Session::default();
        Ok(Vec::new())
    }
}
