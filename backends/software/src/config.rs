//! What is configured.

use std::path::PathBuf;

use signer_core::Pin;

/// Where the key files are, and what they are encrypted with.
#[derive(Clone, Debug)]
pub struct SoftwareConfig {
    /// The folder of the key files. It is made, with mode 0700, if it is not there.
    pub directory: PathBuf,
    /// The one passphrase of all key files in the folder.
    pub passphrase: Pin,
    /// How new key files derive their encryption key from the passphrase. Files that are there are read either way.
    pub kdf: Kdf,
    /// The configured name of the backend, for errors.
    pub name: String,
}

/// How an encryption key is derived from the passphrase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kdf {
    /// `scrypt` (RFC 7914) with N = 2^14, r = 8, p = 5: 16 MiB of memory for each guess. OpenSSL refuses key files
    /// that ask for more than 32 MiB, so the work is in p instead of N.
    #[default]
    Scrypt,
    /// `pbkdf2-sha256` (RFC 8018) with 600 000 rounds: for readers that know no scrypt, and FIPS.
    Pbkdf2Sha256,
}

impl Kdf {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scrypt => "scrypt",
            Self::Pbkdf2Sha256 => "pbkdf2-sha256",
        }
    }
}
