//! BER-TLV, as PIV data objects and commands are made of (ISO/IEC 7816-4 section 5.2.2).

use zeroize::Zeroizing;

/// Appends a tag of one to three bytes and its value.
pub(crate) fn push(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    let bytes = tag.to_be_bytes();
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(3);
    out.extend_from_slice(&bytes[start..]);
    match value.len() {
        length @ 0..0x80 => out.push(length as u8),
        length @ 0x80..0x100 => out.extend([0x81, length as u8]),
        length => {
            out.push(0x82);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// One tag and its value.
pub(crate) fn of(tag: u32, value: &[u8]) -> Zeroizing<Vec<u8>> {
    // Room for all of it, so that nothing secret is left behind in memory that was outgrown.
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() + 8));
    push(&mut out, tag, value);
    out
}

/// The value of the first element with this tag; `None` if there is none, or what comes before it is malformed.
pub(crate) fn find(bytes: &[u8], tag: u32) -> Option<&[u8]> {
    Elements(bytes).find(|(t, _)| *t == tag).map(|(_, value)| value)
}

/// The elements of a sequence, up to the first that is malformed.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = read_tag(self.0)?;
        let (length, rest) = read_length(rest)?;
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }
}

fn read_tag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mut tag = u32::from(*first);
    if first & 0x1f == 0x1f {
        loop {
            let (next, after) = rest.split_first()?;
            rest = after;
            tag = tag.checked_mul(0x100)? | u32::from(*next);
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    Some((tag, rest))
}

fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    Some((digits.iter().fold(0, |length, d| length << 8 | usize::from(*d)), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_elements_are_found() {
        let key = of(0x7f49, &of(0x86, &[4; 65]));
        assert_eq!(key[..4], [0x7f, 0x49, 67, 0x86]);
        assert_eq!(find(&key, 0x7f49).and_then(|k| find(k, 0x86)), Some(&[4; 65][..]));
        assert_eq!(find(&key, 0x81), None);
        assert_eq!(find(&of(0x005f_c105, b"x"), 0x005f_c105), Some(&b"x"[..]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            first in proptest::collection::vec(any::<u8>(), 0..300),
            second in proptest::collection::vec(any::<u8>(), 0..70_000).prop_filter("16 bits", |v| v.len() < 0x1_0000),
        ) {
            let mut bytes = Vec::new();
            push(&mut bytes, 0x70, &first);
            push(&mut bytes, 0x005f_ff01, &second);
            prop_assert_eq!(find(&bytes, 0x70), Some(&first[..]));
            prop_assert_eq!(find(&bytes, 0x005f_ff01), Some(&second[..]));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), tag: u32) {
            let _ = find(&bytes, tag);
        }
    }
}
