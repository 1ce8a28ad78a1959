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
    use std::sync::Mutex;

    use proptest::{collection::vec, prelude::*, sample::select};

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

    /// Commands that get far: known instructions, parameters and templates, with something wrong here and there.
    fn any_command() -> impl Strategy<Value = Vec<u8>> {
        let instructions = [
            0x20, 0x24, 0x2C, 0x47, 0x87, 0xA4, 0xC0, 0xCB, 0xDB, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFD,
            0xFE, 0xFF,
        ];
        let parameters = [
            0, 1, 4, 0x03, 0x0A, 0x11, 0x14, 0x3F, 0x80, 0x81, 0x82, 0x95, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E,
            0xE0, 0xE1, 0xF9, 0xFE, 0xFF,
        ];
        let parameter = move || prop_oneof![5 => select(parameters.to_vec()), 1 => any::<u8>()];
        let templates: Vec<Vec<u8>> = [
            "",
            "a000000308",
            "a000000527471117",
            "a0000005272001",
            "5c035fc105",
            "5c035fff01",
            "5c017e",
            "5c035fc1055303010203",
            "5c035fc1095300",
            "ac03800111",
            "ac03800114",
            "ac038001e0",
            "ac038001e1",
            "ac09800111aa0103ab0101",
            "ac09800111aa0101ab0103",
            "7c028000",
            "7c028100",
            "7c048200810101",
            "7c0482008500",
            "7c088000810401020304",
            "313233343536ffff",
            "313233343536ffff3132333435363738",
            "010102020102",
            "0601ff",
            "039b18010203040506070801020304050607080102030405060708",
            "0a9b00",
        ]
        .into_iter()
        .map(|text| hex::decode(text).unwrap())
        .chain([[&[6, 32][..], &[7; 32]].concat(), [&[7, 32][..], &[7; 32]].concat()])
        .chain([[&[0x7C, 36, 0x82, 0, 0x81, 32][..], &[7; 32]].concat()])
        .collect();
        let data = prop_oneof![4 => select(templates), 1 => vec(any::<u8>(), 0..40)];
        let class = prop_oneof![9 => Just(0_u8), 2 => Just(0x10), 1 => any::<u8>()];
        let flip = proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
        (class, select(instructions.to_vec()), parameter(), parameter(), data, any::<bool>(), flip).prop_map(
            |(class, instruction, p1, p2, data, le, flip)| {
                let mut bytes = std::vec![class, instruction, p1, p2];
                if !data.is_empty() {
                    bytes.push(data.len() as u8);
                }
                bytes.extend(data);
                if le {
                    bytes.push(0);
                }
                if let Some((at, value)) = flip {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_bytes_make_the_card_panic(commands in vec(vec(any::<u8>(), 0..300), 1..20)) {
            let mut card = card();
            for command in commands {
                prop_assert!(card.transmit(&command, &NoFinger).len() >= 2);
            }
        }

        #[test]
        fn no_commands_make_the_card_panic(
            firmware in select(&[Firmware::V4_3_5, Firmware::V5_2_7, Firmware::V5_4_3, Firmware::V5_7_1]),
            open: bool,
            commands in vec(any_command(), 1..40),
        ) {
            let mut card = empty_card(firmware);
            for command in commands {
                if open {
                    card.piv.open();
                }
                prop_assert!(card.transmit(&command, &NoFinger).len() >= 2);
            }
        }
    }

    /// To make an attestation key takes a while: one of each firmware serves all cases.
    fn empty_card(firmware: Firmware) -> Card {
        static CARDS: Mutex<Vec<(Firmware, Stored)>> = Mutex::new(Vec::new());
        let mut cards = CARDS.lock().unwrap();
        let stored = match cards.iter().find(|(of, _)| *of == firmware) {
            Some((_, stored)) => stored.clone(),
            None => {
                let stored = Card::new(1, firmware).stored().clone();
                cards.push((firmware, stored.clone()));
                stored
            }
        };
        let mut card = Card::restore(1, firmware, stored);
        card.transmit(&SELECT, &NoFinger);
        card
    }
}
