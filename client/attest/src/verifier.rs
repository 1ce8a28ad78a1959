//! One statement, one public key: what is proven.

use std::time::SystemTime;

use signer_core::{PublicKey, Result};

use crate::{
    Report, hsm, piv, refused,
    roots::Roots,
    statement::{Content, Statement},
    tpm::{self, AttesterName},
};

/// What whoever verifies trusts and expects.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub(crate) roots: Roots,
    pub(crate) at: SystemTime,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) attesters: Vec<AttesterName>,
}

impl Verifier {
    /// Trusts these roots. Every certificate of a chain must be valid at the time `at`.
    pub fn new(roots: Roots, at: SystemTime) -> Self {
        Self { roots, at, nonce: None, attesters: Vec::new() }
    }

    /// The statement must have been made for this nonce. Only TPMs take one.
    #[must_use]
    pub fn nonce(mut self, nonce: Vec<u8>) -> Self {
        self.nonce = Some(nonce);
        self
    }

    /// Trusts a TPM's attestation key of this name: that it is one was found out before, with TPM2_ActivateCredential.
    #[must_use]
    pub fn attester(mut self, name: AttesterName) -> Self {
        self.attesters.push(name);
        self
    }

    /// What the statement proves of `key`. `Denied` says why it proves nothing, `BadRequest` that it cannot be read.
    pub fn verify(&self, statement: &Statement, key: &PublicKey) -> Result<Report> {
        if self.nonce.is_some() && !matches!(statement.content, Content::Tpm(_)) {
            return Err(refused(format_args!(
                "a nonce was asked for, and {} takes none into its statement",
                statement.kind().article()
            ))
            .next("leave out the nonce: only a TPM's statement can be made for one"));
        }
        match &statement.content {
            Content::Piv(piv) => piv::verify(self, piv, key),
            Content::Tpm(certify) => tpm::verify(self, certify, key),
            Content::Hsm(hsm) => hsm::verify(self, hsm, key),
        }
    }
}

/// A time in UTC as people write it: `2025-06-30T12:00:00Z`, or `2025-06-30` for the beginning of that day.
pub fn time(text: &str) -> Option<SystemTime> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    whole.parse::<der::DateTime>().ok().map(|t| t.to_system_time())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("2000-02-29"), Some(UNIX_EPOCH + Duration::from_hours(264_384)));
        assert_eq!(time("2024-02-29T23:59:59Z"), Some(UNIX_EPOCH + Duration::from_secs(1_709_251_199)));
        for bad in
            ["", "2025", "2025-02-30", "2025-06-30T12:00:00", "x", "1960-01-01", "2025-06-30T12:00:00+01:00"]
        {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }
}
