//! The engines: real devices in software, each on temporary state of its own.

use std::{path::PathBuf, sync::Arc};

use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Result};

mod aws;
mod azure;
mod every_kind;
mod google;
mod kryoptic;
mod piv;
mod pkcs11;
mod softhsm;
mod software;
mod swtpm;
mod vault;

pub(crate) use aws::profile as aws_profile;
pub use aws::{AwsFace, MiniStack};
pub use azure::Azure;
pub(crate) use azure::profile as azure_profile;
pub use every_kind::EveryKind;
pub use google::Google;
pub(crate) use google::profile as google_profile;
pub use kryoptic::Kryoptic;
pub use piv::{DEFAULT_MANAGEMENT_KEY, DEFAULT_PIN, Piv};
pub(crate) use piv::{profile as piv_profile, slots as piv_slots};
pub(crate) use pkcs11::profile as pkcs11_profile;
pub use softhsm::SoftHsm;
pub use software::{Software, toml as software_toml};
pub use swtpm::SwTpm;
pub(crate) use swtpm::profile as tpm_profile;
pub(crate) use vault::profile as vault_profile;
pub use vault::{Vault, secret, secret_file, token};

/// A real place for keys that a backend talks to.
pub trait Engine: Send + Sync {
    /// Its `[[backend]]` table in the daemon's configuration.
    fn toml(&self, name: &str, pin: PinSetup) -> String;

    /// The backend without a daemon; devices that need one are behind a driver process.
    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>>;

    /// What is expected of a backend on it, without a daemon.
    fn profile(&self) -> Profile;

    /// The right PIN or passphrase.
    fn pin(&self) -> String;

    /// A file with the PIN, readable by the owner alone. Missing PINs have none.
    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf>;

    /// How many logins it has seen, where that is counted.
    fn logins(&self) -> Option<u64> {
        None
    }
}

/// A folder that goes with its owner.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// What cloud services have in common: no PIN, no identifiers of the caller's choice, no import, no certificates.
/// A key there costs several requests, so that fewer are made, and names are not free again.
fn cloud_profile() -> Profile {
    let mut profile =
        Profile::full().without(Ability::Import).without(Ability::StoreCertificate).without(Ability::Unlock);
    profile.imports.clear();
    profile.identifiers = false;
    profile.pins = false;
    profile.frees_names = false;
    profile.many_keys = 300;
    profile.signatures_a_task = 50;
    profile
}

/// Writes a file that only its owner can read.
pub fn private_file(path: &std::path::Path, content: &str) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .unwrap_or_else(|e| panic!("{} cannot be written: {e}", path.display()));
}

/// The PIN files that an engine keeps in its folder.
struct PinFiles {
    right: PathBuf,
    wrong: PathBuf,
}

impl PinFiles {
    fn new(folder: &std::path::Path, pin: &str) -> Self {
        let files = Self { right: folder.join("pin"), wrong: folder.join("wrong-pin") };
        private_file(&files.right, pin);
        private_file(&files.wrong, &format!("{pin}1"));
        files
    }

    fn of(&self, pin: PinSetup) -> Option<PathBuf> {
        match pin {
            PinSetup::Right => Some(self.right.clone()),
            PinSetup::Wrong => Some(self.wrong.clone()),
            PinSetup::Missing => None,
        }
    }
}
