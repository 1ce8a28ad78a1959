//! GENERAL AUTHENTICATE (SP 800-73-4 part 2, section 3.2.4): the management key, and every private key.

use super::{Answer, Piv, key_slot, management_key};
use crate::{
    algorithm::{Algorithm, PinPolicy},
    apdu::{Command, Status},
    card::Finger,
    keys::random,
    tlv::{Tlv, encode},
};

const TEMPLATE: u32 = 0x7C;
const WITNESS: u32 = 0x80;
const CHALLENGE: u32 = 0x81;
const RESPONSE: u32 = 0x82;
const EXPONENTIATION: u32 = 0x85;

/// What the card has sent, and must get back with the proof that the host has the management key.
pub(super) enum Pending {
    /// Was sent encrypted, must come back in the clear.
    Witness(Vec<u8>),
    /// Was sent in the clear, must come back encrypted.
    Challenge(Vec<u8>),
}

/// The data field: absent, empty (a question) or filled.
#[derive(Default)]
struct Fields<'a> {
    witness: Option<&'a [u8]>,
    challenge: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    exponentiation: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        for tlv in Tlv::all(Tlv::only(data, TEMPLATE)?)? {
            match tlv.tag {
                WITNESS => fields.witness = Some(tlv.value),
                CHALLENGE => fields.challenge = Some(tlv.value),
                RESPONSE => fields.response = Some(tlv.value),
                EXPONENTIATION => fields.exponentiation = Some(tlv.value),
                _ => return None,
            }
        }
        Some(fields)
    }
}

impl Piv {
    pub(super) fn general_authenticate(
        &mut self,
        command: &Command,
        just_verified: bool,
        finger: &dyn Finger,
    ) -> Answer {
        let fields = Fields::parse(&command.data).ok_or(Status::WRONG_DATA)?;
        if command.p2 == management_key::SLOT {
            return self.authenticate_management(command.p1, &fields, finger);
        }
        let result = self.use_key(command, &fields, just_verified, finger);
        match &result {
            Ok(_) => self.counters.signatures += 1,
            Err(_) => self.counters.failed_signatures += 1,
        }
        Ok(encode(TEMPLATE, &encode(RESPONSE, &result?)))
    }

    fn use_key(
        &mut self,
        command: &Command,
        fields: &Fields<'_>,
        just_verified: bool,
        finger: &dyn Finger,
    ) -> Answer {
        let algorithm = Algorithm::from_id(command.p1, self.firmware).ok_or(Status::WRONG_PARAMETERS)?;
        let slot = self.stored.keys.get(&key_slot(command.p2)?).ok_or(Status::NO_REFERENCE)?;
        if slot.key.algorithm != algorithm {
            return Err(Status::WRONG_PARAMETERS);
        }
        let allowed = match slot.pin {
            PinPolicy::Never => true,
            PinPolicy::Once => self.session.pin_verified,
            PinPolicy::Always => just_verified,
        };
        if !allowed {
            return Err(Status::SECURITY_STATUS);
        }
        let (key, touch) = (slot.key.clone(), slot.touch);
        self.touch(touch, finger)?;
        match (fields.challenge, fields.exponentiation) {
            (Some(input), None) => key.sign(input),
            (None, Some(point)) => key.agree(point),
            _ => None,
        }
        .ok_or(Status::WRONG_DATA)
    }

    /// Single authentication (challenge, response) and mutual authentication (witness first).
    fn authenticate_management(&mut self, id: u8, fields: &Fields<'_>, finger: &dyn Finger) -> Answer {
        let cipher = management_key::Cipher::from_id(id, self.firmware);
        if cipher != Some(self.stored.management.cipher) {
            return Err(Status::WRONG_PARAMETERS);
        }
        let length = self.stored.management.cipher.block_length();
        let encrypt = |block: &[u8]| self.stored.management.encrypt(block).ok_or(Status::WRONG_DATA);
        match (self.session.pending.take(), fields) {
            (_, Fields { witness: Some([]), challenge: None, .. }) => {
                let witness = random(length);
                let answer = encode(TEMPLATE, &encode(WITNESS, &encrypt(&witness)?));
                self.session.pending = Some(Pending::Witness(witness));
                Ok(answer)
            }
            (_, Fields { witness: None, challenge: Some([]), response: None, .. }) => {
                let challenge = random(length);
                let answer = encode(TEMPLATE, &encode(CHALLENGE, &challenge));
                self.session.pending = Some(Pending::Challenge(challenge));
                Ok(answer)
            }
            (
                Some(Pending::Witness(witness)),
                Fields { witness: Some(proof), challenge: Some(challenge), .. },
            ) => {
                let answer = encrypt(challenge)?;
                self.prove(witness == *proof, finger)?;
                Ok(encode(TEMPLATE, &encode(RESPONSE, &answer)))
            }
            (Some(Pending::Challenge(challenge)), Fields { response: Some(proof), .. }) => {
                let right = encrypt(&challenge)? == *proof;
                self.prove(right, finger)?;
                Ok(Vec::new())
            }
            (None, _) => Err(Status::CONDITIONS),
            _ => Err(Status::WRONG_DATA),
        }
    }

    fn prove(&mut self, right: bool, finger: &dyn Finger) -> Result<(), Status> {
        if !right {
            self.counters.failed_management += 1;
            return Err(Status::SECURITY_STATUS);
        }
        self.touch(self.stored.management.touch, finger)?;
        self.counters.management += 1;
        self.session.management = true;
        Ok(())
    }
}
