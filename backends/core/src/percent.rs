//! Percent-encoding (RFC 3986 section 2.1) for names and URIs.

use crate::{Error, Result};

/// Decodes `%XX`. The result must be UTF-8 without control characters.
pub(crate) fn decode_text(text: &str) -> Result<String> {
    let decoded = String::from_utf8(decode_bytes(text)?)
        .map_err(|_| Error::bad_request(format!("{text:?} does not decode to UTF-8")))?;
    if decoded.chars().any(|c| c == '\0') {
        return Err(Error::bad_request(format!("{text:?} has a NUL character")));
    }
    Ok(decoded)
}

/// Decodes `%XX` to any bytes.
pub(crate) fn decode_bytes(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let (Some(high), Some(low)) =
                (tail.first().and_then(|b| hex_value(*b)), tail.get(1).and_then(|b| hex_value(*b)))
            else {
                return Err(Error::bad_request(format!("{text:?} has a % without two hexadecimal digits")));
            };
            out.push(high << 4 | low);
            rest = &tail[2..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    Ok(out)
}

/// Encodes everything but ASCII letters and digits, `-._~` and the bytes of `also_plain`.
pub(crate) fn encode(bytes: &[u8], also_plain: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || also_plain.contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(b"0123456789ABCDEF"[usize::from(b >> 4)]));
            out.push(char::from(b"0123456789ABCDEF"[usize::from(b & 15)]));
        }
    }
    out
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// Reads pairs of hexadecimal digits.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes.chunks(2).map(|pair| Some(hex_value(pair[0])? << 4 | hex_value(pair[1])?)).collect()
}

/// Writes pairs of lower-case hexadecimal digits.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
