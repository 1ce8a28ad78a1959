//! What a module's return codes mean, and what is done about each: one table.

use cryptoki_sys as sys;
use signer_core::{Error, ErrorKind};
use sys::CK_RV;

use crate::raw::Failure;

/// What is done when a function failed. Each does what those before it do, too; whatever fails again although its
/// action was taken is met with the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Take another session, and look for the key again.
    Reopen,
    /// Close all sessions, open them again and log in.
    LogIn,
    /// C_Finalize and C_Initialize: what a module needs that lost its token, or its mind.
    Reinitialise,
    /// Nothing that this process can do will help.
    RestartDriver,
    /// It is not the connection's fault: answer with an error of this kind.
    GiveUp(ErrorKind),
}

impl Action {
    fn tier(self) -> u8 {
        match self {
            Self::Reopen => 1,
            Self::LogIn => 2,
            Self::Reinitialise => 3,
            Self::RestartDriver => 4,
            Self::GiveUp(_) => 5,
        }
    }
}

impl PartialOrd for Action {
    /// By how far they go.
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.tier().partial_cmp(&other.tier())
    }
}

struct Verdict {
    action: Action,
    what: &'static str,
    next: Option<&'static str>,
}

/// The table.
fn verdict(code: CK_RV) -> Verdict {
    use Action::{GiveUp, LogIn, Reinitialise, Reopen, RestartDriver};
    use ErrorKind::{BadRequest, Busy, Denied, Internal, Locked, Unsupported, WrongPin};
    let (action, what) = match code {
        // The session is not what it was.
        sys::CKR_SESSION_HANDLE_INVALID
        | sys::CKR_SESSION_CLOSED
        | sys::CKR_OPERATION_ACTIVE
        | sys::CKR_OPERATION_NOT_INITIALIZED
        | sys::CKR_OPERATION_CANCEL_FAILED
        | sys::CKR_FUNCTION_CANCELED
        | sys::CKR_CANCEL => (Reopen, "the token lost the session"),
        // The object is not where it was: somebody changed it, or the token went away.
        sys::CKR_OBJECT_HANDLE_INVALID | sys::CKR_KEY_HANDLE_INVALID | sys::CKR_KEY_CHANGED => {
            (Reopen, "the token lost the key")
        }
        sys::CKR_USER_NOT_LOGGED_IN | sys::CKR_USER_TYPE_INVALID => (LogIn, "the token lost the login"),
        // The token went away, or says so of all that it does not understand.
        sys::CKR_DEVICE_REMOVED
        | sys::CKR_TOKEN_NOT_PRESENT
        | sys::CKR_TOKEN_NOT_RECOGNIZED
        | sys::CKR_SLOT_ID_INVALID
        | sys::CKR_CRYPTOKI_NOT_INITIALIZED => (Reinitialise, "the token is not there"),
        sys::CKR_GENERAL_ERROR
        | sys::CKR_DEVICE_ERROR
        | sys::CKR_FUNCTION_FAILED
        | sys::CKR_TOKEN_RESOURCE_EXCEEDED => (Reinitialise, "the token failed"),
        sys::CKR_HOST_MEMORY | sys::CKR_MUTEX_BAD | sys::CKR_MUTEX_NOT_LOCKED | sys::CKR_CANT_LOCK => {
            (RestartDriver, "the token's module failed")
        }
        code if code >= sys::CKR_VENDOR_DEFINED => (Reinitialise, "the token failed in its maker's own way"),
        // PINs: never again with the same one.
        sys::CKR_PIN_INCORRECT | sys::CKR_PIN_INVALID | sys::CKR_PIN_LEN_RANGE => {
            (GiveUp(WrongPin { tries_left: None }), "the token refused the PIN")
        }
        sys::CKR_PIN_LOCKED => (GiveUp(Locked), "the token's PIN is locked"),
        sys::CKR_PIN_EXPIRED => (GiveUp(Locked), "the token's PIN has expired"),
        sys::CKR_USER_PIN_NOT_INITIALIZED => (GiveUp(Locked), "the token has no user PIN yet"),
        sys::CKR_USER_ANOTHER_ALREADY_LOGGED_IN | sys::CKR_USER_TOO_MANY_TYPES => {
            (GiveUp(Denied), "somebody else is logged in to the token")
        }
        // The token will not.
        sys::CKR_KEY_FUNCTION_NOT_PERMITTED => (GiveUp(Denied), "the token does not let this key do that"),
        sys::CKR_ACTION_PROHIBITED | sys::CKR_FUNCTION_REJECTED | sys::CKR_ATTRIBUTE_READ_ONLY => {
            (GiveUp(Denied), "the token forbids it")
        }
        sys::CKR_TOKEN_WRITE_PROTECTED | sys::CKR_SESSION_READ_ONLY => {
            (GiveUp(Denied), "the token is write-protected")
        }
        sys::CKR_OPERATION_NOT_VALIDATED => (GiveUp(Denied), "the token's validation does not allow it"),
        sys::CKR_KEY_EXHAUSTED => (GiveUp(Denied), "the key has made all the signatures that it can"),
        // The token cannot.
        sys::CKR_MECHANISM_INVALID | sys::CKR_MECHANISM_PARAM_INVALID => {
            (GiveUp(Unsupported), "the token does not know this algorithm")
        }
        sys::CKR_FUNCTION_NOT_SUPPORTED => {
            (GiveUp(Unsupported), "the token's module does not know this function")
        }
        sys::CKR_CURVE_NOT_SUPPORTED
        | sys::CKR_DOMAIN_PARAMS_INVALID
        | sys::CKR_PARAMETER_SET_NOT_SUPPORTED
        | sys::CKR_KEY_SIZE_RANGE
        | sys::CKR_KEY_TYPE_INCONSISTENT => {
            (GiveUp(Unsupported), "the token does not know keys of this type or size")
        }
        sys::CKR_TEMPLATE_INCOMPLETE
        | sys::CKR_TEMPLATE_INCONSISTENT
        | sys::CKR_ATTRIBUTE_TYPE_INVALID
        | sys::CKR_ATTRIBUTE_VALUE_INVALID
        | sys::CKR_PUBLIC_KEY_INVALID => (GiveUp(Unsupported), "the token does not take a key in this form"),
        sys::CKR_DATA_INVALID | sys::CKR_DATA_LEN_RANGE => {
            (GiveUp(BadRequest), "the token does not sign data like this")
        }
        sys::CKR_DEVICE_MEMORY => (GiveUp(Internal), "the token is full"),
        sys::CKR_SESSION_COUNT => (
            GiveUp(Busy { retry_after: std::time::Duration::from_millis(50) }),
            "the token has no free session",
        ),
        _ => (GiveUp(Internal), "the token failed in an unexpected way"),
    };
    let next = match code {
        sys::CKR_PIN_INCORRECT | sys::CKR_PIN_INVALID | sys::CKR_PIN_LEN_RANGE => Some(
            "it is not tried again; mend the configured PIN or give the right one with `signer keys unlock`",
        ),
        sys::CKR_PIN_LOCKED => Some("the token's security officer can reset it (`pkcs11-tool --init-pin`)"),
        sys::CKR_PIN_EXPIRED => Some("set another one (`pkcs11-tool --change-pin`)"),
        sys::CKR_USER_PIN_NOT_INITIALIZED => Some("the security officer sets it (`pkcs11-tool --init-pin`)"),
        sys::CKR_DEVICE_MEMORY => Some("delete what is not needed any more"),
        _ if matches!(action, Reopen | LogIn | Reinitialise | RestartDriver) => {
            Some("signing resumes by itself when the token is back")
        }
        _ => None,
    };
    Verdict { action, what, next }
}

/// What is done about a code.
pub(crate) fn classify(code: CK_RV) -> Action {
    verdict(code).action
}

impl From<Failure> for Error {
    /// The error for whoever asked, when nothing more is done about it.
    fn from(failure: Failure) -> Self {
        let Verdict { action, what, next } = verdict(failure.code);
        let kind = match action {
            Action::GiveUp(kind) => kind,
            _ => ErrorKind::DeviceGone,
        };
        let error =
            Error::new(kind, what).vendor(format_args!("{}: {}", failure.function, name(failure.code)));
        match next {
            Some(next) => error.next(next),
            None => error,
        }
    }
}

macro_rules! names {
    ($code:expr; $($name:ident)*) => {
        match $code {
            $(sys::$name => stringify!($name).to_owned(),)*
            vendor if vendor >= sys::CKR_VENDOR_DEFINED => format!("CKR_VENDOR_DEFINED+{:#x}", vendor - sys::CKR_VENDOR_DEFINED),
            other => format!("CKR {other:#x}"),
        }
    };
}

/// The name of a return code as PKCS#11 writes it.
pub(crate) fn name(code: CK_RV) -> String {
    names!(code;
        CKR_OK CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED CKR_ARGUMENTS_BAD
        CKR_NO_EVENT CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE
        CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED CKR_DATA_INVALID
        CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED CKR_FUNCTION_CANCELED
        CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID CKR_KEY_SIZE_RANGE
        CKR_KEY_TYPE_INCONSISTENT CKR_KEY_NOT_NEEDED CKR_KEY_CHANGED CKR_KEY_NEEDED CKR_KEY_INDIGESTIBLE
        CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_UNEXTRACTABLE CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID
        CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED CKR_PIN_INCORRECT CKR_PIN_INVALID
        CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED CKR_SESSION_COUNT
        CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY CKR_SESSION_EXISTS
        CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS CKR_TEMPLATE_INCOMPLETE
        CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED
        CKR_USER_ALREADY_LOGGED_IN CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
        CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_RANDOM_NO_RNG CKR_DOMAIN_PARAMS_INVALID
        CKR_CURVE_NOT_SUPPORTED CKR_BUFFER_TOO_SMALL CKR_CRYPTOKI_NOT_INITIALIZED CKR_CRYPTOKI_ALREADY_INITIALIZED
        CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_NEW_PIN_MODE CKR_NEXT_OTP CKR_EXCEEDED_MAX_ITERATIONS
        CKR_FIPS_SELF_TEST_FAILED CKR_LIBRARY_LOAD_FAILED CKR_PIN_TOO_WEAK CKR_PUBLIC_KEY_INVALID CKR_FUNCTION_REJECTED
        CKR_TOKEN_RESOURCE_EXCEEDED CKR_OPERATION_CANCEL_FAILED CKR_KEY_EXHAUSTED CKR_PENDING
        CKR_SEED_RANDOM_REQUIRED CKR_OPERATION_NOT_VALIDATED CKR_TOKEN_NOT_INITIALIZED CKR_PARAMETER_SET_NOT_SUPPORTED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_about_a_pin_is_ever_met_with_another_try() {
        for code in [
            sys::CKR_PIN_INCORRECT,
            sys::CKR_PIN_INVALID,
            sys::CKR_PIN_LEN_RANGE,
            sys::CKR_PIN_LOCKED,
            sys::CKR_PIN_EXPIRED,
            sys::CKR_USER_PIN_NOT_INITIALIZED,
        ] {
            assert!(matches!(classify(code), Action::GiveUp(_)), "{}", name(code));
        }
    }

    #[test]
    fn an_error_names_function_and_code() {
        let error = Error::from(Failure { code: sys::CKR_DEVICE_REMOVED, function: "C_Sign" });
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert_eq!(error.vendor_code(), Some("C_Sign: CKR_DEVICE_REMOVED"));
        assert_eq!(name(sys::CKR_VENDOR_DEFINED + 0x42), "CKR_VENDOR_DEFINED+0x42");
        assert_eq!(name(0x7654_3210), "CKR 0x76543210");
    }

    #[test]
    fn actions_go_up() {
        use Action::{GiveUp, LogIn, Reinitialise, Reopen, RestartDriver};
        assert!(Reopen < LogIn && LogIn < Reinitialise && Reinitialise < RestartDriver);
        assert!(matches!(classify(sys::CKR_VENDOR_DEFINED), Reinitialise));
        assert!(matches!(classify(sys::CKR_ARGUMENTS_BAD), GiveUp(ErrorKind::Internal)));
    }
}
