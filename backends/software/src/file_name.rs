//! Labels of keys as names of folders.
//!
//! A label is written with `%XX` (RFC 3986 section 2.1) for everything but ASCII letters and digits, `-_~.+=,` and
//! printable characters beyond ASCII. A dot or dash at the beginning is encoded too: names with a leading dot are the
//! store's own, and none should look like an option to a command.

use std::fmt::Write;

/// The longest file name that Linux file systems take, in bytes.
const MAX: usize = 255;

/// The folder's name; `None` if it would be longer than a file name may be.
pub(crate) fn encode(label: &str) -> Option<String> {
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
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    (!name.is_empty() && name.len() <= MAX).then_some(name)
}

/// The label of a folder; `None` for a name that [`encode`] does not make.
pub(crate) fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
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
    let label = String::from_utf8(bytes).ok()?;
    (encode(&label).as_deref() == Some(name)).then_some(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_harmless() {
        for (label, name) in [
            ("release", "release"),
            ("..", "%2E."),
            (".lock", "%2Elock"),
            ("a/b", "a%2Fb"),
            ("--help", "%2D-help"),
            ("100%", "100%25"),
            ("Grüße 鍵", "Grüße%20鍵"),
            ("two\nlines", "two%0Alines"),
        ] {
            assert_eq!(encode(label).as_deref(), Some(name));
        }
        assert_eq!(encode(&"x".repeat(256)), None);
        assert_eq!(encode(&" ".repeat(86)), None);
        assert!(encode(&"ä".repeat(127)).is_some());
        for foreign in ["", "a b", "%2e.", "%41", "%", "%4", "%+1", ".lock", "-x", "a\u{a0}"] {
            assert_eq!(decode(foreign), None, "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn every_label_has_a_folder_of_its_own(label in "[^\\x00]{1,80}") {
            if let Some(name) = encode(&label) {
                prop_assert!(!name.contains(['/', '\0']) && !name.starts_with(['.', '-']) && name.len() <= MAX);
                prop_assert_eq!(decode(&name), Some(label));
            }
        }

        #[test]
        fn no_name_is_misread(name in "\\PC{0,40}|[%0-9A-F.~-]{0,20}") {
            if let Some(label) = decode(&name) {
                prop_assert_eq!(encode(&label), Some(name));
            }
        }
    }
}
