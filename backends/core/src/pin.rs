//! PINs, and who hands them out.
//!
//! A device's PIN tries are few and shared by every process that talks to it, so a backend never keeps a PIN: it asks
//! a [`PinSource`] for a lease, makes one login attempt with it and reports the outcome. A source hands out one lease
//! at a time and none after a wrong PIN, so that no second try is ever burnt.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use crate::{BoxFuture, Error, Result};

/// A PIN, passphrase or other secret that unlocks a device. It is wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Pin(Arc<SecretString>);

impl Pin {
    /// Takes a PIN as read from a file or terminal: one line end at the end is dropped.
    /// An empty PIN, one with a NUL byte or one of more than 4096 bytes is refused.
    pub fn new(text: String) -> Result<Self> {
        let text = zeroize::Zeroizing::new(text);
        let pin = text.strip_suffix('\n').unwrap_or(&text);
        let pin = pin.strip_suffix('\r').unwrap_or(pin);
        if pin.is_empty() {
            return Err(Error::bad_request("the PIN is empty"));
        }
        if pin.len() > 4096 || pin.contains('\0') {
            return Err(Error::bad_request("the PIN is too long or has a NUL byte"));
        }
        Ok(Self(Arc::new(SecretString::from(pin.to_owned()))))
    }

    /// The PIN's characters. Whoever calls this must not copy them into anything that outlives the call.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// What a login is for: shown to a person who is asked for the PIN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinPrompt {
    /// The token or card as its owner knows it: a label and a serial number.
    pub device: String,
    /// The key that needs this login of its own (PKCS#11 `CKA_ALWAYS_AUTHENTICATE`, PIV "PIN always"); `None` for
    /// a login to the whole device.
    pub key: Option<String>,
    /// Tries left before the device locks, where it says so.
    pub tries_left: Option<u32>,
}

/// How a login attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// The device took the PIN.
    Accepted,
    /// The device refused the PIN; the error goes to everybody who asks from now on, until another PIN is given.
    Refused(Error),
    /// The PIN was not tried, or the device failed for another reason.
    NotTried,
}

/// Hands out PINs: in a driver process the daemon at the other end of the link, elsewhere a configured secret.
pub trait PinSource: Send + Sync {
    /// Waits until no other lease is out and then gives one, or says why there is none: `PinRequired` when nobody
    /// has given a PIN yet, `WrongPin` or `Locked` after a refused one.
    fn lease<'a>(&'a self, prompt: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>>;
}

/// The right to make one login attempt. Dropping it without a report counts as [`PinOutcome::NotTried`].
pub trait PinLease: Send {
    /// The PIN to try.
    fn pin(&self) -> &Pin;

    /// Whether the person said that even the last try may be used.
    fn may_use_last_try(&self) -> bool;

    /// Says how the attempt ended, so that the next lease can be given.
    fn report(self: Box<Self>, outcome: PinOutcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_never_printed_and_loses_one_line_end() {
        let pin = Pin::new("1234\r\n".into()).unwrap();
        assert_eq!(pin.expose(), "1234");
        assert_eq!(format!("{pin:?}"), "Pin(…)");
        for bad in ["", "\n", "12\0", &"9".repeat(4097)] {
            assert!(Pin::new(bad.into()).is_err());
        }
    }
}
