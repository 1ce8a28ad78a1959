//! BER-TLV (ISO/IEC 7816-4 section 5.2.2): one to three bytes of tag, definite lengths.

/// One data object inside a byte string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// All bytes of the tag, as a number.
    pub tag: u32,
    /// What is in it.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// Splits off the first data object; none where the bytes do not begin with a whole one.
    pub fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (tag, rest) = tag(bytes)?;
        let (length, rest) = length(rest)?;
        let (value, rest) = rest.split_at_checked(length)?;
        Some((Self { tag, value }, rest))
    }

    /// All data objects; none where something is left over that is not one.
    pub fn all(mut bytes: &'a [u8]) -> Option<Vec<Self>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (tlv, rest) = Self::first(bytes)?;
            found.push(tlv);
            bytes = rest;
        }
        Some(found)
    }

    /// The value of the one data object that fills the bytes and has this tag.
    pub fn only(bytes: &'a [u8], tag: u32) -> Option<&'a [u8]> {
        match Self::first(bytes)? {
            (tlv, []) if tlv.tag == tag => Some(tlv.value),
            _ => None,
        }
    }
}

fn tag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mut tag = u32::from(*first);
    if first & 0x1F == 0x1F {
        loop {
            let (next, after) = rest.split_first()?;
            if tag > 0xFFFF {
                return None;
            }
            tag = tag << 8 | u32::from(*next);
            rest = after;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    Some((tag, rest))
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [short @ 0..=0x7F, rest @ ..] => Some((usize::from(*short), rest)),
        [0x81, length, rest @ ..] => Some((usize::from(*length), rest)),
        [0x82, high, low, rest @ ..] => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
        _ => None,
    }
}

/// One data object as bytes. Values are shorter than 64 KiB.
pub(crate) fn encode(tag: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = tag.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    match value.len() {
        short @ 0..=0x7F => bytes.push(short as u8),
        middle @ 0x80..=0xFF => bytes.extend([0x81, middle as u8]),
        long => {
            bytes.push(0x82);
            bytes.extend((long as u16).to_be_bytes());
        }
    }
    bytes.extend(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_lengths_of_every_size() {
        for tag in [0x53, 0x7E, 0x5FC1, 0x7F49, 0x005F_FF01] {
            for length in [0, 1, 0x7F, 0x80, 0xFF, 0x100, 3000] {
                if tag == 0x5FC1 {
                    continue; // C1 says that another byte follows
                }
                let value = vec![7; length];
                let bytes = encode(tag, &value);
                assert_eq!(Tlv::only(&bytes, tag), Some(&value[..]), "{tag:X} {length}");
                assert_eq!(Tlv::only(&bytes[..bytes.len() - 1], tag), None);
            }
        }
    }

    #[test]
    fn what_is_left_over_is_an_error() {
        assert_eq!(Tlv::all(&[0x80, 0, 0x81, 1, 5]).map(|all| all.len()), Some(2));
        assert_eq!(Tlv::all(&[0x80, 0, 0x81]), None);
        assert_eq!(Tlv::all(&[0x80, 0x83, 0, 0, 1, 5]), None);
        assert_eq!(Tlv::all(&[0x5F, 0xFF, 0xFF, 0xFF, 0x01, 0]), None);
    }
}
