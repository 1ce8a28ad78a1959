//! What a log's folder says of itself: `.state/log.json`, written once by `init`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use signer_core::{Error, ErrorKind, PublicKey, Result};
use signer_log_engine::{Format, NoteKey, NoteKind};

/// Is there when the log takes on nothing more.
const FROZEN: &str = ".state/frozen";

/// What a log is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Signatures: Rekor v2's API.
    Signature,
    /// Certificates: RFC 6962 and `static-ct-api`.
    Certificate,
}

impl Kind {
    /// How its entries are written.
    pub fn format(self) -> Format {
        match self {
            Self::Signature => Format::Entries,
            Self::Certificate => Format::Certificates,
        }
    }
}

/// What does not change while a log lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What it is for.
    pub kind: Kind,
    /// Its name, the first line of each checkpoint.
    pub origin: String,
    /// Its key, as the daemon knows it.
    pub key: String,
    /// The public half, PEM.
    pub public_key: String,
}

impl Description {
    /// Reads a folder's description.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let text = std::fs::read(&path).map_err(|e| {
            Error::new(ErrorKind::NotFound, format!("there is no log in {}", folder.display()))
                .vendor(e)
                .next("`signer-log init` makes one")
        })?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::bad_request(format!("{} cannot be read", path.display())).vendor(e))
    }

    /// Reads a description as JSON.
    pub(crate) fn from_json(text: &[u8], place: &dyn std::fmt::Display) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| {
            Error::bad_request(format!("the description of the log in {place} cannot be read")).vendor(e)
        })
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal("the description of the log cannot be written").vendor(e))
    }

    /// Writes it into a folder that has none, durably.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let cannot = |e: &dyn std::fmt::Display| {
            Error::internal(format!("{} cannot be written", path(folder).display())).vendor(e)
        };
        let text = self.to_json()?;
        let store = || {
            let mut file = std::fs::File::create_new(path(folder))?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            std::fs::File::open(folder.join(".state"))?.sync_all()
        };
        store().map_err(|e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a log in {} already", folder.display()),
            )
            .next("choose another folder, or serve this one"),
            _ => cannot(&e),
        })
    }

    /// Whether the log was closed for ever. A signature log's last checkpoint says so too; a tree head has no room for it.
    pub(crate) fn is_frozen_in(folder: &Path) -> bool {
        folder.join(FROZEN).exists()
    }

    /// Closes it for ever, durably.
    pub(crate) fn freeze(folder: &Path) -> Result<()> {
        let store = || {
            std::fs::File::create(folder.join(FROZEN))?.sync_all()?;
            std::fs::File::open(folder.join(".state"))?.sync_all()
        };
        store().map_err(|e: std::io::Error| Error::internal("the log cannot be marked as frozen").vendor(e))
    }

    /// The key that verifies its checkpoints.
    pub fn note_key(&self) -> Result<NoteKey> {
        note_key(self.kind, &self.origin, PublicKey::from_pem(&self.public_key)?)
    }
}

/// The key that verifies the checkpoints of a log of this kind.
pub(crate) fn note_key(kind: Kind, origin: &str, key: PublicKey) -> Result<NoteKey> {
    match kind {
        Kind::Signature => NoteKey::of_log(origin, key),
        Kind::Certificate => NoteKey::new(origin, NoteKind::TreeHead, key),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(".state/log.json")
}
