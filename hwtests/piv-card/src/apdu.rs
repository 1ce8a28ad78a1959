//! Command and response APDUs (ISO/IEC 7816-4 section 5), short and extended.

/// A command APDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The class: 0x10 is set when more parts of a chain follow.
    pub class: u8,
    /// The instruction.
    pub instruction: u8,
    /// The first parameter.
    pub p1: u8,
    /// The second parameter.
    pub p2: u8,
    /// The data field, empty where there is none.
    pub data: Vec<u8>,
    /// How many bytes of answer are expected at most; none where the field is absent.
    pub expected: Option<usize>,
    /// Whether the lengths were extended ones.
    pub extended: bool,
}

impl Command {
    /// Reads one APDU, which must fill `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let [class, instruction, p1, p2, rest @ ..] = bytes else { return Err(Malformed) };
        let (data, expected, extended) = match rest {
            [] => (&[][..], None, false),
            [le] => (&[][..], Some(short_length(*le)), false),
            [0, high, low] => (&[][..], Some(extended_length(*high, *low)), true),
            [0, high, low, rest @ ..] => {
                let (data, expected) = match split(rest, usize::from(u16::from_be_bytes([*high, *low])))? {
                    (data, []) => (data, None),
                    (data, [high, low]) => (data, Some(extended_length(*high, *low))),
                    _ => return Err(Malformed),
                };
                (data, expected, true)
            }
            [length, rest @ ..] => {
                let (data, expected) = match split(rest, usize::from(*length))? {
                    (data, []) => (data, None),
                    (data, [le]) => (data, Some(short_length(*le))),
                    _ => return Err(Malformed),
                };
                (data, expected, false)
            }
        };
        Ok(Self {
            class: *class,
            instruction: *instruction,
            p1: *p1,
            p2: *p2,
            data: data.to_vec(),
            expected,
            extended,
        })
    }

    /// The most that one answer may carry.
    pub(crate) fn room(&self) -> usize {
        self.expected.unwrap_or(if self.extended { 65_536 } else { 256 })
    }
}

/// A length of 0 never stands before data: the byte is then an Le.
fn split(rest: &[u8], length: usize) -> Result<(&[u8], &[u8]), Malformed> {
    if length == 0 { Err(Malformed) } else { rest.split_at_checked(length).ok_or(Malformed) }
}

fn short_length(le: u8) -> usize {
    if le == 0 { 256 } else { le.into() }
}

fn extended_length(high: u8, low: u8) -> usize {
    match u16::from_be_bytes([high, low]) {
        0 => 65_536,
        length => length.into(),
    }
}

/// The bytes are no APDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no command APDU")]
pub struct Malformed;

/// An answer: data and a status word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What was asked for.
    pub data: Vec<u8>,
    /// How it went.
    pub status: Status,
}

impl Response {
    /// Data, and all is well.
    pub fn ok(data: Vec<u8>) -> Self {
        Self { data, status: Status::OK }
    }

    /// As it travels: the data and the two bytes of the status.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.data.clone();
        bytes.extend(self.status.0.to_be_bytes());
        bytes
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self { data: Vec::new(), status }
    }
}

/// A status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const OK: Self = Self(0x9000);
    /// The length of the data field is wrong.
    pub const WRONG_LENGTH: Self = Self(0x6700);
    /// PIN, touch or management key are missing.
    pub const SECURITY_STATUS: Self = Self(0x6982);
    /// No tries are left.
    pub const BLOCKED: Self = Self(0x6983);
    /// Not now: something else has to come first.
    pub const CONDITIONS: Self = Self(0x6985);
    /// The data field is wrong.
    pub const WRONG_DATA: Self = Self(0x6A80);
    /// No such object or application.
    pub const NOT_FOUND: Self = Self(0x6A82);
    /// No room.
    pub const NO_SPACE: Self = Self(0x6A84);
    /// P1 or P2 are wrong.
    pub const WRONG_PARAMETERS: Self = Self(0x6A86);
    /// No such key, PIN or slot.
    pub const NO_REFERENCE: Self = Self(0x6A88);
    /// The card does not know the instruction.
    pub const UNKNOWN_INSTRUCTION: Self = Self(0x6D00);
    /// The card does not know the class.
    pub const UNKNOWN_CLASS: Self = Self(0x6E00);
    /// The card itself has failed.
    pub const BROKEN: Self = Self(0x6F00);

    /// A wrong PIN or PUK, or the answer to the question how many tries are left.
    pub fn tries_left(tries: u8) -> Self {
        if tries == 0 { Self::BLOCKED } else { Self(0x63C0 | u16::from(tries.min(15))) }
    }

    /// More bytes are waiting for GET RESPONSE.
    pub(crate) fn more(waiting: usize) -> Self {
        Self(0x6100 | u16::try_from(waiting).ok().filter(|n| *n < 256).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(data: &[u8], expected: Option<usize>, extended: bool) -> Command {
        Command { class: 0, instruction: 0xCB, p1: 0x3F, p2: 0xFF, data: data.to_vec(), expected, extended }
    }

    fn parse(rest: &[u8]) -> Result<Command, Malformed> {
        Command::parse(&[&[0, 0xCB, 0x3F, 0xFF], rest].concat())
    }

    #[test]
    fn the_seven_cases_of_the_standard() {
        assert_eq!(parse(&[]), Ok(command(&[], None, false)));
        assert_eq!(parse(&[8]), Ok(command(&[], Some(8), false)));
        assert_eq!(parse(&[0]), Ok(command(&[], Some(256), false)));
        assert_eq!(parse(&[2, 9, 9]), Ok(command(&[9, 9], None, false)));
        assert_eq!(parse(&[2, 9, 9, 0]), Ok(command(&[9, 9], Some(256), false)));
        assert_eq!(parse(&[0, 1, 0]), Ok(command(&[], Some(256), true)));
        assert_eq!(parse(&[0, 0, 0]), Ok(command(&[], Some(65_536), true)));
        assert_eq!(parse(&[0, 0, 2, 9, 9]), Ok(command(&[9, 9], None, true)));
        assert_eq!(parse(&[0, 0, 2, 9, 9, 0, 0]), Ok(command(&[9, 9], Some(65_536), true)));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for rest in
            [&[2, 9][..], &[2, 9, 9, 0, 0], &[0, 1], &[0, 0, 2, 9], &[0, 0, 2, 9, 9, 0], &[0, 0, 0, 9]]
        {
            assert_eq!(parse(rest), Err(Malformed), "{rest:?}");
        }
        assert_eq!(Command::parse(&[0, 0xA4, 4]), Err(Malformed));
        assert_eq!(Command::parse(&[]), Err(Malformed));
    }
}
