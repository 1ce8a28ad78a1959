//! What is configured.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use signer_core::{Error, Result};
use signer_remote::Patience;

use crate::name::Ring;

/// Where the keys are and how the service is reached. Nothing in it is secret: credentials are a file, or what Google's
/// clients find by themselves (Application Default Credentials).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct GoogleConfig {
    /// The project of the key ring.
    pub project: Option<String>,
    /// The location of the key ring: `global`, `europe-west1`.
    pub location: Option<String>,
    /// The key ring: its id, with `project` and `location`; or its whole name, `projects/P/locations/L/keyRings/R`.
    /// Without one, keys are opened by their address alone.
    pub key_ring: Option<String>,
    /// Another endpoint than Google's own: `https://cloudkms.europe-west3.rep.googleapis.com`.
    pub endpoint: Option<String>,
    /// A file of credentials: a service account's key, workload identity federation, or what `gcloud auth
    /// application-default login` writes. Without it, `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file, or the
    /// machine's service account.
    pub credentials: Option<PathBuf>,
    /// Where new keys are.
    #[serde(default)]
    pub protection_level: ProtectionLevel,
    /// How new RSA keys pad: at Google that is fixed when a key is made.
    #[serde(default)]
    pub rsa_padding: RsaPadding,
    /// For how many seconds public keys are remembered; 3600 by default.
    pub public_key_lifetime: Option<u64>,
    /// Seconds that one attempt may take; 3 by default.
    pub attempt_timeout: Option<u64>,
    /// Seconds that a request without a deadline may take; 20 by default.
    pub timeout: Option<u64>,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionLevel {
    /// In Google's software.
    #[default]
    Software,
    /// In a hardware security module.
    Hsm,
}

/// How RSA signatures are padded (RFC 8017).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RsaPadding {
    /// RSASSA-PKCS1-v1_5.
    #[default]
    Pkcs1,
    /// RSASSA-PSS.
    Pss,
}

impl GoogleConfig {
    /// The same with relative paths taken from a folder: that of the configuration file.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        self.credentials = self.credentials.map(|path| folder.join(path));
        self
    }

    /// The configured key ring.
    pub(crate) fn ring(&self) -> Result<Option<Ring>> {
        match (&self.project, &self.location, &self.key_ring) {
            (None, None, Some(ring)) => Ring::parse(ring).map(Some),
            (Some(project), Some(location), Some(ring)) => Ring::new(project, location, ring).map(Some),
            (None, None, None) => Ok(None),
            _ => Err(Error::bad_request(
                "project, location and key_ring name a key ring together: one is missing",
            )
            .next("give all three, or key_ring alone as projects/P/locations/L/keyRings/R")),
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        let seconds = |s: Option<u64>, default| Duration::from_secs(s.unwrap_or(default).clamp(1, 600));
        Patience { attempt: seconds(self.attempt_timeout, 3), total: seconds(self.timeout, 20) }
    }

    pub(crate) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.public_key_lifetime.unwrap_or(3600))
    }
}
