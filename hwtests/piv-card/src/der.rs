//! DER for certificates: the few types that are needed, written from the inside out.

use crate::tlv::encode;

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    encode(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    encode(0x31, &parts.concat())
}

/// A number that is not negative, from its bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &bytes[at..]);
    match digits.first() {
        None => encode(0x02, &[0]),
        Some(0x80..) => encode(0x02, &[&[0], digits].concat()),
        Some(_) => encode(0x02, digits),
    }
}

/// From the content bytes.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    encode(0x06, content)
}

pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    encode(0x04, bytes)
}

pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    encode(0x03, &[&[0], bytes].concat())
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    encode(0x0C, text.as_bytes())
}

pub(crate) fn null() -> Vec<u8> {
    encode(0x05, &[])
}

pub(crate) fn yes() -> Vec<u8> {
    encode(0x01, &[0xFF])
}

/// `YYYYMMDDHHMMSSZ`, which DER wants as a UTCTime before 2050.
pub(crate) fn time(text: &str) -> Vec<u8> {
    if text < "2050" { encode(0x17, &text.as_bytes()[2..]) } else { encode(0x18, text.as_bytes()) }
}
