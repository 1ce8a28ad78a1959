//! Keys in slots: GENERATE ASYMMETRIC KEY PAIR (SP 800-73-4 part 2, section 3.3.1), and Yubico's IMPORT, MOVE and DELETE.

use super::{ATTESTATION, Answer, Piv, SlotKey, key_slot};
use crate::{
    algorithm::{Algorithm, PinPolicy, TouchPolicy},
    apdu::{Command, Status},
    keys::{Parts, PrivateKey},
    tlv::{Tlv, encode},
};

const PIN_POLICY: u32 = 0xAA;
const TOUCH_POLICY: u32 = 0xAB;

impl Piv {
    /// `AC { 80 algorithm [AA pin policy] [AB touch policy] }` for the slot in P2.
    pub(super) fn generate(&mut self, command: &Command) -> Answer {
        self.need_management()?;
        if command.p1 != 0 {
            return Err(Status::WRONG_PARAMETERS);
        }
        let slot = key_slot(command.p2)?;
        let template = Tlv::only(&command.data, 0xAC).and_then(Tlv::all).ok_or(Status::WRONG_DATA)?;
        let id = template.iter().find(|tlv| tlv.tag == 0x80).ok_or(Status::WRONG_DATA)?;
        let algorithm = match id.value {
            [id] => Algorithm::from_id(*id, self.firmware).ok_or(Status::WRONG_DATA)?,
            _ => return Err(Status::WRONG_DATA),
        };
        let (pin, touch) = self.policies(&template, slot)?;
        let key = PrivateKey::generate(algorithm).ok_or(Status::BROKEN)?;
        let answer = encode(0x7F49, &key.public());
        self.stored.keys.insert(slot, SlotKey { key, pin, touch, generated: true });
        Ok(answer)
    }

    /// IMPORT ASYMMETRIC KEY: the algorithm in P1, the slot in P2; primes, a scalar or a seed.
    pub(super) fn import(&mut self, command: &Command) -> Answer {
        self.need_management()?;
        let slot = key_slot(command.p2)?;
        let algorithm = Algorithm::from_id(command.p1, self.firmware).ok_or(Status::WRONG_PARAMETERS)?;
        let template = Tlv::all(&command.data).ok_or(Status::WRONG_DATA)?;
        let (pin, touch) = self.policies(&template, slot)?;
        let mut parts = Parts::default();
        let scalar = match algorithm {
            Algorithm::Ed25519 => 0x07,
            Algorithm::X25519 => 0x08,
            _ => 0x06,
        };
        for tlv in &template {
            match tlv.tag {
                0x01 => parts.p = tlv.value,
                0x02 => parts.q = tlv.value,
                tag if tag == scalar => parts.scalar = tlv.value,
                // The rest of an RSA key follows from the primes.
                0x03..=0x05 | PIN_POLICY | TOUCH_POLICY => {}
                _ => return Err(Status::WRONG_DATA),
            }
        }
        let key = PrivateKey::import(algorithm, &parts).ok_or(Status::WRONG_DATA)?;
        self.stored.keys.insert(slot, SlotKey { key, pin, touch, generated: false });
        Ok(Vec::new())
    }

    /// MOVE KEY from P2 to P1, which must be empty; to FF, it is deleted.
    pub(super) fn move_key(&mut self, command: &Command) -> Answer {
        self.need_management()?;
        let from = key_slot(command.p2)?;
        let to = if command.p1 == 0xFF { None } else { Some(key_slot(command.p1)?) };
        if to.is_some() && (from == ATTESTATION || to == Some(ATTESTATION)) {
            return Err(Status::WRONG_PARAMETERS);
        }
        if to.is_some_and(|to| self.stored.keys.contains_key(&to)) {
            return Err(Status::WRONG_DATA);
        }
        let key = self.stored.keys.remove(&from).ok_or(Status::NO_REFERENCE)?;
        if let Some(to) = to {
            self.stored.keys.insert(to, key);
        }
        Ok(Vec::new())
    }

    fn policies(&self, template: &[Tlv<'_>], slot: u8) -> Result<(PinPolicy, TouchPolicy), Status> {
        let id = |tag| match template.iter().find(|tlv| tlv.tag == tag).map(|tlv| tlv.value) {
            None => Ok(0),
            Some([id]) => Ok(*id),
            Some(_) => Err(Status::WRONG_DATA),
        };
        let pin = PinPolicy::from_id(id(PIN_POLICY)?, slot).ok_or(Status::WRONG_DATA)?;
        let touch = TouchPolicy::from_id(id(TOUCH_POLICY)?, self.firmware).ok_or(Status::WRONG_DATA)?;
        Ok((pin, touch))
    }
}
