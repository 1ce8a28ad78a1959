//! What a card's status words mean: one table.

use signer_core::{Error, ErrorKind};

/// The status word at the end of each answer (SP 800-73-4 part 2, section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

impl Status {
    pub(crate) const OK: Self = Self(0x9000);
    /// The PIN was not verified, the management key not used, or nobody touched the card in time.
    pub(crate) const SECURITY: Self = Self(0x6982);
    pub(crate) const BLOCKED: Self = Self(0x6983);
    pub(crate) const NO_OBJECT: Self = Self(0x6a82);
    pub(crate) const NO_REFERENCE: Self = Self(0x6a88);

    /// Tries left for a PIN that was refused, or was asked about.
    pub(crate) fn tries_left(self) -> Option<u32> {
        match self.0 {
            0x63c0..=0x63cf => Some(u32::from(self.0 & 0xf)),
            0x6983 => Some(0),
            _ => None,
        }
    }

    /// The error for whoever asked. `doing` says what the card was asked to do: "sign".
    pub(crate) fn error(self, doing: &str) -> Error {
        use ErrorKind::{Denied, Internal, Locked, NotFound, Unsupported, WrongPin};
        let (kind, what, next) = match self.0 {
            0x63c0..=0x63cf => (
                WrongPin { tries_left: self.tries_left() },
                "the card refused the PIN",
                "it is not tried again; mend the configured PIN or give the right one with `signer keys unlock`",
            ),
            0x6983 => (
                Locked,
                "the card's PIN is blocked: too many wrong tries",
                "unblock it with the PUK: `ykman piv access unblock-pin`",
            ),
            0x6982 => (Denied, "the card wants its PIN or its management key first", ""),
            0x6985 => (Denied, "the card does not allow it as it is now", ""),
            0x6a82 => (NotFound, "the card has no such object", ""),
            0x6a88 => (NotFound, "there is no key in this slot of the card", ""),
            0x6a81 | 0x6881 | 0x6884 | 0x6d00 | 0x6e00 => {
                (Unsupported, "the card does not know this command", "")
            }
            0x6a84 => (
                Internal,
                "the card has no room for it",
                "delete certificates that are not needed, or store a smaller one",
            ),
            0x6a80 | 0x6a86 | 0x6b00 | 0x6700 => (Internal, "the card does not take it in this form", ""),
            0x6581 => (Internal, "the card's memory failed", "the card may be worn out: try another"),
            _ => (Internal, "the card failed in an unexpected way", ""),
        };
        let error = Error::new(kind, what).vendor(format_args!("{doing}: SW {:04x}", self.0));
        if next.is_empty() { error } else { error.next(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_has_its_kind() {
        for (word, kind) in [
            (0x63c2, ErrorKind::WrongPin { tries_left: Some(2) }),
            (0x6983, ErrorKind::Locked),
            (0x6982, ErrorKind::Denied),
            (0x6a82, ErrorKind::NotFound),
            (0x6a88, ErrorKind::NotFound),
            (0x6d00, ErrorKind::Unsupported),
            (0x6a80, ErrorKind::Internal),
            (0x6f00, ErrorKind::Internal),
        ] {
            let error = Status(word).error("sign");
            assert_eq!(error.kind(), kind, "{word:04x}");
            assert_eq!(error.vendor_code(), Some(&*format!("sign: SW {word:04x}")));
        }
    }

    #[test]
    fn tries_are_counted() {
        assert_eq!(Status(0x63c3).tries_left(), Some(3));
        assert_eq!(Status::BLOCKED.tries_left(), Some(0));
        assert_eq!(Status::OK.tries_left(), None);
    }
}
