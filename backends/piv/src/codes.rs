//! What the errors of the smart card service (PC/SC) mean, and what is done about each: one table.

use std::time::Duration;

use pcsc::Error as Code;
use signer_core::{Error, ErrorKind};

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Look for the card again: it was taken out, or another program reset it.
    FindCard,
    /// Connect to the service again: it was stopped or started anew.
    FindService,
    /// Nothing helps but whoever has the card to himself letting it go, or somebody mending the system.
    GiveUp,
}

struct Verdict {
    remedy: Remedy,
    kind: ErrorKind,
    what: &'static str,
    next: &'static str,
}

const BACK: &str = "signing resumes by itself when the card is back";

/// The table.
fn verdict(code: Code) -> Verdict {
    use Remedy::{FindCard, FindService, GiveUp};
    let (remedy, kind, what, next) = match code {
        Code::ResetCard => (FindCard, ErrorKind::DeviceGone, "another program reset the card", BACK),
        Code::RemovedCard | Code::NoSmartcard => {
            (FindCard, ErrorKind::DeviceGone, "the card was taken out", BACK)
        }
        Code::UnknownReader | Code::ReaderUnavailable => {
            (FindCard, ErrorKind::DeviceGone, "the card's reader was taken out", BACK)
        }
        Code::UnresponsiveCard
        | Code::UnpoweredCard
        | Code::UnsupportedCard
        | Code::CommError
        | Code::CommDataLost
        | Code::NotTransacted
        | Code::InvalidAtr
        | Code::NotReady
        | Code::ProtoMismatch
        | Code::Timeout
        | Code::UnknownError
        | Code::InternalError => (
            FindCard,
            ErrorKind::DeviceGone,
            "the card does not answer as it should",
            "if it goes on, take the card out and put it in again",
        ),
        Code::NoService | Code::ServiceStopped | Code::Shutdown | Code::SystemCancelled => (
            FindService,
            ErrorKind::DeviceGone,
            "the smart card service (pcscd) is not running",
            "install pcscd and start it: `systemctl enable --now pcscd.socket`",
        ),
        Code::InvalidHandle | Code::InvalidParameter | Code::Cancelled => (
            FindService,
            ErrorKind::DeviceGone,
            "the smart card service (pcscd) was started anew",
            "it is connected to again by itself",
        ),
        Code::NoReadersAvailable => {
            (FindCard, ErrorKind::DeviceGone, "there is no smart card reader", "plug the card in")
        }
        Code::SharingViolation => (
            GiveUp,
            ErrorKind::Busy { retry_after: Duration::from_secs(1) },
            "another program has the card to itself",
            "end it; for GnuPG, write `pcsc-shared` in ~/.gnupg/scdaemon.conf and run `gpgconf --kill scdaemon`",
        ),
        // A service that is ended in mid-call refuses, too: only who is refused again is refused. It may be about one reader, so
        // that other readers are looked at.
        Code::SecurityViolation | Code::NoAccess => (
            FindCard,
            ErrorKind::Denied,
            "the smart card service (pcscd) does not let this user in: polkit forbids it",
            "allow org.debian.pcsc-lite.access_pcsc and access_card to the daemon's user in a polkit rule: \
             docs/backends/piv.md has it",
        ),
        Code::ServerTooBusy | Code::NoMemory => (
            GiveUp,
            ErrorKind::Busy { retry_after: Duration::from_millis(200) },
            "the smart card service (pcscd) has too much to do",
            "try again in a moment",
        ),
        _ => (
            FindService,
            ErrorKind::Internal,
            "the smart card service (pcscd) failed in an unexpected way",
            "its log may say why: `journalctl -u pcscd`",
        ),
    };
    Verdict { remedy, kind, what, next }
}

/// What is done about an error.
pub(crate) fn remedy(code: Code) -> Remedy {
    verdict(code).remedy
}

/// The error for whoever asked, when nothing more is done about it.
pub(crate) fn error(code: Code) -> Error {
    let Verdict { kind, what, next, .. } = verdict(code);
    Error::new(kind, what).vendor(format_args!("PC/SC {code:?}")).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_by_itself_is_retryable_and_what_does_not_is_not() {
        for code in
            [Code::ResetCard, Code::RemovedCard, Code::NoService, Code::InvalidHandle, Code::CommError]
        {
            assert!(error(code).is_retryable(), "{code:?}");
            assert_ne!(remedy(code), Remedy::GiveUp, "{code:?}");
        }
        assert_eq!(error(Code::SecurityViolation).kind(), ErrorKind::Denied);
        assert_eq!(remedy(Code::SecurityViolation), Remedy::FindCard);
        assert_eq!(remedy(Code::SharingViolation), Remedy::GiveUp);
        assert!(error(Code::NoService).advice().unwrap().contains("pcscd.socket"));
        assert!(error(Code::SecurityViolation).advice().unwrap().contains("polkit"));
    }
}
