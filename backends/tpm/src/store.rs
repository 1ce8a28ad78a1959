//! The state folder: key files, certificates and approvals, one set of files a key.
//!
//! A key is there when its `.pem` file is, and that file appears and goes at once: it is written under another name, made
//! durable, and renamed without replacing. So a crash leaves no half key, and of two that make one name one wins.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind as Io, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use signer_core::{Error, ErrorKind, Result};

use crate::file_name;

/// No file of ours is larger; a larger one is nobody's key.
const MAX_FILE: u64 = 64 * 1024;
const KEY: &str = ".pem";
const CERTIFICATE: &str = ".crt";
const APPROVALS: &str = ".approvals";
const UNFINISHED: &str = ".unfinished-";

/// The state folder.
pub(crate) struct Store {
    folder: PathBuf,
}

/// Which file it is, whatever its name: another file in its place is another one.
pub(crate) type FileId = (u64, u64, i64);

impl Store {
    /// Makes the folder, readable by its owner alone, if it is not there.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| failed("the state folder cannot be made", &folder, &e))?;
        let store = Self { folder };
        let _alone = store.lock()?;
        store.sweep();
        Ok(store)
    }

    /// Makes sure that this is the only change under way, over all processes. The lock ends with the file.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.folder.join(".lock");
        let open = || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|e: std::io::Error| failed("the state folder cannot be locked", &path, &e))
    }

    /// The stems of all key files, in no order.
    pub(crate) fn stems(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)
            .map_err(|e| failed("the state folder cannot be read", &self.folder, &e))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .filter_map(|name| name.strip_suffix(KEY).map(ToOwned::to_owned))
            .collect())
    }

    /// A key file; `None` if there is none.
    pub(crate) fn key(&self, stem: &str) -> Result<Option<(String, FileId)>> {
        let path = self.path(stem, KEY);
        let Some(mut file) = open_file(&path)? else { return Ok(None) };
        let cannot = |e| failed("the key file cannot be read", &path, &e);
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(Error::bad_request(format!("{} is no key file", path.display())));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(cannot)?;
        Ok(Some((text, id(&metadata))))
    }

    /// Which file a key's file is now.
    pub(crate) fn key_id(&self, stem: &str) -> Option<FileId> {
        fs::metadata(self.path(stem, KEY)).ok().as_ref().map(id)
    }

    /// Where a key's file is, for messages.
    pub(crate) fn key_path(&self, stem: &str) -> PathBuf {
        self.path(stem, KEY)
    }

    /// Stores a new key. `AlreadyExists` if the name is taken.
    pub(crate) fn add_key(&self, stem: &str, text: &str) -> Result<()> {
        self.remove_belongings(stem)?; // of a key whose deletion was cut short
        let path = self.path(stem, KEY);
        let written = self.write_unfinished(text.as_bytes())?;
        let renamed = rustix::fs::renameat_with(
            rustix::fs::CWD,
            &written,
            rustix::fs::CWD,
            &path,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        if let Err(e) = renamed {
            let _ = fs::remove_file(&written);
            return Err(match e {
                rustix::io::Errno::EXIST => taken(),
                other => failed("the key file cannot be written", &path, &other.into()),
            });
        }
        self.make_durable()
    }

    /// Removes a key and all that belongs to it. False if there was none.
    pub(crate) fn remove_key(&self, stem: &str) -> Result<bool> {
        let path = self.path(stem, KEY);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == Io::NotFound => return Ok(false),
            Err(e) => return Err(failed("the key file cannot be removed", &path, &e)),
        }
        self.make_durable().map_err(Error::may_have_happened)?;
        self.remove_belongings(stem).map_err(Error::may_have_happened)?;
        Ok(true)
    }

    /// The certificate beside a key, as it was stored.
    pub(crate) fn certificate(&self, stem: &str) -> Option<String> {
        let mut text = String::new();
        let file = open_file(&self.path(stem, CERTIFICATE)).ok()??;
        file.take(MAX_FILE).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Stores a certificate beside a key in place of the one before.
    pub(crate) fn put_certificate(&self, stem: &str, pem: &str) -> Result<()> {
        let path = self.path(stem, CERTIFICATE);
        let written = self.write_unfinished(pem.as_bytes())?;
        fs::rename(&written, &path).map_err(|e| failed("the certificate cannot be written", &path, &e))?;
        self.make_durable()
    }

    /// Where the approvals of a key's PCR values are looked for.
    pub(crate) fn approvals(&self, stem: &str) -> PathBuf {
        self.path(stem, APPROVALS)
    }

    fn path(&self, stem: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{stem}{ending}"))
    }

    fn remove_belongings(&self, stem: &str) -> Result<()> {
        for (path, remove) in [
            (self.path(stem, CERTIFICATE), fs::remove_file as fn(PathBuf) -> std::io::Result<()>),
            (self.approvals(stem), fs::remove_dir_all),
        ] {
            match remove(path.clone()) {
                Ok(()) => {}
                Err(e) if e.kind() == Io::NotFound => {}
                Err(e) => return Err(failed("what is left of a deleted key cannot be removed", &path, &e)),
            }
        }
        Ok(())
    }

    fn write_unfinished(&self, bytes: &[u8]) -> Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let write = || {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|e: std::io::Error| {
            let _ = fs::remove_file(&path);
            failed("a file cannot be written", &path, &e)
        })?;
        Ok(path)
    }

    fn make_durable(&self) -> Result<()> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|e| {
            failed("the state folder cannot be made durable", &self.folder, &e).may_have_happened()
        })
    }

    /// Removes what a crash left unfinished. Whoever writes holds the lock, so nobody writes now.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The name of a key is taken.
pub(crate) fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a key of this name already")
        .next("use another name, or delete that key first")
}

/// The stem of the files of a key with that label.
pub(crate) fn stem(label: &str) -> String {
    file_name::encode(label)
}

fn open_file(path: &Path) -> Result<Option<File>> {
    // Not to be held up by a pipe that somebody put there.
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    match options {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == Io::NotFound => Ok(None),
        Err(e) => Err(failed("a file of the state folder cannot be read", path, &e)),
    }
}

fn id(metadata: &fs::Metadata) -> FileId {
    (metadata.ino(), metadata.size(), metadata.mtime_nsec() ^ metadata.mtime())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let next = match error.kind() {
        Io::PermissionDenied => "give the user of signerd access to it",
        Io::StorageFull => "make room on the disk",
        _ => "look at the file system that it is on",
    };
    Error::internal(format!("{what}: {}", path.display())).vendor(error).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("a/b")).unwrap();
        store.add_key("k", "text").unwrap();
        assert_eq!(store.add_key("k", "other").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(store.key("k").unwrap().unwrap().0, "text");
        store.put_certificate("k", "one").unwrap();
        store.put_certificate("k", "two").unwrap();
        assert_eq!(store.certificate("k").as_deref(), Some("two"));
        fs::write(folder.path().join("a/b/.unfinished-1-1"), "half").unwrap();
        let store = Store::open(folder.path().join("a/b")).unwrap();
        assert_eq!(store.stems().unwrap(), ["k"]);
        assert!(store.remove_key("k").unwrap() && !store.remove_key("k").unwrap());
        assert_eq!(store.certificate("k"), None);
        let left: Vec<_> =
            fs::read_dir(folder.path().join("a/b")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".lock"]);
        let mode = fs::metadata(folder.path().join("a/b")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
