//! What a device says of a key, in the device's own words and under its maker's signature.

use crate::{Error, Result};

/// Which statement a piece of evidence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvidenceFormat {
    /// A PIV card's attestation certificate of the key, then the card's own attestation certificate (slot f9). DER each.
    PivAttestation,
    /// `TPMS_ATTEST` of TPM2_Certify, `TPMT_SIGNATURE` over it, `TPMT_PUBLIC` of the certified key, `TPMT_PUBLIC` of the
    /// attestation key; then, where there is one, the endorsement key's certificate and its chain, DER each.
    TpmCertify,
    /// The attestation statement of a Google Cloud HSM key as the service gives it, then its certificate chains in PEM.
    GoogleHsm,
}

impl EvidenceFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::PivAttestation, Self::TpmCertify, Self::GoogleHsm];

    /// The name that travels.
    pub fn name(self) -> &'static str {
        match self {
            Self::PivAttestation => "piv-attestation",
            Self::TpmCertify => "tpm-certify",
            Self::GoogleHsm => "google-hsm",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| Error::bad_request(format!("no kind of attestation is called {name:?}")))
    }
}

/// A device's statement on one key, not yet judged: whoever relies on it verifies it against the maker's roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What the parts are.
    pub format: EvidenceFormat,
    /// The parts, in the order that the format fixes.
    pub parts: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named() {
        for format in EvidenceFormat::ALL {
            assert_eq!(EvidenceFormat::from_name(format.name()).unwrap(), format);
        }
        assert!(EvidenceFormat::from_name("x").is_err());
    }
}
