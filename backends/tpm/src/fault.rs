//! How a piece of work in the TPM ends when it does not succeed.

use signer_core::{Error, ErrorKind};

use crate::codes;

/// Why a piece of work was not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The TPM, or what is between us and it, answered with this: the table of codes says what is done about it.
    Tss(tss_esapi::Error),
    /// The answer to whoever asked. Nothing is done about it.
    Answer(Error),
    /// The key needs its PIN, and none was given. So many tries are left.
    NeedsPin(Option<u32>),
}

impl From<tss_esapi::Error> for Fault {
    fn from(error: tss_esapi::Error) -> Self {
        Self::Tss(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Tss(error) => codes::to_error(error),
            Fault::Answer(error) => error,
            Fault::NeedsPin(_) => Self::new(ErrorKind::PinRequired, "the key needs its PIN"),
        }
    }
}
