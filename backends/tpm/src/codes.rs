//! What response codes mean, and what is done about each: one table.

use std::time::Duration;

use signer_core::{Error, ErrorKind};
use tss_esapi::constants::Tss2ResponseCode;

/// What is done when a command failed. What fails again although its action was taken is met with the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Forget all handles and load keys again: the TPM was reset, or somebody took them away.
    Reload,
    /// Connect anew.
    Reconnect,
    /// It is not the connection's fault: answer with an error of this kind.
    GiveUp(ErrorKind),
}

/// Layers of the TSS that answer with codes of their own (TSS 2.0 Overview and Common Structures, section 2.4).
const LAYER_TCTI: u32 = 10;
const LAYER_RESMGR: u32 = 11;
/// The resource manager answering in the TPM's place, with the TPM's codes.
const LAYER_RESMGR_TPM: u32 = 12;

const BUSY: ErrorKind = ErrorKind::Busy { retry_after: Duration::from_millis(100) };

struct Verdict {
    action: Action,
    /// For people, as a clause.
    what: &'static str,
    next: Option<&'static str>,
}

/// A code of the TPM without the number of the parameter, handle or session that it is about.
pub(crate) const AUTH_FAIL: u32 = 0x08E;
pub(crate) const BAD_AUTH: u32 = 0x0A2;
pub(crate) const OBJECT_MEMORY: u32 = 0x902;
pub(crate) const LOCKOUT: u32 = 0x921;
pub(crate) const INITIALIZE: u32 = 0x100;
pub(crate) const NV_DEFINED: u32 = 0x14C;
pub(crate) const HANDLE: u32 = 0x08B;
pub(crate) const SIGNATURE: u32 = 0x09B;

/// The one table, for codes of the TPM (TPM 2.0 Library part 2, section 6.6).
fn verdict(code: u32) -> Verdict {
    use Action::{GiveUp, Reconnect, Reload};
    use ErrorKind::{BadRequest, Denied, Internal, Locked, NotFound, Unsupported, WrongPin};
    let (action, what) = match code {
        // PINs: never again with the same one.
        AUTH_FAIL | BAD_AUTH => (GiveUp(WrongPin { tries_left: None }), "the TPM refused the PIN"),
        LOCKOUT => (GiveUp(Locked), "the TPM is locked: too many wrong PINs"),
        // The policy of the key.
        0x09D | 0x126 => (GiveUp(Denied), "the TPM's state is not what the key's policy demands"),
        0x128 => (GiveUp(BUSY), "the PCRs changed meanwhile"),
        0x0A3 => (GiveUp(Denied), "the key's policy has expired"),
        0x0A4 => (GiveUp(Denied), "the key's policy does not allow this operation"),
        0x12F => (GiveUp(Denied), "the key cannot be used with a PIN alone"),
        // Handles that are not what they were: a reset, or somebody flushed them.
        HANDLE | 0x150 | 0x910..=0x916 | 0x918..=0x91E => (Reload, "the TPM was reset"),
        // Room: loaded keys and sessions are given up.
        0x901..=0x906 => (Reload, "the TPM has no room left"),
        // It is not started, or not well.
        INITIALIZE => (Reconnect, "the TPM was not started"),
        0x101 | 0x130 => (Reconnect, "the TPM has failed"),
        0x12D => (Reconnect, "the TPM is being updated"),
        0x908..=0x90A | 0x153 | 0x920 | 0x922 | 0x923 => (GiveUp(BUSY), "the TPM is busy"),
        // The blob is not this TPM's.
        0x09F | 0x0A5 => (GiveUp(NotFound), "the TPM does not know this key"),
        // It cannot.
        0x081 | 0x083 | 0x092 | 0x096 | 0x0A6 | 0x087 | 0x08A | 0x08C | 0x088 | 0x089 => {
            (GiveUp(Unsupported), "the TPM does not know this algorithm, curve or size")
        }
        0x143 => (GiveUp(Unsupported), "the TPM does not know this command"),
        0x120 | 0x085 => (GiveUp(Denied), "this hierarchy of the TPM is disabled"),
        0x082 | 0x09C => (GiveUp(Unsupported), "the key is not made for this"),
        SIGNATURE => (GiveUp(Denied), "the TPM says that the signature does not verify"),
        0x14B => (GiveUp(Internal), "the TPM has no room for another persistent object"),
        NV_DEFINED => (GiveUp(ErrorKind::AlreadyExists), "there is something at this handle already"),
        0x084 | 0x08D | 0x095 | 0x0A7 => (GiveUp(BadRequest), "the TPM does not accept such a value"),
        _ => (GiveUp(Internal), "the TPM answered with an unexpected code"),
    };
    let next = match code {
        AUTH_FAIL | BAD_AUTH => Some(
            "it is not tried again; mend the configured PIN or give the right one with `signer keys unlock`",
        ),
        0x09F | 0x0A5 => Some(
            "its file was made by another TPM or under another parent, was changed, or the TPM was cleared since",
        ),
        0x14B => Some("`tpm2_getcap handles-persistent` shows what is there, `tpm2_evictcontrol` removes it"),
        _ if matches!(action, Reload | Reconnect) => Some("signing resumes by itself when the TPM is back"),
        _ => None,
    };
    Verdict { action, what, next }
}

/// What is done about an error.
pub(crate) fn classify(error: tss_esapi::Error) -> Action {
    match parts(error) {
        Some((0 | LAYER_RESMGR_TPM, code)) => verdict(code).action,
        Some((LAYER_TCTI | LAYER_RESMGR, _)) => Action::Reconnect,
        // The TSS's own view of its handles is lost.
        Some(_) => Action::Reload,
        None => Action::GiveUp(ErrorKind::Internal),
    }
}

/// Whether the TPM, or its resource manager in its place, answered with this code.
pub(crate) fn is(error: tss_esapi::Error, wanted: &[u32]) -> bool {
    matches!(parts(error), Some((0 | LAYER_RESMGR_TPM, code)) if wanted.contains(&code))
}

/// The error for whoever asked, when nothing more is done about it.
pub(crate) fn to_error(error: tss_esapi::Error) -> Error {
    let vendor = vendor(error);
    let Some((layer, code)) = parts(error) else {
        return Error::internal("the TPM's answer, or a request to it, cannot be expressed").vendor(vendor);
    };
    match layer {
        0 | LAYER_RESMGR_TPM => {
            let Verdict { action, what, next } = verdict(code);
            let kind = match action {
                Action::GiveUp(kind) => kind,
                _ => ErrorKind::DeviceGone,
            };
            let error = Error::new(kind, what).vendor(vendor);
            next.map_or(error.clone(), |next| error.next(next))
        }
        LAYER_TCTI | LAYER_RESMGR => Error::new(ErrorKind::DeviceGone, "the TPM cannot be reached")
            .vendor(vendor)
            .next("signing resumes by itself when it is back"),
        _ => Error::internal("the TPM software stack failed").vendor(vendor),
    }
}

/// Layer and code; `None` for an error of the Rust wrapper.
fn parts(error: tss_esapi::Error) -> Option<(u32, u32)> {
    let tss_esapi::Error::Tss2Error(code) = error else { return None };
    let raw = raw(code);
    let code = raw & 0xFFFF;
    // Format one (bit 7): the upper nibble and bit 6 say which parameter, handle or session it is about.
    let bare = if code & 0x80 != 0 { code & 0x0BF } else { code & 0xFFF };
    Some(((raw >> 16) & 0xFF, bare))
}

/// The code as a number, which the wrapper gives in text alone.
fn raw(code: Tss2ResponseCode) -> u32 {
    let text = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let hex = text.rsplit("0x").next().unwrap_or_default();
    u32::from_str_radix(hex, 16).unwrap_or(u32::MAX)
}

fn vendor(error: tss_esapi::Error) -> String {
    match error {
        tss_esapi::Error::Tss2Error(code) => format!("TSS2_RC {:#x}: {error}", raw(code)),
        tss_esapi::Error::WrapperError(_) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tss_esapi::structures::Auth;

    use super::*;

    #[test]
    fn no_code_about_a_pin_is_ever_met_with_another_try() {
        for code in [AUTH_FAIL, BAD_AUTH, LOCKOUT] {
            assert!(matches!(verdict(code).action, Action::GiveUp(_)), "{code:#x}");
        }
    }

    #[test]
    fn codes_are_told_from_what_they_are_about() {
        // A real code of the stack: there is nobody at this port.
        let nobody = tss_esapi::Context::new("swtpm:host=127.0.0.1,port=1".parse().unwrap()).unwrap_err();
        assert_eq!(parts(nobody).map(|(layer, _)| layer), Some(LAYER_TCTI));
        assert_eq!(classify(nobody), Action::Reconnect);
        assert_eq!(to_error(nobody).kind(), ErrorKind::DeviceGone);
        assert!(to_error(nobody).vendor_code().unwrap().contains("0xa000"), "{}", to_error(nobody));
        let ours = Auth::try_from(vec![0; 100]).unwrap_err();
        assert_eq!(classify(ours), Action::GiveUp(ErrorKind::Internal));
    }
}
