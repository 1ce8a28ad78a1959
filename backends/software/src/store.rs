//! The layout on the disk, and every change to it.
//!
//! A version of a key is there if and only if its `N.pem` and its `N.pub` are both in the key's folder. Changes are made
//! under an exclusive lock (flock on `.lock`), so processes that share a directory take turns; readers take no lock,
//! because every change becomes visible by one rename:
//!
//! * A new key is written into a staging folder `.new-…`, files and folder are put on the disk (fsync), and then the
//!   whole folder is renamed to the key's name, which replaces nothing. Before that rename there is no key, after it
//!   there is a whole one. The directory is synced before success is reported.
//! * A new version is staged in the same way. Its `.pub` is moved first, and synced: without a `.pem` it is no version
//!   yet. The move of its `.pem` is the moment at which the version is there, whole.
//! * A key is deleted by renaming its folder to `.deleted-…`: gone at once, its files are removed after that. A single
//!   version goes by moving its `.pem` away in the same manner; an empty `N.deleted` written before keeps its number
//!   from being given to another key.
//! * A certificate is staged and renamed over the one before.
//!
//! So a crash leaves, besides whole keys, only `.new-…` and `.deleted-…` (removed at the next start), a `.pub`, `.crt`
//! or `.deleted` file without its key (ignored; its number stays used), but never half a key. A write that fails, on a
//! full disk say, fails while staging: nothing that was there has been touched.

use std::{
    collections::BTreeSet,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use signer_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::{
    certificate, fault, file_name,
    folder::{Folder, Reader},
    public_file::PublicFile,
};

/// Versions count from 1.
pub(crate) type Version = u32;

/// What is known of one version of a key without its passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub(crate) public: PublicFile,
    /// DER.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// The two files of a new version.
pub(crate) struct NewVersion<'a> {
    pub(crate) private: &'a str,
    pub(crate) public: &'a str,
}

/// The directory. It is opened again for each use: it may be moved away and come back.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

const LOCK: &str = ".lock";
const STAGING: &str = ".new-";
const DELETED: &str = ".deleted-";

/// How long a change waits for the changes of other processes. Each takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Opens the directory, makes it if it is missing, and removes what an earlier crash left behind.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|e| Error::bad_request("the folder of the key files has no path").vendor(e))?;
        let builder_failed = |e: std::io::Error| {
            fault::io(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error), "make", &path)
        };
        if !path.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(builder_failed)?;
            if let Some(parent) = path.parent() {
                // The folder's own name is durable before anything in it is.
                std::fs::File::open(parent).and_then(|p| p.sync_all()).map_err(builder_failed)?;
            }
        }
        let store = Self { path };
        store.clean(&store.root()?);
        Ok(store)
    }

    /// The directory as it is now.
    pub(crate) fn root(&self) -> Result<Folder> {
        Folder::at(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes leftovers, unless somebody else is at work: what looks like a leftover may be theirs.
    fn clean(&self, root: &Folder) {
        let Ok(names) = root.names() else { return };
        let is_leftover = |n: &String| n.starts_with(STAGING) || n.starts_with(DELETED);
        if !names.iter().any(is_leftover) {
            return;
        }
        let Ok(lock) = root.lock_file(LOCK) else { return };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        for name in names.iter().filter(|n| is_leftover(n)) {
            match root.remove_folder(name) {
                Ok(()) => {
                    tracing::info!(folder = %self.path.display(), name, "removed a leftover of an interrupted change");
                }
                Err(error) => tracing::warn!(%error, "a leftover of an interrupted change stays"),
            }
        }
    }

    /// Every version of every key. Reads directories only.
    pub(crate) fn versions(&self) -> Result<Vec<(String, Version)>> {
        let root = self.root()?;
        let mut all = Vec::new();
        for name in root.names()? {
            let Some(label) = file_name::decode(&name) else {
                if !name.starts_with('.') {
                    tracing::warn!(path = %root.path_of(&name).display(), "this is no key: its name is not one of ours");
                }
                continue;
            };
            // Gone in between: deleted by somebody, and no longer to be listed.
            let Some(folder) = root.inside(&name)? else { continue };
            all.extend(Files::of(&folder)?.versions().map(|v| (label.clone(), v)));
        }
        Ok(all)
    }

    /// The newest version of a key; `None` if there is no such key. It may be one whose public file is missing.
    pub(crate) fn newest(&self, label: &str) -> Result<Option<Version>> {
        Ok(match key_folder(&self.root()?, label)? {
            Some(folder) => Files::of(&folder)?.private.last().copied(),
            None => None,
        })
    }

    /// What is known of a version; `None` if it is not there.
    pub(crate) fn load(&self, label: &str, version: Version) -> Result<Option<StoredKey>> {
        let Some(folder) = key_folder(&self.root()?, label)? else { return Ok(None) };
        let (pem, public) = (private_name(version), public_name(version));
        if !folder.has(&pem, Reader::Owner)? {
            return Ok(None);
        }
        let Some(text) = folder.read(&public, Reader::Anybody)? else {
            if !folder.has(&pem, Reader::Owner)? {
                return Ok(None); // deleted in between
            }
            let (private, public) = (folder.path_of(&pem), folder.path_of(&public));
            return Err(Error::internal(format!("{} has no public key file beside it", private.display()))
                .next(format!(
                    "run `openssl pkey -in '{}' -pubout -out '{}'`",
                    private.display(),
                    public.display()
                )));
        };
        let damaged = |e: Option<&Error>| {
            let error = Error::internal(format!(
                "{} is damaged: it is no public key",
                folder.path_of(&public).display()
            ));
            let error = e.into_iter().fold(error, |error, e| error.vendor(e.what()));
            error.next(format!("remove it and run `openssl pkey -in {pem} -pubout -out {public}` beside it"))
        };
        let text = std::str::from_utf8(&text).map_err(|_| damaged(None))?;
        let mut public = PublicFile::parse(text).map_err(|e| damaged(Some(&e)))?;
        public.created = public.created.or_else(|| folder.modified(&pem));
        let certificate = match folder.read(&certificate_name(version), Reader::Anybody)? {
            Some(file) => {
                let der = certificate::from_pem(&file);
                if der.is_none() {
                    tracing::warn!(path = %folder.path_of(&certificate_name(version)).display(), "this is no certificate");
                }
                der
            }
            None => None,
        };
        Ok(Some(StoredKey { public, certificate }))
    }

    /// The encrypted private key and its path; `None` if it is not there.
    pub(crate) fn private_file(
        &self,
        label: &str,
        version: Version,
    ) -> Result<Option<(PathBuf, Zeroizing<Vec<u8>>)>> {
        let Some(folder) = key_folder(&self.root()?, label)? else { return Ok(None) };
        let name = private_name(version);
        Ok(folder.read(&name, Reader::Owner)?.map(|file| (folder.path_of(&name), file)))
    }

    /// Some encrypted private key of the folder, if there is one at all.
    pub(crate) fn any_private_file(&self) -> Result<Option<(PathBuf, Zeroizing<Vec<u8>>)>> {
        match self.versions()?.first() {
            Some((label, version)) => self.private_file(label, *version),
            None => Ok(None),
        }
    }
}

/// A change in progress: the lock is held until it is dropped.
pub(crate) struct Change {
    root: Folder,
    _lock: OwnedFd,
}

impl Change {
    /// Waits for the lock. `Busy` if others hold it for too long.
    pub(crate) fn begin(store: &Store) -> Result<Self> {
        let root = store.root()?;
        let lock = root.lock_file(LOCK)?;
        let give_up = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { root, _lock: lock }),
                Err(Errno::WOULDBLOCK) if Instant::now() < give_up => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(Errno::WOULDBLOCK) => {
                    let path = root.path_of(LOCK);
                    return Err(Error::new(
                        ErrorKind::Busy { retry_after: Duration::from_secs(1) },
                        format!("another process is changing keys in {}", store.path.display()),
                    )
                    .next(format!("`fuser '{}'` shows which", path.display())));
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(fault::io(e, "lock", &root.path_of(LOCK))),
            }
        }
    }

    /// Makes version 1 of a new key: `false` if the label is taken. `BadRequest` if it is too long for a file name.
    pub(crate) fn create_key(&self, label: &str, new: &NewVersion<'_>) -> Result<bool> {
        let name = folder_name(label)?;
        if let Some(folder) = self.root.inside(&name)? {
            if !Files::of(&folder)?.private.is_empty() {
                return Ok(false);
            }
            // Nobody's key: a folder made by hand, or what a restored backup left out.
            self.discard(&name)?;
        }
        let stage = Stage::new(&self.root)?;
        stage.folder.create(&private_name(1), new.private.as_bytes(), Reader::Owner)?;
        stage.folder.create(&public_name(1), new.public.as_bytes(), Reader::Anybody)?;
        stage.folder.sync()?;
        if !self.root.move_new(&stage.name, &self.root, &name)? {
            return Ok(false);
        }
        stage.keep();
        self.root.sync().map_err(Error::may_have_happened)?;
        Ok(true)
    }

    /// Makes the next version of a key and returns its number. `None` if there is no such key.
    pub(crate) fn add_version(&self, label: &str, new: &NewVersion<'_>) -> Result<Option<Version>> {
        let Some(folder) = key_folder(&self.root, label)? else { return Ok(None) };
        let files = Files::of(&folder)?;
        if files.private.is_empty() {
            return Ok(None);
        }
        let version = files.next();
        let (pem, public) = (private_name(version), public_name(version));
        let taken = || Error::internal(format!("{} appeared by itself", folder.path_of(&pem).display()));
        let stage = Stage::new(&self.root)?;
        stage.folder.create(&pem, new.private.as_bytes(), Reader::Owner)?;
        stage.folder.create(&public, new.public.as_bytes(), Reader::Anybody)?;
        stage.folder.sync()?;
        if !stage.folder.move_new(&public, &folder, &public)? {
            return Err(taken());
        }
        // The public file is on the disk before the private one makes the version exist.
        let moved = folder.sync().and_then(|()| stage.folder.move_new(&pem, &folder, &pem));
        if !matches!(moved, Ok(true)) {
            let _ = folder.remove(&public);
            return moved.and_then(|_| Err(taken()));
        }
        folder.sync().map_err(Error::may_have_happened)?;
        Ok(Some(version))
    }

    /// Deletes one version, or all: `false` if there is nothing to delete.
    pub(crate) fn delete(&self, label: &str, version: Option<Version>) -> Result<bool> {
        let Some(folder) = key_folder(&self.root, label)? else { return Ok(false) };
        let files = Files::of(&folder)?;
        match version {
            Some(version) if !files.private.contains(&version) => Ok(false),
            Some(version) if files.private.len() > 1 => self.delete_version(&folder, version).map(|()| true),
            _ if files.private.is_empty() => Ok(false),
            _ => self.discard(&folder_name(label)?).map(|()| true),
        }
    }

    fn delete_version(&self, folder: &Folder, version: Version) -> Result<()> {
        let mark = format!("{version}.deleted");
        if !folder.has(&mark, Reader::Anybody)? {
            folder.create(&mark, b"", Reader::Anybody)?;
            folder.sync()?;
        }
        let grave = Stage::with_prefix(&self.root, DELETED)?;
        let pem = private_name(version);
        folder.move_over(&pem, &grave.folder, &pem)?;
        folder.sync().map_err(Error::may_have_happened)?;
        // The version is gone; what follows is housekeeping.
        for name in [public_name(version), certificate_name(version)] {
            if let Err(error) = folder.remove(&name) {
                tracing::warn!(%error, "a file of a deleted key stays");
            }
        }
        Ok(())
    }

    /// Removes a key's folder: gone by one rename, its files after that.
    fn discard(&self, name: &str) -> Result<()> {
        let grave = random_name(DELETED)?;
        if !self.root.move_new(name, &self.root, &grave)? {
            return Err(Error::internal(format!("{} is there already", self.root.path_of(&grave).display())));
        }
        self.root.sync().map_err(Error::may_have_happened)?;
        if let Err(error) = self.root.remove_folder(&grave) {
            tracing::warn!(%error, "files of a deleted key stay until the next start");
        }
        Ok(())
    }

    /// Puts a certificate beside a version, replacing the one before: `false` if the version is not there.
    pub(crate) fn put_certificate(&self, label: &str, version: Version, pem: &str) -> Result<bool> {
        let Some(folder) = key_folder(&self.root, label)? else { return Ok(false) };
        if !folder.has(&private_name(version), Reader::Owner)? {
            return Ok(false);
        }
        let name = certificate_name(version);
        let stage = Stage::new(&self.root)?;
        stage.folder.create(&name, pem.as_bytes(), Reader::Anybody)?;
        stage.folder.move_over(&name, &folder, &name)?;
        folder.sync().map_err(Error::may_have_happened)?;
        Ok(true)
    }

    /// Puts a file of the store's own at the top, unless it is there.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let stage = Stage::new(&self.root)?;
        stage.folder.create(name, bytes, Reader::Owner)?;
        stage.folder.move_new(name, &self.root, name)?;
        self.root.sync()
    }
}

/// A folder for files that are not there yet, or no longer. Dropping it removes it and what is left in it.
struct Stage<'a> {
    root: &'a Folder,
    name: String,
    folder: Folder,
    done: bool,
}

impl<'a> Stage<'a> {
    fn new(root: &'a Folder) -> Result<Self> {
        Self::with_prefix(root, STAGING)
    }

    fn with_prefix(root: &'a Folder, prefix: &str) -> Result<Self> {
        let name = random_name(prefix)?;
        let folder = root.create_folder(&name)?;
        Ok(Self { root, name, folder, done: false })
    }

    /// It has another name now: nothing is left to remove.
    fn keep(mut self) {
        self.done = true;
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.root.remove_folder(&self.name)
        {
            tracing::warn!(%error, "a temporary folder stays until the next start");
        }
    }
}

/// What a key's folder holds, by numbers.
#[derive(Default)]
struct Files {
    private: BTreeSet<Version>,
    public: BTreeSet<Version>,
    /// The highest number in any name.
    highest: Version,
}

impl Files {
    fn of(folder: &Folder) -> Result<Self> {
        let mut files = Self::default();
        for name in folder.names()? {
            let Some((number, kind)) = name.split_once('.') else { continue };
            let Some(version) = parse_version(number) else { continue };
            match kind {
                "pem" => files.private.insert(version),
                "pub" => files.public.insert(version),
                _ => true,
            };
            files.highest = files.highest.max(version);
        }
        Ok(files)
    }

    /// The versions that are whole, oldest first.
    fn versions(&self) -> impl Iterator<Item = Version> {
        self.private.intersection(&self.public).copied()
    }

    fn next(&self) -> Version {
        self.highest.saturating_add(1)
    }
}

/// A version as it is written: decimal, without zeros before it.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
    text.parse().ok().filter(|v: &Version| *v > 0 && v.to_string() == text)
}

fn private_name(version: Version) -> String {
    format!("{version}.pem")
}

fn public_name(version: Version) -> String {
    format!("{version}.pub")
}

fn certificate_name(version: Version) -> String {
    format!("{version}.crt")
}

/// The folder of a key; `None` if there is none.
fn key_folder(root: &Folder, label: &str) -> Result<Option<Folder>> {
    match file_name::encode(label) {
        Some(name) => root.inside(&name),
        None => Ok(None),
    }
}

fn folder_name(label: &str) -> Result<String> {
    file_name::encode(label).ok_or_else(|| {
        Error::bad_request("the name is too long for a file name")
            .next("use a shorter one: 255 letters and digits, or fewer where characters have to be encoded")
    })
}

fn random_name(prefix: &str) -> Result<String> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| Error::internal("there is no randomness for a temporary name"))?;
    Ok(format!("{prefix}{:016x}", u64::from_be_bytes(random)))
}
