//! PIN and PUK: VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (SP 800-73-4 part 2, section 3.2).

use serde::{Deserialize, Serialize};

use super::{Answer, Piv};
use crate::apdu::{Command, Status};

pub(super) const PIN: u8 = 0x80;
pub(super) const PUK: u8 = 0x81;

/// A PIN or PUK, filled up with FF to eight bytes, and its tries.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reference {
    value: [u8; 8],
    factory: [u8; 8],
    pub(super) tries_left: u8,
    pub(super) tries: u8,
}

impl Reference {
    pub(super) fn new(value: [u8; 8]) -> Self {
        Self { value, factory: value, tries_left: 3, tries: 3 }
    }

    /// The factory's value again, with so many tries.
    pub(super) fn restore(&mut self, tries: u8) {
        *self = Self { value: self.factory, factory: self.factory, tries_left: tries, tries };
    }

    pub(super) fn is_default(&self) -> bool {
        self.value == self.factory
    }

    /// A try: the right value gives all tries back, a wrong one costs one.
    fn check(&mut self, value: &[u8]) -> Result<(), Status> {
        if self.tries_left == 0 {
            return Err(Status::BLOCKED);
        }
        if value == self.value {
            self.tries_left = self.tries;
            return Ok(());
        }
        self.tries_left -= 1;
        // Even the last one says how many are left; only the next try is told that the reference is blocked.
        Err(Status(0x63C0 | u16::from(self.tries_left.min(15))))
    }

    fn set(&mut self, value: &[u8]) -> Result<(), Status> {
        self.value = new_value(value)?;
        self.tries_left = self.tries;
        Ok(())
    }
}

/// Six to eight bytes, and FF after them.
fn new_value(value: &[u8]) -> Result<[u8; 8], Status> {
    let value: [u8; 8] = value.try_into().map_err(|_| Status::WRONG_DATA)?;
    let used = value.iter().take_while(|byte| **byte != 0xFF).count();
    let padded = value[used..].iter().all(|byte| *byte == 0xFF);
    if used >= 6 && padded { Ok(value) } else { Err(Status::WRONG_DATA) }
}

impl Piv {
    pub(super) fn verify(&mut self, command: &Command) -> Answer {
        if command.p2 != PIN {
            return Err(Status::NO_REFERENCE);
        }
        match (command.p1, command.data.len()) {
            (0, 0) if self.session.pin_verified => Ok(Vec::new()),
            (0, 0) => Err(Status::tries_left(self.stored.pin.tries_left)),
            (0xFF, 0) => {
                self.session.pin_verified = false;
                Ok(Vec::new())
            }
            (0, 8) => {
                self.counters.verifies += 1;
                let result = self.stored.pin.check(&command.data);
                self.counters.failed_verifies += u64::from(result.is_err());
                self.session.pin_verified = result.is_ok();
                self.session.pin_just_verified = result.is_ok();
                result.map(|()| Vec::new())
            }
            (0, _) => Err(Status::WRONG_DATA),
            _ => Err(Status::WRONG_PARAMETERS),
        }
    }

    pub(super) fn change_reference_data(&mut self, command: &Command) -> Answer {
        let (old, new) = halves(command)?;
        let reference = match command.p2 {
            PIN => &mut self.stored.pin,
            PUK => &mut self.stored.puk,
            _ => return Err(Status::NO_REFERENCE),
        };
        // The old value is looked at first: a new value that is none does not save the try of a wrong old one.
        let result = reference.check(old).and_then(|()| reference.set(new));
        if command.p2 == PIN {
            self.session.pin_verified = result.is_ok();
        }
        result.map(|()| Vec::new())
    }

    pub(super) fn reset_retry_counter(&mut self, command: &Command) -> Answer {
        let (puk, pin) = halves(command)?;
        if command.p2 != PIN {
            return Err(Status::NO_REFERENCE);
        }
        self.stored.puk.check(puk)?;
        self.stored.pin.set(pin)?;
        Ok(Vec::new())
    }
}

fn halves(command: &Command) -> Result<(&[u8], &[u8]), Status> {
    match command.data.len() {
        _ if command.p1 != 0 => Err(Status::WRONG_PARAMETERS),
        16 => Ok(command.data.split_at(8)),
        _ => Err(Status::WRONG_DATA),
    }
}
