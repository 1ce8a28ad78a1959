//! Whether the configured passphrase is the folder's: told before a key is made with another one.

use std::sync::atomic::{AtomicBool, Ordering};

use signer_core::{KeyType, Result};
use zeroize::Zeroizing;

use crate::{
    envelope::Envelope,
    folder::{Folder, Reader},
    private_half::PrivateHalf,
    store::{Change, Store},
};

/// A key of the folder that signs nothing: what opens it opens the folder. It also holds the folder's salt.
const FILE: &str = ".check.pem";

const WORDS: &str =
    "This key signs nothing. It tells signerd whether a passphrase is the right one for this folder.\n";

/// Remembers that the passphrase was found right.
#[derive(Default)]
pub(crate) struct Check {
    passed: AtomicBool,
}

impl Check {
    /// Tries the passphrase, once until it fits: deriving a key is slow. `Ok(false)` if the folder has no check file,
    /// as before the first key.
    pub(crate) fn probe(&self, store: &Store, envelope: &Envelope) -> Result<bool> {
        if self.passed.load(Ordering::Acquire) {
            return Ok(true);
        }
        let root = store.root()?;
        let Some(file) = root.read(FILE, Reader::Owner)? else { return Ok(false) };
        envelope.open(&file, &root.path_of(FILE))?;
        self.passed.store(true, Ordering::Release);
        Ok(true)
    }

    /// Makes sure that the passphrase is the folder's, and makes the check file if there is none: the passphrase must
    /// open a key that is there, or there is none and it becomes the folder's.
    pub(crate) fn ensure(&self, store: &Store, envelope: &Envelope) -> Result<()> {
        if self.probe(store, envelope)? {
            return Ok(());
        }
        // Slow, so before the lock.
        let key = PrivateHalf::generate(KeyType::Ed25519)?.to_pkcs8()?;
        let existing = store.any_private_file()?;
        if let Some((path, file)) = &existing {
            envelope.open(file, path)?;
        }
        let sealed = envelope.seal(&key, existing.as_ref().map(|(_, file)| &file[..]))?;
        let change = Change::begin(store)?;
        change.publish(FILE, format!("{WORDS}{sealed}").as_bytes())?;
        drop(change);
        // Another process may have been first, with another passphrase: what counts is the file that is there now.
        self.probe(store, envelope)?;
        Ok(())
    }

    /// The file whose salt new key files share.
    pub(crate) fn model(root: &Folder) -> Option<Zeroizing<Vec<u8>>> {
        root.read(FILE, Reader::Owner).ok().flatten()
    }
}
