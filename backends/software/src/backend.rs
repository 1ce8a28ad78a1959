//! The backend: the traits over the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use signer_core::{
    Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, Generate, GenerateRequest, Import,
    ImportRequest, KeyInfo, KeyName, KeyOrigin, KeyPage, KeyPolicy, KeySelector, KeyType, ListRequest,
    Result, Rotate, Signer, StoreCertificate,
};

use crate::{
    SoftwareConfig, certificate,
    check::Check,
    envelope::Envelope,
    private_half::PrivateHalf,
    public_file::PublicFile,
    signer::{FileSigner, Key, Shared},
    store::{Change, NewVersion, Store, StoredKey, Version, parse_version},
};

/// How often a read starts again when keys are deleted under its hands.
const READ_TRIES: usize = 4;

/// Keys in encrypted files of one folder.
///
/// Every method does its work in the first poll. Reading and signing take microseconds; the first signature after a
/// start, the first change and every RSA key generation take from a tenth of a second to several seconds.
pub struct SoftwareBackend {
    shared: Arc<Shared>,
    kdf: crate::Kdf,
    check: Check,
    /// Keys that were opened or made, so that all who open one share its decrypted half.
    keys: Mutex<HashMap<(String, Version), Arc<Key>>>,
    /// Held for reading from a look at the files to the entry in `keys`, and for writing around each change with its
    /// entry, so that `keys` follows the files: nobody enters a key that was deleted or replaced in between.
    turn: RwLock<()>,
}

impl SoftwareBackend {
    /// Opens the folder, makes it if it is missing, and removes what an interrupted change left behind. Nothing is
    /// decrypted: a wrong passphrase shows at [`Backend::health`], the first signature or the first change.
    pub fn open(config: SoftwareConfig) -> Result<Self> {
        let store = Store::open(&config.directory).map_err(|e| e.device(&config.name))?;
        let envelope = Envelope::new(config.passphrase, config.kdf);
        Ok(Self {
            shared: Arc::new(Shared { name: config.name, store, envelope }),
            kdf: config.kdf,
            check: Check::default(),
            keys: Mutex::default(),
            turn: RwLock::default(),
        })
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<(String, Version), Arc<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared key for this version: the one that is known, if it is still the same key.
    fn key(&self, label: &str, version: Version, stored: &StoredKey) -> Arc<Key> {
        let mut keys = self.keys();
        let public_key = &stored.public.public_key;
        let fresh = || Arc::new(Key::new(label, version, public_key.clone()));
        let key = keys.entry((label.to_owned(), version)).or_insert_with(fresh);
        if key.public != *public_key {
            key.mark_deleted();
            *key = fresh();
        }
        key.clone()
    }

    fn forget(&self, label: &str, version: Option<Version>) {
        self.keys().retain(|(l, v), key| {
            let goes = l == label && version.is_none_or(|version| version == *v);
            if goes {
                key.mark_deleted();
            }
            !goes
        });
    }

    fn info(label: &str, version: Version, stored: StoredKey) -> Result<KeyInfo> {
        Ok(KeyInfo {
            name: KeyName::label(label)?.with_version(version.to_string())?,
            algorithms: stored.public.public_key.key_type().algorithms().to_vec(),
            public_key: stored.public.public_key,
            origin: stored.public.origin,
            extractable: EXTRACTABLE,
            created: stored.public.created,
            id: None,
            address: None,
            certificate: stored.certificate,
            policy: KeyPolicy::default(),
        })
    }

    /// The version that a selector means, and what is known of it.
    fn find(&self, selector: &KeySelector) -> Result<(String, Version, StoredKey)> {
        let not_found = || self.shared.not_found(selector);
        let KeySelector::Name(name) = selector else { return Err(not_found()) };
        let label = name.as_label().ok_or_else(not_found)?;
        for _ in 0..READ_TRIES {
            let version = match name.version() {
                Some(version) => parse_version(version).ok_or_else(not_found)?,
                None => self.store().newest(label)?.ok_or_else(not_found)?,
            };
            if let Some(stored) = self.store().load(label, version)? {
                return Ok((label.to_owned(), version, stored));
            }
            if name.version().is_some() {
                break;
            }
        }
        Err(not_found())
    }

    fn list_now(&self, request: &ListRequest) -> Result<KeyPage> {
        // Names first, and files only for the page that is wanted: a folder may hold thousands of keys.
        let mut names = Vec::new();
        for (label, version) in self.store().versions()? {
            let name = KeyName::label(label.as_str())?.with_version(version.to_string())?.to_string();
            if request.page_token.as_ref().is_none_or(|after| name > *after) {
                names.push((name, label, version));
            }
        }
        names.sort_unstable();
        let size = if request.page_size == 0 { 1000 } else { request.page_size };
        let mut page = KeyPage::default();
        let mut last = None;
        for (name, label, version) in names {
            if page.keys.len() == size {
                page.next = last;
                break;
            }
            match self.store().load(&label, version) {
                Ok(Some(stored)) => page.keys.push(Self::info(&label, version, stored)?),
                Ok(None) => {} // deleted in between
                // A bad mode is for everybody to see; one damaged file must not hide the other keys.
                Err(error) if error.kind() == ErrorKind::Denied => return Err(error),
                Err(error) => {
                    tracing::warn!(backend = self.shared.name, %error, "a key is left out of the list");
                }
            }
            last = Some(name);
        }
        Ok(page)
    }

    fn open_now(&self, selector: &KeySelector) -> Result<Arc<dyn Signer>> {
        let turn = self.reading();
        let (label, version, stored) = self.find(selector)?;
        let key = self.key(&label, version, &stored);
        drop(turn);
        let info = Self::info(&label, version, stored)?;
        Ok(Arc::new(FileSigner::new(info, key, self.shared.clone())))
    }

    fn health_now(&self) -> Result<()> {
        self.store().root()?.writable()?;
        self.check.probe(self.store(), &self.shared.envelope)?;
        Ok(())
    }

    /// Writes version 1 of a new key.
    fn create(
        &self,
        name: &KeyName,
        id: Option<&[u8]>,
        origin: KeyOrigin,
        make: impl FnOnce() -> Result<PrivateHalf>,
    ) -> Result<KeyInfo> {
        let label = label_of_new(name, id)?;
        let taken = || {
            Error::new(ErrorKind::AlreadyExists, "there is a key of that name already")
                .next("choose another name, or make a new version of it with `signer keys rotate`")
        };
        // Before the slow part; whether it is so is decided under the lock.
        if self.store().newest(label)?.is_some() {
            return Err(taken());
        }
        let (private, new) = self.seal(make, origin)?;
        let change = Change::begin(self.store())?;
        let files = NewVersion { private: &new.0, public: &new.1.to_text() };
        let _turn = self.changing();
        if !change.create_key(label, &files)? {
            return Err(taken());
        }
        self.made(label, 1, private, new.1)
    }

    fn rotate_now(&self, name: &KeyName) -> Result<KeyInfo> {
        if name.version().is_some() {
            return Err(Error::bad_request("a new version is made of a key, not of a version of it")
                .next("leave out the @ and what follows"));
        }
        let (label, _, newest) = self.find(&KeySelector::Name(name.clone()))?;
        let key_type = newest.public.public_key.key_type();
        let (private, new) = self.seal(|| PrivateHalf::generate(key_type), KeyOrigin::Generated)?;
        let change = Change::begin(self.store())?;
        let files = NewVersion { private: &new.0, public: &new.1.to_text() };
        let _turn = self.changing();
        let version = change.add_version(&label, &files)?.ok_or_else(|| self.shared.not_found(name))?;
        self.made(&label, version, private, new.1)
    }

    /// Makes a private key and encrypts it, once the passphrase is known to be the folder's.
    fn seal(
        &self,
        make: impl FnOnce() -> Result<PrivateHalf>,
        origin: KeyOrigin,
    ) -> Result<(PrivateHalf, (String, PublicFile))> {
        self.check.ensure(self.store(), &self.shared.envelope)?;
        let private = make()?;
        let public = PublicFile::new(private.public_key()?, origin);
        let model = Check::model(&self.store().root()?);
        let sealed = self.shared.envelope.seal(&private.to_pkcs8()?, model.as_ref().map(|m| &m[..]))?;
        Ok((private, (sealed, public)))
    }

    /// What is known of a version that was just made. Its first signature needs no decryption.
    fn made(
        &self,
        label: &str,
        version: Version,
        private: PrivateHalf,
        public: PublicFile,
    ) -> Result<KeyInfo> {
        let stored = StoredKey { public, certificate: None };
        self.key(label, version, &stored).keep(private);
        Self::info(label, version, stored)
    }

    fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let not_found = || self.shared.not_found(selector);
        let KeySelector::Name(name) = selector else { return Err(not_found()) };
        let label = name.as_label().ok_or_else(not_found)?;
        let version = match name.version() {
            Some(version) => Some(parse_version(version).ok_or_else(not_found)?),
            None => None,
        };
        let change = Change::begin(self.store())?;
        let _turn = self.changing();
        let deleted = change.delete(label, version);
        // After a failure that may have deleted it, too.
        if deleted.as_ref().map_or_else(Error::is_uncertain, |deleted| *deleted) {
            self.forget(label, version);
        }
        if deleted? { Ok(()) } else { Err(not_found()) }
    }

    fn store_certificate_now(&self, selector: &KeySelector, der: &[u8]) -> Result<()> {
        let (label, version, stored) = self.find(selector)?;
        let pem = certificate::to_pem(der, &stored.public.public_key)?;
        let change = Change::begin(self.store())?;
        // The key that was found may be gone, or another one, by now.
        let now = self.store().load(&label, version)?;
        let same = now.is_some_and(|now| now.public.public_key == stored.public.public_key);
        if same && change.put_certificate(&label, version, &pem)? {
            Ok(())
        } else {
            Err(self.shared.not_found(selector))
        }
    }

    fn about<T>(&self, key: impl std::fmt::Display, result: Result<T>) -> Result<T> {
        self.here(result.map_err(|e| e.key(key)))
    }

    fn here<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.device(&self.shared.name))
    }
}

/// The backend gives no private key away; what becomes of its files is the business of whoever keeps them.
const EXTRACTABLE: Option<bool> = None;

/// The label that a new key gets.
fn label_of_new<'a>(name: &'a KeyName, id: Option<&[u8]>) -> Result<&'a str> {
    if id.is_some() {
        return Err(Error::bad_request("keys in files have no identifier besides their name")
            .next("leave the identifier out"));
    }
    if name.version().is_some() {
        return Err(Error::bad_request("the version of a new key is not chosen: it is 1")
            .next("leave out the @ and what follows"));
    }
    name.as_label().ok_or_else(|| {
        Error::bad_request("keys in files are named by a label, not by an identifier")
            .next("choose a name that does not begin with id:")
    })
}

impl Backend for SoftwareBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move {
            Ok(BackendInfo {
                kind: "software".into(),
                device: self.store().path().display().to_string(),
                model: format!("encrypted PKCS#8 files ({}, AES-256)", self.kdf.name()),
                firmware: env!("CARGO_PKG_VERSION").into(),
                serial: String::new(),
                generates: KeyType::ALL.to_vec(),
                imports: KeyType::ALL.to_vec(),
                max_message: None,
            })
        })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.here(self.list_now(&request)) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move { self.about(key, self.open_now(key)) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.here(self.health_now()) })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        Some(self)
    }

    fn import(&self) -> Option<&dyn Import> {
        Some(self)
    }

    fn delete(&self) -> Option<&dyn Delete> {
        Some(self)
    }

    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }

    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        Some(self)
    }
}

impl Generate for SoftwareBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let GenerateRequest { name, key_type, id, policy } = request;
            policy.none(&self.shared.name)?;
            let make = || PrivateHalf::generate(key_type);
            self.about(&name, self.create(&name, id.as_deref(), KeyOrigin::Generated, make))
        })
    }
}

impl Import for SoftwareBackend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let ImportRequest { name, key, id, policy } = request;
            policy.none(&self.shared.name)?;
            let make = || PrivateHalf::from_pkcs8(key.key_type(), key.pkcs8_der());
            self.about(&name, self.create(&name, id.as_deref(), KeyOrigin::Imported, make))
        })
    }
}

impl Delete for SoftwareBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.delete_now(key)) })
    }
}

impl Rotate for SoftwareBackend {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move { self.about(name, self.rotate_now(name)) })
    }
}

impl StoreCertificate for SoftwareBackend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.about(key, self.store_certificate_now(key, certificate)) })
    }
}
