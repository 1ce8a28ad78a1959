//! Labels of keys as names of files.
//!
//! A label is written with `%XX` (RFC 3986 section 2.1) for everything but ASCII letters and digits, `-_~.+=,` and
//! printable characters beyond ASCII. A dot or dash at the beginning is encoded too: names with a leading dot are the
//! store's own, and none should look like an option to a command.

use std::fmt::Write;

use signer_core::{Digest, HashAlgorithm};

/// File systems take 255 bytes; what is added at the end needs some of them.
const MAX: usize = 200;

/// The name's stem. A label that would make it too long is named by its hash: `%long-…`, which no label's encoding is.
pub(crate) fn encode(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    for (at, c) in label.char_indices() {
        let plain = match c {
            '.' | '-' => at > 0,
            _ if c.is_ascii() => c.is_ascii_alphanumeric() || "_~+=,".contains(c),
            _ => !c.is_control() && !c.is_whitespace(),
        };
        if plain {
            name.push(c);
        } else {
            escape(&mut name, c);
        }
    }
    if name.len() <= MAX {
        return name;
    }
    let digest = Digest::of(HashAlgorithm::Sha256, label.as_bytes());
    format!("%long-{}", hex::encode(digest.as_bytes()))
}

/// The label of a stem; `None` for one that [`encode`] does not make, or makes of a long label.
pub(crate) fn decode(name: &str) -> Option<String> {
    let label = unescape(name)?;
    (!label.is_empty() && encode(&label) == name).then_some(label)
}

/// A label in one line of ASCII.
pub(crate) fn one_line(label: &str) -> String {
    let mut line = String::new();
    for c in label.chars() {
        if c.is_ascii_graphic() && c != '%' {
            line.push(c);
        } else {
            escape(&mut line, c);
        }
    }
    line
}

/// Reads [`one_line`].
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn escape(into: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(into, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_and_read_back() {
        for label in
            ["release", "..", "a/b", "--help", ".lock", "Grüße", "%2F", "two\nlines", "CASE", "x.crt", " "]
        {
            let name = encode(label);
            assert!(!name.contains('/') && !name.starts_with(['.', '-']) && !name.contains('\n'), "{name}");
            assert_eq!(decode(&name).as_deref(), Some(label));
            assert_eq!(unescape(&one_line(label)).as_deref(), Some(label));
        }
        let long = "ä/".repeat(500);
        let name = encode(&long);
        assert!(name.len() <= MAX && decode(&name).is_none());
        assert!(name != encode(&"ä/".repeat(501)));
        assert_eq!(unescape(&one_line(&long)).as_deref(), Some(long.as_str()));
        for odd in ["", "a b", "%2f", "%", "%zz", "a/b", ".x"] {
            assert_eq!(decode(odd), None, "{odd:?}");
        }
    }
}
