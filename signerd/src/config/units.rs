//! Sizes, durations and file modes as people write them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Bytes: a number, or a text such as `"16 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// A duration: a number of seconds, or a text such as `"500 ms"` or `"2 min"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// Permissions of a file: `"0660"`, or `0o660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

/// The number at the beginning of a text, and the unit after it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" | "byte" | "bytes" => 0,
            "kib" => 10,
            "mib" => 20,
            "gib" => 30,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self)
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" | "" => 1000,
            "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.checked_mul(milliseconds).map(Duration::from_millis).map(Self)
    }
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok().filter(|m| *m <= 0o777).map(Self)
    }
}

/// Reads a text or a whole number.
struct TextOrNumber<T> {
    expected: &'static str,
    text: fn(&str) -> Option<T>,
    number: fn(u64) -> Option<T>,
}

impl<T> de::Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "a number of bytes, or a text such as \"16 MiB\"",
            text: Self::parse,
            number: |n| Some(Self(n)),
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "a number of seconds, or a text such as \"30 s\", \"500 ms\" or \"2 min\"",
            text: Self::parse,
            number: |n| n.checked_mul(1000).map(|n| Self(Duration::from_millis(n))),
        })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "permissions, as \"0660\" or 0o660",
            text: Self::parse,
            number: |n| u32::try_from(n).ok().filter(|m| *m <= 0o777).map(Self),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_others_refused() {
        assert_eq!(Bytes::parse("16 MiB"), Some(Bytes(16 << 20)));
        assert_eq!(Bytes::parse("1GiB"), Some(Bytes(1 << 30)));
        assert_eq!(Bytes::parse("12"), Some(Bytes(12)));
        assert_eq!(Span::parse("500 ms"), Some(Span(Duration::from_millis(500))));
        assert_eq!(Span::parse("2 min"), Some(Span(Duration::from_mins(2))));
        assert_eq!(Mode::parse("0660"), Some(Mode(0o660)));
        for bad in ["", "MiB", "-1", "1 furlong", "99999999999999999999", "18446744073709551615 GiB"] {
            assert_eq!((Bytes::parse(bad), Span::parse(bad)), (None, None), "{bad}");
        }
        for bad in ["", "0888", "01000", "rw"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }
}
