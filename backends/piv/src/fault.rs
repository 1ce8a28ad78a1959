//! Why a piece of work with the card did not succeed, as far as it matters for what is tried next.

use signer_core::Error;

/// What [`crate::device::Device`] acts on.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The reader or the service failed: the table in `codes.rs` says what is done about it.
    Reader(pcsc::Error),
    /// This is the answer.
    Answer(Error),
}

impl From<pcsc::Error> for Fault {
    fn from(error: pcsc::Error) -> Self {
        Self::Reader(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}
