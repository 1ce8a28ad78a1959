//! The TPM's protection against guessing (dictionary attacks): how many tries are left, and when it recovers.

use std::time::Duration;

use signer_core::{Error, ErrorKind};
use tss_esapi::Context;

use crate::{
    capabilities::{self, property},
    fault::Fault,
};

/// TPMA_PERMANENT inLockout.
const IN_LOCKOUT: u32 = 1 << 9;

/// The state of the protection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lockout {
    failed: u32,
    most: u32,
    locked: bool,
    /// How long until one more try.
    interval: Duration,
}

impl Lockout {
    /// As it is now.
    pub(crate) fn read(context: &mut Context) -> Result<Self, Fault> {
        let mut value = |tag| capabilities::read(context, tag).map(Option::unwrap_or_default);
        Ok(Self {
            failed: value(property::LOCKOUT_COUNTER)?,
            most: value(property::MAX_AUTH_FAIL)?,
            locked: value(property::PERMANENT)? & IN_LOCKOUT != 0,
            interval: Duration::from_secs(value(property::LOCKOUT_INTERVAL)?.into()),
        })
    }

    /// Tries until it locks.
    pub(crate) fn tries_left(self) -> u32 {
        if self.locked { 0 } else { self.most.saturating_sub(self.failed) }
    }

    /// Refuses a try that must not be made.
    pub(crate) fn allow(self, use_last_try: bool) -> Result<(), Error> {
        match self.tries_left() {
            0 => Err(self.error()),
            1 if !use_last_try => Err(Error::new(
                ErrorKind::Locked,
                "one try is left for the PIN before the TPM locks: not used unless you say so",
            )
            .next(format!(
                "if you are sure of the PIN, give it with `signer keys unlock --use-last-try`; {}",
                self.recovery()
            ))),
            _ => Ok(()),
        }
    }

    /// It is locked.
    pub(crate) fn error(self) -> Error {
        Error::new(ErrorKind::Locked, format!("the TPM is locked after {} wrong PINs", self.failed)).next(format!(
            "{}; the holder of the lockout authorisation can end it with `tpm2_dictionarylockout --clear-lockout`",
            self.recovery()
        ))
    }

    /// When it forgives.
    pub(crate) fn recovery(self) -> String {
        match self.interval.as_secs() {
            0 => "it does not recover by itself".to_owned(),
            seconds => format!("the TPM allows one more try every {}", for_people(seconds)),
        }
    }
}

fn for_people(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} seconds"),
        120..=7199 => format!("{} minutes ({seconds} seconds)", seconds / 60),
        _ => format!("{} hours ({seconds} seconds)", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_kept_and_the_recovery_told() {
        let lockout = |failed, locked| Lockout { failed, most: 3, locked, interval: Duration::from_hours(2) };
        assert!(lockout(1, false).allow(false).is_ok());
        let error = lockout(2, false).allow(false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(
            error.to_string().contains("--use-last-try") && error.to_string().contains("2 hours"),
            "{error}"
        );
        assert!(lockout(2, false).allow(true).is_ok());
        let error = lockout(3, true).allow(true).unwrap_err();
        assert!(
            error.to_string().contains("7200 seconds") && error.to_string().contains("3 wrong"),
            "{error}"
        );
    }
}
