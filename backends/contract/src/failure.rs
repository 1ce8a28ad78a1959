//! How a check says what did not hold.

use std::fmt;

/// How a check ended.
pub type Outcome = Result<(), Failure>;

/// What did not hold, for the one who writes the backend.
pub struct Failure(String);

impl Failure {
    /// A failure that says `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<signer_core::Error> for Failure {
    fn from(error: signer_core::Error) -> Self {
        Self(format!("{error:?}"))
    }
}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Puts `what` before the failure.
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| Failure(format!("{what}: {}", e.into())))
    }
}

/// Fails the check with a formatted sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($what)+)));
        }
    };
}
pub(crate) use ensure;
