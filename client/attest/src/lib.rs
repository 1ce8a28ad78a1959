//! Verifies what a device states on a key: whether the key was made inside, whether it can leave, and what the device
//! demands before it signs.
//!
//! Three kinds of statement are known: the attestation certificate of a YubiKey's PIV slot, TPM2_Certify of a TPM 2.0, and
//! the attestation of a Google Cloud HSM. [`Statement::read`] takes the file that `signer keys attest` writes, or the files
//! that the makers' own tools write; [`Verifier::verify`] holds it against one public key and the makers' roots. What comes
//! out is a [`Report`] in one normal form, with one sentence that says what is proven and one that says what is not.
//!
//! There is no I/O here, and no clock: whoever calls says when it is.

mod bytes;
mod certificate;
mod chain;
pub mod fuzz;
mod hsm;
mod piv;
mod report;
mod requirement;
mod roots;
mod statement;
mod tpm;
mod verifier;

pub use certificate::Certificate;
pub use report::{Device, DeviceKind, KeyFacts, Origin, Report, Root};
pub use requirement::Requirement;
pub use roots::Roots;
pub use statement::{MEDIA_TYPE, Statement, to_json};
pub use tpm::AttesterName;
pub use verifier::{Verifier, time};

use signer_core::{Error, ErrorKind};

/// Something that keeps the statement from proving anything.
fn refused(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Denied, format!("NOT proven: {what}"))
}
