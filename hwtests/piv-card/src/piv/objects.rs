//! Data objects: GET DATA and PUT DATA (SP 800-73-4 part 1, section 3, and part 2, sections 3.1.2 and 3.3.2).

use super::{AID, Answer, Piv};
use crate::{
    apdu::{Command, Status},
    tlv::{Tlv, encode},
};

/// The largest object that a YubiKey takes.
const LARGEST: usize = 3052;

/// All data objects together, on a YubiKey 4 and 5.
const SPACE: usize = 51_200;

/// Objects that are read with a PIN only: printed information, fingerprints, facial image, iris images.
const PRIVATE: [u32; 4] = [0x005F_C109, 0x005F_C103, 0x005F_C108, 0x005F_C121];

/// The discovery object.
const DISCOVERY: u32 = 0x7E;

impl Piv {
    pub(super) fn read_object(&mut self, command: &Command) -> Answer {
        let (tag, rest) = address(command)?;
        if !rest.is_empty() {
            return Err(Status::WRONG_DATA);
        }
        if tag == DISCOVERY {
            return Ok(discovery());
        }
        if PRIVATE.contains(&tag) && !self.session.pin_verified {
            return Err(Status::SECURITY_STATUS);
        }
        let object = self.stored.objects.get(&tag).ok_or(Status::NOT_FOUND)?;
        Ok(encode(0x53, object))
    }

    pub(super) fn write_object(&mut self, command: &Command) -> Answer {
        self.need_management()?;
        let (tag, rest) = address(command)?;
        if !(0x005F_0000..=0x005F_FFFF).contains(&tag) {
            return Err(Status::WRONG_DATA);
        }
        let object = Tlv::only(rest, 0x53).ok_or(Status::WRONG_DATA)?;
        let others: usize =
            self.stored.objects.iter().filter(|(t, _)| **t != tag).map(|(_, object)| object.len()).sum();
        if object.len() > LARGEST || others + object.len() > SPACE {
            return Err(Status::NO_SPACE);
        }
        if object.is_empty() {
            self.stored.objects.remove(&tag);
        } else {
            self.stored.objects.insert(tag, object.to_vec());
        }
        Ok(Vec::new())
    }
}

/// The tag that the data field begins with, and what follows it.
fn address(command: &Command) -> Result<(u32, &[u8]), Status> {
    if (command.p1, command.p2) != (0x3F, 0xFF) {
        return Err(Status::WRONG_PARAMETERS);
    }
    let (list, rest) = Tlv::first(&command.data).ok_or(Status::WRONG_DATA)?;
    if list.tag != 0x5C || !(1..=3).contains(&list.value.len()) {
        return Err(Status::WRONG_DATA);
    }
    Ok((list.value.iter().fold(0, |tag, byte| tag << 8 | u32::from(*byte)), rest))
}

/// The PIV PIN is there, and no other PIN (SP 800-73-4 part 1, section 3.3.2).
fn discovery() -> Vec<u8> {
    encode(DISCOVERY, &[encode(0x4F, &AID), encode(0x5F2F, &[0x40, 0])].concat())
}

/// The content of an object with a certificate: the certificate, uncompressed, without error detection code.
pub(super) fn certificate(der: &[u8]) -> Vec<u8> {
    [encode(0x70, der), encode(0x71, &[0]), encode(0xFE, &[])].concat()
}

/// The certificate in an object's content.
pub(super) fn certificate_of(object: &[u8]) -> Option<&[u8]> {
    Tlv::all(object)?.into_iter().find(|tlv| tlv.tag == 0x70).map(|tlv| tlv.value)
}
