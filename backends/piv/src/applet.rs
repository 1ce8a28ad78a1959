//! The PIV application of a card, for the time of one transaction: its commands, and the state it is left in.

use signer_core::{PinPolicy, Result, TouchPolicy};
use zeroize::Zeroizing;

use crate::{
    apdu::{self, Answer, Command},
    fault::Fault,
    identity::{self, Identity},
    login::Tries,
    slot::Slot,
    status::Status,
    tlv,
};

const PIV: [u8; 5] = [0xa0, 0, 0, 3, 8];
/// Another application of YubiKeys.
const MANAGEMENT_APPLICATION: [u8; 8] = [0xa0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17];
/// The key reference of the PIN.
const PIN: u8 = 0x80;
/// The key reference of the management key.
pub(crate) const MANAGEMENT: u8 = 0x9b;

/// An open transaction with the PIV application selected.
pub(crate) struct Applet<'a> {
    card: &'a pcsc::Card,
    pub(crate) identity: &'a Identity,
    /// What the card said of its PIN when the transaction began.
    pub(crate) pin: PinState,
    pub(crate) tries: &'a mut Tries,
    /// The PIN was verified here, and not by another program before.
    verified_here: bool,
    /// The management key was used here.
    managing: bool,
}

/// What a card says of its PIN without being given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinState {
    /// Another program has verified it.
    Verified,
    /// It is not verified, and may be tried so many times.
    Left(u32),
}

/// GET METADATA of a slot.
pub(crate) struct Metadata {
    pub(crate) algorithm: u8,
    pub(crate) pin: Option<PinPolicy>,
    pub(crate) touch: Option<TouchPolicy>,
    pub(crate) imported: bool,
    /// The elements of the public key; empty for keys that have none.
    pub(crate) public: Vec<u8>,
}

/// Selects the PIV application; `None` when the card has none.
pub(crate) fn select(card: &pcsc::Card) -> Result<Option<Zeroizing<Vec<u8>>>, pcsc::Error> {
    let answer = apdu::exchange(card, &Command::new(0xa4, 4, 0).data(PIV.to_vec()))?;
    Ok((answer.status == Status::OK).then_some(answer.data))
}

impl<'a> Applet<'a> {
    /// Looks at the PIN's state, and selects the application only if it is not: selecting it again would log out
    /// another program.
    pub(crate) fn open(
        card: &'a pcsc::Card,
        identity: &'a Identity,
        tries: &'a mut Tries,
    ) -> Result<Self, Fault> {
        let pin = if let Some(state) = pin_state(card)? {
            state
        } else {
            // Another program selected another application, or this is another card.
            if Identity::of(card, &identity.reader)?.as_ref() != Some(identity) {
                return Err(pcsc::Error::RemovedCard.into());
            }
            pin_state(card)?.ok_or_else(|| {
                signer_core::Error::internal("the card does not say how many tries its PIN has")
            })?
        };
        tries.noted(pin);
        Ok(Self { card, identity, pin, tries, verified_here: false, managing: false })
    }

    /// Leaves the card as it was found: nothing stays open for other programs that was opened here.
    pub(crate) fn leave(mut self) -> Result<(), pcsc::Error> {
        let opened_pin = self.verified_here && self.pin != PinState::Verified;
        if !self.managing && (!opened_pin || self.take_back_pin()?) {
            return Ok(());
        }
        // Whatever is open is closed when another application is selected.
        apdu::exchange(self.card, &Command::new(0xa4, 4, 0).data(MANAGEMENT_APPLICATION.to_vec()))?;
        select(self.card).map(drop)
    }

    /// VERIFY with P1 = FF, of SP 800-73-4; false on a card that does not know it. An older one may take it for the question
    /// after the tries, so that the first time it is asked whether the PIN is really taken back.
    fn take_back_pin(&mut self) -> Result<bool, pcsc::Error> {
        if self.tries.can_be_taken_back == Some(false) {
            return Ok(false);
        }
        let mut done = apdu::exchange(self.card, &Command::new(0x20, 0xff, PIN))?.status == Status::OK;
        if done && self.tries.can_be_taken_back.is_none() {
            done = matches!(pin_state(self.card)?, Some(PinState::Left(_)));
        }
        self.tries.can_be_taken_back = Some(done);
        Ok(done)
    }

    /// Whether the management key was used.
    pub(crate) fn is_managing(&self) -> bool {
        self.managing
    }

    pub(crate) fn send(&self, command: &Command) -> Result<Answer, Fault> {
        Ok(apdu::exchange(self.card, command)?)
    }

    /// Makes sure that it is still the same card, in case that it was exchanged for another before its reader noticed.
    pub(crate) fn is_the_same(&self) -> Result<(), Fault> {
        match identity::current_serial(self.card, self.identity)? {
            Some(serial) if self.identity.serial() != Some(serial) => Err(pcsc::Error::RemovedCard.into()),
            _ => Ok(()),
        }
    }

    /// VERIFY, once. Called by `login.rs` alone.
    pub(crate) fn verify_pin(&mut self, pin: &[u8]) -> Result<Status, Fault> {
        let mut padded = Zeroizing::new(vec![0xff; 8]);
        padded[..pin.len()].copy_from_slice(pin);
        let status = self.send(&Command::new(0x20, 0, PIN).data(padded))?.status;
        self.verified_here = status == Status::OK;
        Ok(status)
    }

    /// GENERAL AUTHENTICATE with what is to be signed: the private operation.
    pub(crate) fn private_operation(&self, algorithm: u8, slot: Slot, block: &[u8]) -> Result<Answer, Fault> {
        let mut template = Vec::with_capacity(block.len() + 16);
        tlv::push(&mut template, 0x82, &[]);
        tlv::push(&mut template, 0x81, block);
        self.send(&Command::new(0x87, algorithm, slot.reference()).data(tlv::of(0x7c, &template)))
    }

    /// GENERAL AUTHENTICATE for the management key.
    pub(crate) fn authenticate(&mut self, algorithm: u8, template: &[u8]) -> Result<Answer, Fault> {
        self.managing = true;
        self.send(&Command::new(0x87, algorithm, MANAGEMENT).data(tlv::of(0x7c, template)))
    }

    /// GET DATA; `None` when the object is not there, or empty.
    pub(crate) fn object(&self, object: u32) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let answer = self.send(&Command::new(0xcb, 0x3f, 0xff).data(object_tag(object)))?;
        match answer.status {
            Status::NO_OBJECT | Status::NO_REFERENCE => Ok(None),
            _ => {
                let data = answer.ok("read an object")?;
                let value = tlv::find(&data, 0x53).filter(|v| !v.is_empty());
                Ok(value.map(|v| Zeroizing::new(v.to_vec())))
            }
        }
    }

    /// PUT DATA: replaces an object; an empty value deletes it.
    pub(crate) fn put_object(&self, object: u32, value: &[u8]) -> Result<(), Fault> {
        let mut data = object_tag(object);
        tlv::push(&mut data, 0x53, value);
        self.send(&Command::new(0xdb, 0x3f, 0xff).data(data))?.ok("store an object").map(drop)
    }

    /// GET METADATA; `None` when there is no key.
    pub(crate) fn metadata(&self, reference: u8) -> Result<Option<Metadata>, Fault> {
        let answer = self.send(&Command::new(0xf7, 0, reference))?;
        match answer.status {
            Status::NO_REFERENCE | Status::NO_OBJECT => Ok(None),
            _ => Ok(Some(read_metadata(&answer.ok("read the metadata of a key")?))),
        }
    }
}

fn object_tag(object: u32) -> Vec<u8> {
    let bytes = object.to_be_bytes();
    let mut tag = Vec::new();
    tlv::push(&mut tag, 0x5c, &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(3)..]);
    tag
}

/// VERIFY without a PIN; `None` when it is not a PIV application that answers.
fn pin_state(card: &pcsc::Card) -> Result<Option<PinState>, pcsc::Error> {
    let status = apdu::exchange(card, &Command::new(0x20, 0, PIN))?.status;
    Ok(match status {
        Status::OK => Some(PinState::Verified),
        other => other.tries_left().map(PinState::Left),
    })
}

fn read_metadata(data: &[u8]) -> Metadata {
    let byte = |tag, at: usize| tlv::find(data, tag).and_then(|v| v.get(at)).copied();
    Metadata {
        algorithm: byte(0x01, 0).unwrap_or_default(),
        pin: byte(0x02, 0).and_then(pin_policy),
        touch: byte(0x02, 1).and_then(touch_policy),
        imported: byte(0x03, 0) == Some(2),
        public: tlv::find(data, 0x04).unwrap_or_default().to_vec(),
    }
}

const PIN_POLICIES: [(u8, PinPolicy); 3] =
    [(1, PinPolicy::Never), (2, PinPolicy::Once), (3, PinPolicy::Always)];
const TOUCH_POLICIES: [(u8, TouchPolicy); 3] =
    [(1, TouchPolicy::Never), (2, TouchPolicy::Always), (3, TouchPolicy::Cached)];

/// A PIN policy by Yubico's number.
pub(crate) fn pin_policy(number: u8) -> Option<PinPolicy> {
    PIN_POLICIES.iter().find(|(n, _)| *n == number).map(|(_, p)| *p)
}

/// A touch policy by Yubico's number.
pub(crate) fn touch_policy(number: u8) -> Option<TouchPolicy> {
    TOUCH_POLICIES.iter().find(|(n, _)| *n == number).map(|(_, p)| *p)
}

/// Yubico's number of a PIN policy.
pub(crate) fn pin_policy_number(policy: PinPolicy) -> u8 {
    PIN_POLICIES.iter().find(|(_, p)| *p == policy).map_or(0, |(n, _)| *n)
}

/// Yubico's number of a touch policy.
pub(crate) fn touch_policy_number(policy: TouchPolicy) -> u8 {
    TOUCH_POLICIES.iter().find(|(_, p)| *p == policy).map_or(0, |(n, _)| *n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let mut data = Vec::new();
        tlv::push(&mut data, 1, &[0x11]);
        tlv::push(&mut data, 2, &[3, 2]);
        tlv::push(&mut data, 3, &[2]);
        tlv::push(&mut data, 4, &tlv::of(0x86, &[4; 65]));
        let read = read_metadata(&data);
        assert_eq!(read.algorithm, 0x11);
        assert_eq!((read.pin, read.touch), (Some(PinPolicy::Always), Some(TouchPolicy::Always)));
        assert!(read.imported);
        assert_eq!(read.public.len(), 67);
        let empty = read_metadata(&[]);
        assert_eq!((empty.algorithm, empty.pin), (0, None));
    }

    #[test]
    fn policies_have_numbers() {
        for policy in PinPolicy::ALL {
            assert_eq!(pin_policy(pin_policy_number(*policy)), Some(*policy));
        }
        for policy in TouchPolicy::ALL {
            assert_eq!(touch_policy(touch_policy_number(*policy)), Some(*policy));
        }
        assert_eq!(pin_policy(9), None);
    }

    #[test]
    fn objects_have_tags() {
        assert_eq!(object_tag(0x7e), [0x5c, 1, 0x7e]);
        assert_eq!(object_tag(0x5f_c105), [0x5c, 3, 0x5f, 0xc1, 5]);
    }
}
