//! One version of a key, and its private half once it was needed.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, PublicKey, Result, SignRequest, Signature, Signer};

use crate::{
    envelope::{Envelope, damaged},
    private_half::PrivateHalf,
    store::{Store, Version},
};

/// What all keys of a backend need.
pub(crate) struct Shared {
    /// The backend's configured name.
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) envelope: Envelope,
}

impl Shared {
    /// There is no such key here.
    pub(crate) fn not_found(&self, key: impl std::fmt::Display) -> Error {
        gone().key(key).device(&self.name)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key")
        .next("`signer keys list` shows the keys that there are")
}

/// One version of a key, shared by all who opened it.
pub(crate) struct Key {
    pub(crate) label: String,
    pub(crate) version: Version,
    pub(crate) public: PublicKey,
    /// Set at the first signature, and never again.
    private: OnceLock<PrivateHalf>,
    /// Held while the private half is read, so that it is decrypted once.
    loading: Mutex<()>,
    /// Deleted through this backend: whoever has it open is told.
    deleted: AtomicBool,
}

impl Key {
    pub(crate) fn new(label: &str, version: Version, public: PublicKey) -> Self {
        Self {
            label: label.to_owned(),
            version,
            public,
            private: OnceLock::new(),
            loading: Mutex::new(()),
            deleted: AtomicBool::new(false),
        }
    }

    /// Keeps a private half that is at hand, so that it need not be decrypted.
    pub(crate) fn keep(&self, private: PrivateHalf) {
        let _ = self.private.set(private);
    }

    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    fn private(&self, shared: &Shared) -> Result<&PrivateHalf> {
        if let Some(private) = self.private.get() {
            return Ok(private);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(private) = self.private.get() {
            return Ok(private);
        }
        let loaded = self.load(shared)?;
        Ok(self.private.get_or_init(|| loaded))
    }

    /// Decrypts the private key and makes sure that it belongs to the public key that everybody was told.
    fn load(&self, shared: &Shared) -> Result<PrivateHalf> {
        let (path, file) = shared.store.private_file(&self.label, self.version)?.ok_or_else(gone)?;
        let pkcs8 = shared.envelope.open(&file, &path)?;
        let key_type = self.public.key_type();
        let private = PrivateHalf::from_pkcs8(key_type, &pkcs8);
        if private.as_ref().ok().and_then(|p| p.public_key().ok()).as_ref() == Some(&self.public) {
            return private;
        }
        // Deleted and made anew by another process since this one was opened, or two files that do not belong together.
        match shared.store.load(&self.label, self.version)? {
            Some(now) if now.public.public_key == self.public => Err(match private {
                Ok(_) => Error::internal(format!(
                    "the private key in {} is not that of the public key file beside it",
                    path.display()
                ))
                .next("restore both files from the same backup"),
                Err(e) => damaged(&path).vendor(e.what()),
            }),
            _ => Err(gone()),
        }
    }
}

/// A key that was opened.
pub(crate) struct FileSigner {
    info: KeyInfo,
    key: Arc<Key>,
    shared: Arc<Shared>,
}

impl FileSigner {
    pub(crate) fn new(info: KeyInfo, key: Arc<Key>, shared: Arc<Shared>) -> Self {
        Self { info, key, shared }
    }

    fn sign_now(&self, request: &SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        if request.until().is_some_and(|until| until <= Instant::now()) {
            return Err(Error::new(ErrorKind::TimedOut, "the deadline has passed"));
        }
        if self.key.deleted.load(Ordering::Acquire) {
            return Err(self.shared.not_found(&self.info.name));
        }
        self.key.private(&self.shared)?.sign(request)
    }

    fn health_now(&self) -> Result<()> {
        let deleted = self.key.deleted.load(Ordering::Acquire);
        let there = !deleted
            && match self.shared.store.load(&self.key.label, self.key.version)? {
                Some(stored) => stored.public.public_key == self.key.public,
                None => false,
            };
        if there { Ok(()) } else { Err(self.shared.not_found(&self.info.name)) }
    }

    fn about_this<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.key(&self.info.name).device(&self.shared.name))
    }
}

impl Signer for FileSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.about_this(self.sign_now(&request)) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.about_this(self.health_now()) })
    }
}
