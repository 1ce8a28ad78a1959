//! What a token says of itself, and which of a module's tokens is meant.

use cryptoki_sys as sys;
use serde::Serialize;
use signer_core::{Error, ErrorKind, Result};
use sys::{CK_FLAGS, CK_SLOT_ID};

use crate::{
    config::Wanted,
    fault::Fault,
    raw::{Failure, Module},
};

/// A token, as C_GetTokenInfo describes it.
#[derive(Clone, Debug, Serialize)]
pub struct TokenInfo {
    /// Where it is now. Another number the next time.
    #[serde(skip)]
    pub(crate) slot: CK_SLOT_ID,
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Its maker.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Version of its hardware.
    pub hardware: String,
    /// Version of its firmware.
    pub firmware: String,
    /// The state of its PIN and the like, by the names of PKCS#11 without `CKF_`.
    pub flags: Vec<&'static str>,
    #[serde(skip)]
    bits: CK_FLAGS,
}

impl TokenInfo {
    /// Asks for it.
    pub(crate) fn read(module: &Module, slot: CK_SLOT_ID) -> Result<Self, Failure> {
        let info = module.token_info(slot)?;
        Ok(Self {
            slot,
            label: text(&info.label),
            serial: text(&info.serialNumber),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            hardware: version(info.hardwareVersion),
            firmware: version(info.firmwareVersion),
            flags: FLAGS.iter().filter(|(bit, _)| info.flags & bit != 0).map(|(_, name)| *name).collect(),
            bits: info.flags,
        })
    }

    /// All initialised tokens of a module. One that cannot be read is left out.
    pub(crate) fn all(module: &Module) -> Result<Vec<Self>, Failure> {
        let slots = module.slots()?;
        let readable = slots.into_iter().filter_map(|slot| Self::read(module, slot).ok());
        Ok(readable.filter(|token| token.is(sys::CKF_TOKEN_INITIALIZED)).collect())
    }

    /// The one token that is meant. `DeviceGone` when it is not there, `BadRequest` when there are several.
    pub(crate) fn find(module: &Module, wanted: &Wanted) -> Result<Self, Fault> {
        let all = Self::all(module)?;
        let fits = |token: &&Self| match wanted {
            Wanted::Label(label) => token.label == *label,
            Wanted::Serial(serial) => token.serial == *serial,
        };
        let mut fitting = all.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => {
                let seen = if all.is_empty() {
                    "the module shows no token at all".to_owned()
                } else {
                    let names: Vec<_> = all.iter().map(Self::name).collect();
                    format!("the module shows {}", names.join(", "))
                };
                Err(Fault::Absent(
                    Error::new(ErrorKind::DeviceGone, format!("no token has {wanted}"))
                        .next(format!("{seen}; is it plugged in, and is the configured name right?")),
                ))
            }
            (Some(_), Some(_)) => {
                let serials: Vec<_> =
                    all.iter().filter(fits).map(|token| format!("serial = {:?}", token.serial)).collect();
                Err(Fault::Answer(
                    Error::bad_request(format!("several tokens have {wanted}"))
                        .next(format!("use serial instead of token: {}", serials.join(" or "))),
                ))
            }
        }
    }

    /// Whether a flag of C_GetTokenInfo is set.
    pub(crate) fn is(&self, flag: CK_FLAGS) -> bool {
        self.bits & flag != 0
    }

    /// How many PIN tries are left, where the token says so.
    pub(crate) fn tries_left(&self) -> Option<u32> {
        self.is(sys::CKF_USER_PIN_FINAL_TRY).then_some(1)
    }

    /// As its owner knows it: label and serial number.
    pub(crate) fn name(&self) -> String {
        if self.serial.is_empty() {
            return format!("{:?}", self.label);
        }
        format!("{:?} (serial {})", self.label, self.serial)
    }
}

/// What people want to know of a token's state.
const FLAGS: [(CK_FLAGS, &str); 9] = [
    (sys::CKF_WRITE_PROTECTED, "WRITE_PROTECTED"),
    (sys::CKF_LOGIN_REQUIRED, "LOGIN_REQUIRED"),
    (sys::CKF_PROTECTED_AUTHENTICATION_PATH, "PROTECTED_AUTHENTICATION_PATH"),
    (sys::CKF_TOKEN_INITIALIZED, "TOKEN_INITIALIZED"),
    (sys::CKF_USER_PIN_INITIALIZED, "USER_PIN_INITIALIZED"),
    (sys::CKF_USER_PIN_COUNT_LOW, "USER_PIN_COUNT_LOW"),
    (sys::CKF_USER_PIN_FINAL_TRY, "USER_PIN_FINAL_TRY"),
    (sys::CKF_USER_PIN_LOCKED, "USER_PIN_LOCKED"),
    (sys::CKF_USER_PIN_TO_BE_CHANGED, "USER_PIN_TO_BE_CHANGED"),
];

/// A text of fixed length, padded with blanks (some modules: with zeros).
pub(crate) fn text(padded: &[u8]) -> String {
    String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned()
}

pub(crate) fn version(version: sys::CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}
