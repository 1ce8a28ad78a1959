//! The card: APDUs in, APDUs out. Chains are put together, long answers cut, applets selected.

use std::time::Duration;

use crate::{
    apdu::{Command, Response, Status},
    firmware::Firmware,
    other_applets,
    piv::{self, Counters, Piv, Stored},
};

/// How long a key waits for a finger.
pub const TOUCH_TIME: Duration = Duration::from_secs(15);

/// The longest data field, a chain put together: Yubico's applet takes 3 KiB.
const LONGEST_DATA: usize = 3072;

/// The finger that touches the card.
pub trait Finger {
    /// Waits until the card is touched, for so long at most; false when it was not.
    fn wait(&self, limit: Duration) -> bool;
}

/// Nobody is there: a touch is never given, and not waited for either.
pub struct NoFinger;

impl Finger for NoFinger {
    fn wait(&self, _limit: Duration) -> bool {
        false
    }
}

/// A card without a reader.
pub struct Card {
    serial: u32,
    firmware: Firmware,
    piv: Piv,
    selected: Applet,
    chain: Option<Command>,
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Applet {
    None,
    Piv,
    Management,
    Otp,
}

impl Card {
    /// A card as it leaves the factory: PIN 123456, PUK 12345678, management key 010203…, no key but the attestation key.
    pub fn new(serial: u32, firmware: Firmware) -> Self {
        Self::with(serial, firmware, Piv::new(serial, firmware))
    }

    /// A card that was written to a file before.
    pub(crate) fn restore(serial: u32, firmware: Firmware, stored: Stored) -> Self {
        Self::with(serial, firmware, Piv::with(serial, firmware, stored))
    }

    fn with(serial: u32, firmware: Firmware, piv: Piv) -> Self {
        Self { serial, firmware, piv, selected: Applet::None, chain: None, rest: Vec::new() }
    }

    /// The number printed on it.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// What it can do.
    pub fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// What has been done on it.
    pub fn counters(&self) -> Counters {
        self.piv.counters
    }

    /// Tries left of PIN and PUK.
    pub fn tries_left(&self) -> (u8, u8) {
        self.piv.tries_left()
    }

    /// From now on, so many tries are left.
    pub fn set_tries_left(&mut self, pin: Option<u8>, puk: Option<u8>) {
        self.piv.set_tries_left(pin, puk);
    }

    pub(crate) fn stored(&self) -> &Stored {
        self.piv.stored()
    }

    /// The answer to reset of a YubiKey 4 or 5, by which programs recognise one.
    pub fn atr(&self) -> &'static [u8] {
        if self.firmware.major == 4 {
            b"\x3B\xF8\x13\x00\x00\x81\x31\xFE\x15\x59\x75\x62\x69\x6B\x65\x79\x34\xD4"
        } else {
            b"\x3B\xFD\x13\x00\x00\x81\x31\xFE\x15\x80\x73\xC0\x21\xC0\x57\x59\x75\x62\x69\x4B\x65\x79\x40"
        }
    }

    /// Everything that is not stored is gone: the selected applet, the PIN's state, a half-sent chain.
    pub fn power_cycle(&mut self) {
        self.piv.power_cycle();
        self.selected = Applet::None;
        self.chain = None;
        self.rest.clear();
    }

    /// One command, one answer.
    pub fn transmit(&mut self, apdu: &[u8], finger: &dyn Finger) -> Vec<u8> {
        self.piv.counters.commands += 1;
        let Ok(command) = Command::parse(apdu) else { return Response::from(Status::WRONG_LENGTH).bytes() };
        self.answer(command, finger).unwrap_or_else(Response::from).bytes()
    }

    fn answer(&mut self, command: Command, finger: &dyn Finger) -> Result<Response, Status> {
        if command.class & !0x10 != 0 {
            return Err(Status::UNKNOWN_CLASS);
        }
        if command.instruction == 0xC0 {
            return if self.rest.is_empty() {
                Err(Status::CONDITIONS)
            } else {
                Ok(self.next_piece(&command))
            };
        }
        self.rest.clear();
        let Some(command) = self.collect(command)? else { return Ok(Response::ok(Vec::new())) };
        self.rest = self.execute(&command, finger)?;
        Ok(self.next_piece(&command))
    }

    /// A command of a chain waits for the last one (ISO/IEC 7816-4 section 5.3.3).
    fn collect(&mut self, mut command: Command) -> Result<Option<Command>, Status> {
        if let Some(mut begun) = self.chain.take()
            && (begun.instruction, begun.p1, begun.p2) == (command.instruction, command.p1, command.p2)
        {
            begun.data.append(&mut command.data);
            command.data = begun.data;
        }
        if command.data.len() > LONGEST_DATA {
            return Err(Status::WRONG_LENGTH);
        }
        if command.class & 0x10 == 0 {
            return Ok(Some(command));
        }
        self.chain = Some(command);
        Ok(None)
    }

    /// As much of the answer as the host has room for.
    fn next_piece(&mut self, command: &Command) -> Response {
        let rest = self.rest.split_off(command.room().min(self.rest.len()));
        let data = std::mem::replace(&mut self.rest, rest);
        let status = if self.rest.is_empty() { Status::OK } else { Status::more(self.rest.len()) };
        Response { data, status }
    }

    fn execute(&mut self, command: &Command, finger: &dyn Finger) -> Result<Vec<u8>, Status> {
        if (command.instruction, command.p1) == (0xA4, 0x04) {
            return self.select(&command.data);
        }
        match self.selected {
            Applet::None => Err(Status::UNKNOWN_INSTRUCTION),
            Applet::Piv => self.piv.process(command, finger),
            Applet::Management => other_applets::management(command, self.serial, self.firmware),
            Applet::Otp => other_applets::otp(command, self.serial, self.firmware),
        }
    }

    /// SELECT by AID, which may be cut on the right. To select the PIV applet again changes nothing (SP 800-73-4 part 2,
    /// section 3.1.1); what is not here leaves the selected one.
    fn select(&mut self, aid: &[u8]) -> Result<Vec<u8>, Status> {
        let is = |full: &[u8], shortest| aid.len() >= shortest && full.starts_with(aid);
        let (applet, answer) = if is(&piv::AID, 5) {
            (Applet::Piv, self.piv.select())
        } else if is(&other_applets::MANAGEMENT_AID, 8) {
            (Applet::Management, other_applets::management_select(self.firmware))
        } else if is(&other_applets::OTP_AID, 7) {
            (Applet::Otp, other_applets::otp_status(self.firmware))
        } else {
            return Err(Status::NOT_FOUND);
        };
        if applet != Applet::Piv {
            self.piv.deselect();
        }
        self.selected = applet;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELECT: [u8; 10] = [0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8];

    fn card() -> Card {
        let mut card = Card::new(12_345_678, Firmware::V5_7_1);
        assert!(card.transmit(&SELECT, &NoFinger).ends_with(&[0x90, 0]));
        card
    }

    #[test]
    fn an_answer_is_cut_and_the_rest_fetched() {
        let mut card = card();
        let attestation = [0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xFF, 1, 0];
        let mut whole = card.transmit(&attestation, &NoFinger);
        assert_eq!((whole.len(), whole[256]), (258, 0x61));
        whole.truncate(256);
        let mut rest = card.transmit(&[0, 0xC0, 0, 0, 0], &NoFinger);
        assert!(rest.ends_with(&[0x90, 0]));
        rest.truncate(rest.len() - 2);
        whole.extend(rest);
        let mut extended = vec![0, 0xCB, 0x3F, 0xFF, 0, 0, 5, 0x5C, 3, 0x5F, 0xFF, 1, 0, 0];
        let at_once = card.transmit(&extended, &NoFinger);
        assert_eq!(at_once[..at_once.len() - 2], whole);
        extended.truncate(12);
        assert_eq!(card.transmit(&extended, &NoFinger), at_once);
        assert_eq!(card.transmit(&[0, 0xC0, 0, 0, 0], &NoFinger), [0x69, 0x85]);
    }

    #[test]
    fn a_chain_is_one_command_and_another_instruction_breaks_it() {
        let mut card = card();
        let pin = |class, digits: &[u8]| [&[class, 0x20, 0, 0x80, digits.len() as u8], digits].concat();
        assert_eq!(card.transmit(&pin(0x10, b"1234"), &NoFinger), [0x90, 0]);
        assert_eq!(card.transmit(&pin(0, b"56\xFF\xFF"), &NoFinger), [0x90, 0]);
        assert_eq!(card.transmit(&pin(0x10, b"1234"), &NoFinger), [0x90, 0]);
        assert_eq!(card.transmit(&[0, 0xFD, 0, 0, 0], &NoFinger), [5, 7, 1, 0x90, 0]);
        assert_eq!(card.transmit(&pin(0, b"56\xFF\xFF"), &NoFinger), [0x6A, 0x80]);
        assert_eq!(card.tries_left(), (3, 3));
    }

    #[test]
    fn a_chain_without_end_is_refused() {
        let mut card = card();
        let part = [&[0x10, 0xDB, 0x3F, 0xFF, 255][..], &[0; 255]].concat();
        let refused = (0..100).find(|_| card.transmit(&part, &NoFinger) != [0x90, 0]);
        assert_eq!(refused, Some(12));
    }

    #[test]
    fn another_applet_takes_the_pin_away_and_selecting_again_does_not() {
        let mut card = card();
        let verify = [&[0, 0x20, 0, 0x80, 8][..], b"123456\xFF\xFF"].concat();
        let status = [0, 0x20, 0, 0x80];
        assert_eq!(card.transmit(&status, &NoFinger), [0x63, 0xC3]);
        assert_eq!(card.transmit(&verify, &NoFinger), [0x90, 0]);
        card.transmit(&SELECT, &NoFinger);
        assert_eq!(card.transmit(&status, &NoFinger), [0x90, 0]);
        let management = [&[0, 0xA4, 4, 0, 8][..], &other_applets::MANAGEMENT_AID].concat();
        assert!(card.transmit(&management, &NoFinger).ends_with(&[0x90, 0]));
        card.transmit(&SELECT, &NoFinger);
        assert_eq!(card.transmit(&status, &NoFinger), [0x63, 0xC3]);
    }
}
