//! Why a piece of work in the token did not succeed, as far as it matters for what is tried next.

use signer_core::Error;

use crate::raw::Failure;

/// What [`crate::token::Token::with`] acts on.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A function failed: the table in `codes.rs` says what is done about it.
    Module(Failure),
    /// What must be there is not, although the module answers: perhaps it has lost its token. If it is still missing
    /// after the module was initialised again, this is the answer.
    Absent(Error),
    /// This is the answer.
    Answer(Error),
    /// This is the answer, and the session must not be used again: an operation in it was left unfinished.
    Abandoned(Error),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Module(failure)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

/// Makes a failure the answer: for what must not be tried twice.
pub(crate) fn once(failure: Failure) -> Fault {
    Fault::Abandoned(failure.into())
}
