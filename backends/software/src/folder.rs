//! One open folder: every access goes through its descriptor, follows no link inside it, and looks at permissions.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use signer_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::fault;

/// No file of this store is longer: certificates with many names are a few kilobytes.
const MAX_FILE: usize = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Its owner: mode 0600. Any other mode is an error.
    Owner,
    /// Anybody who gets into the folder: mode 0644.
    Anybody,
}

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`, which must be its owner's alone. The path itself may lead over links: it is the
    /// administrator's. `DeviceGone` if it is not there.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => {
                Error::new(ErrorKind::DeviceGone, format!("the folder {} is not there", path.display()))
            }
            Errno::NOTDIR => fault::wrong_kind(path, "a folder"),
            other => fault::io(other, "open", path),
        })?;
        Self { fd, path: path.to_owned() }.private()
    }

    /// Opens a folder inside this one; `None` if there is none.
    pub(crate) fn inside(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Self { fd, path }.private().map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(fault::wrong_kind(&path, "a folder")),
            Err(e) => Err(fault::io(e, "open", &path)),
        }
    }

    fn private(self) -> Result<Self> {
        let stat = fs::fstat(&self.fd).map_err(|e| fault::io(e, "look at", &self.path))?;
        if stat.st_mode & 0o077 != 0 {
            return Err(fault::too_open(&self.path, stat.st_mode, 0o700));
        }
        Ok(self)
    }

    /// The path of something in it, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names in it, in no order. Names that are not UTF-8 are nobody's here.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let fail = |e| fault::io(e, "list", &self.path);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).map_err(fail)? {
            if let Ok(name) = entry.map_err(fail)?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Whether a file is there; it must be a plain file with the permissions of its kind.
    pub(crate) fn has(&self, name: &str, reader: Reader) -> Result<bool> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.judge(name, stat.st_mode, reader).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(fault::io(e, "look at", &self.path_of(name))),
        }
    }

    fn judge(&self, name: &str, mode: u32, reader: Reader) -> Result<()> {
        if FileType::from_raw_mode(mode) != FileType::RegularFile {
            return Err(fault::wrong_kind(&self.path_of(name), "a plain file"));
        }
        if reader == Reader::Owner && mode & 0o077 != 0 {
            return Err(fault::too_open(&self.path_of(name), mode, 0o600));
        }
        Ok(())
    }

    /// Reads a file; `None` if it is not there. What was read is wiped when dropped.
    pub(crate) fn read(&self, name: &str, reader: Reader) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let fail = |e| fault::io(e, "read", &self.path_of(name));
        // Non-blocking, so that a pipe that somebody put there does not hang the reader.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(fault::wrong_kind(&self.path_of(name), "a plain file")),
            Err(e) => return Err(fail(e)),
        };
        let stat = fs::fstat(&fd).map_err(fail)?;
        self.judge(name, stat.st_mode, reader)?;
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size > MAX_FILE {
            return Err(Error::internal(format!(
                "{} is too long for a key file",
                self.path_of(name).display()
            )));
        }
        // All at once into memory of the right size: growing would leave copies behind that nobody wipes.
        let mut bytes = Zeroizing::new(vec![0; size]);
        let mut filled = 0;
        while filled < size {
            match rustix::io::read(&fd, &mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        bytes.truncate(filled);
        Ok(Some(bytes))
    }

    /// When a file was last written.
    pub(crate) fn modified(&self, name: &str) -> Option<std::time::SystemTime> {
        let stat = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))
    }

    /// Makes a file that was not there and puts its bytes on the disk. The name is durable after [`Folder::sync`].
    pub(crate) fn create(&self, name: &str, bytes: &[u8], reader: Reader) -> Result<()> {
        let fail = |e| fault::io(e, "write", &self.path_of(name));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(if reader == Reader::Owner { 0o600 } else { 0o644 });
        let fd = fs::openat(&self.fd, name, flags, mode).map_err(fail)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        fs::fsync(&fd).map_err(fail)
    }

    /// Makes a folder that was not there, and opens it.
    pub(crate) fn create_folder(&self, name: &str) -> Result<Self> {
        let path = self.path_of(name);
        fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(|e| fault::io(e, "make", &path))?;
        self.inside(name)?.ok_or_else(|| fault::io(Errno::NOENT, "open", &path))
    }

    /// Makes names that were created, renamed or removed in it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        fs::fsync(&self.fd).map_err(|e| fault::io(e, "write", &self.path))
    }

    /// Moves `name` to `new_name` in `target`, which must not be there yet: `false` if it is. Atomic.
    pub(crate) fn move_new(&self, name: &str, target: &Self, new_name: &str) -> Result<bool> {
        match fs::renameat_with(&self.fd, name, &target.fd, new_name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            // File systems without RENAME_NOREPLACE (NFS): every change holds the lock, so looking first is enough.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match fs::statat(&target.fd, new_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Ok(false),
                    Err(_) => self.move_over(name, target, new_name).map(|()| true),
                }
            }
            Err(e) => Err(fault::io(e, "write", &target.path_of(new_name))),
        }
    }

    /// Moves `name` to `new_name` in `target`, replacing what is there. Atomic.
    pub(crate) fn move_over(&self, name: &str, target: &Self, new_name: &str) -> Result<()> {
        fs::renameat(&self.fd, name, &target.fd, new_name)
            .map_err(|e| fault::io(e, "write", &target.path_of(new_name)))
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(fault::io(e, "remove", &self.path_of(name))),
        }
    }

    /// Removes a folder and the files in it.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let folder = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Self { fd, path },
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return self.remove(name),
            Err(e) => return Err(fault::io(e, "remove", &path)),
        };
        for file in folder.names()? {
            folder.remove(&file)?;
        }
        fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(|e| fault::io(e, "remove", &folder.path))
    }

    /// Opens a file to lock, made if it is not there.
    pub(crate) fn lock_file(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| fault::io(e, "open", &self.path_of(name)))
    }

    /// Whether files can be made in it.
    pub(crate) fn writable(&self) -> Result<()> {
        fs::accessat(&self.fd, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|e| fault::io(e, "write in", &self.path))
    }
}
