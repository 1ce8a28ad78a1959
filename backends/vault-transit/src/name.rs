//! Names: what is a label here, and how a transit key is called for it.
//!
//! Vault takes `\w([\w.-]*\w)?` with `\w` = `[0-9A-Za-z_]` as the name of a transit key. A label of that form is the name.
//! Any other is written as `_.` and its bytes, all but letters and digits as `_HH`, so that every label can be had and
//! every name in Vault can be named.

/// The name of the transit key for a label.
pub(crate) fn of_label(label: &str) -> String {
    if is_name(label) && decoded(label).is_none() {
        return label.to_owned();
    }
    encoded(label)
}

/// The label of a transit key.
pub(crate) fn to_label(name: &str) -> String {
    decoded(name).unwrap_or_else(|| name.to_owned())
}

/// Whether Vault takes it as a name.
pub(crate) fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| word(*b))
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || b"-.".contains(b))
}

const PREFIX: &str = "_.";

fn encoded(label: &str) -> String {
    let mut name = PREFIX.to_owned();
    for byte in label.bytes() {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            name.push('_');
            name.extend([byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)])));
        }
    }
    name
}

/// The label that [`of_label`] would write so; `None` for a name that is its own label.
fn decoded(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix(PREFIX)?.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'_' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            (digit(rest.next())? << 4 | digit(rest.next())?) as u8
        } else {
            byte
        });
    }
    let label = String::from_utf8(bytes).ok().filter(|l| !l.is_empty())?;
    // Only what is written in the one way, and only where it had to be.
    let needed = !is_name(&label) || decoded(&label).is_some();
    (needed && encoded(&label) == name).then_some(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_and_others_are_written() {
        for plain in ["release", "a.b-c_d", "_x", "9", "_.a"] {
            assert_eq!(of_label(plain), plain);
        }
        // A plain name that is another label's.
        assert_ne!(of_label("_.a_2fb"), "_.a_2fb");
        assert_eq!(of_label("a/b c"), "_.a_2fb_20c");
        assert_eq!(to_label("_.a_2fb_20c"), "a/b c");
        // Not written in the one way: names of their own.
        for own in ["_.abc", "_.a_2F", "_.a_2", "_.", "_._ff"] {
            assert_eq!(to_label(own), own);
        }
    }

    proptest! {
        #[test]
        fn labels_are_read_back(label in "[^\\x00]{1,60}") {
            let name = of_label(&label);
            prop_assert!(is_name(&name), "{name}");
            prop_assert_eq!(to_label(&name), label);
        }

        #[test]
        fn names_are_read_back(name in "[_.a-c0-2-]{1,12}") {
            if is_name(&name) {
                prop_assert_eq!(of_label(&to_label(&name)), name);
            }
        }
    }
}
