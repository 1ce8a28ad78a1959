//! The passphrase that nobody configured: made once, kept in a file.

use std::{os::unix::fs::DirBuilderExt, path::Path};

use aws_lc_rs::rand;
use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use signer_core::{Error, Pin, Result};
use zeroize::Zeroizing;

use crate::fault;

/// Reads the passphrase in `file`, or makes a file with a new one: 32 random bytes in hexadecimal, mode 0600.
///
/// It appears whole or not at all, and of several programs that make it at once all read the same. A file that others
/// can read is an error (`Denied`) that says the `chmod`, and so is a symbolic link.
pub fn load_or_create_passphrase(file: &Path) -> Result<Pin> {
    if let Some(pin) = read(file)? {
        return Ok(pin);
    }
    create(file)?;
    read(file)?.ok_or_else(|| fault::io(Errno::NOENT, "read", file))
}

fn read(file: &Path) -> Result<Option<Pin>> {
    let fail = |e| fault::io(e, "read", file);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = match fs::open(file, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(fault::wrong_kind(file, "a plain file")),
        Err(e) => return Err(fail(e)),
    };
    let stat = fs::fstat(&fd).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fault::wrong_kind(file, "a plain file"));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(fault::too_open(file, stat.st_mode, 0o600));
    }
    let unusable = |why: &str| Error::bad_request(format!("the passphrase file {} {why}", file.display()));
    let mut bytes = Zeroizing::new([0; 8192]);
    let mut len = 0;
    while len < bytes.len() {
        match rustix::io::read(&fd, &mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(fail(e)),
        }
    }
    let text = std::str::from_utf8(&bytes[..len]).map_err(|_| unusable("is not text"))?;
    Pin::new(text.to_owned()).map(Some).map_err(|e| unusable("holds no passphrase").vendor(e.what()))
}

fn create(file: &Path) -> Result<()> {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|e| {
        fault::io(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error), "make", parent)
    })?;
    let mut random = Zeroizing::new([0; 32]);
    let mut suffix = [0; 8];
    rand::fill(&mut random[..])
        .and_then(|()| rand::fill(&mut suffix))
        .map_err(|_| Error::internal("there is no randomness for a passphrase"))?;
    let text = hex(&random[..]);
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".new-{}", *hex(&suffix)));
    let temporary = Path::new(&temporary);
    let outcome = write(temporary, text.as_bytes()).and_then(|()| publish(temporary, file));
    if outcome.is_err() {
        let _ = fs::unlink(temporary);
    }
    outcome?;
    fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| fs::fsync(&fd))
        .map_err(|e| fault::io(e, "write", parent))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| fault::io(e, "write", path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
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

/// Gives the finished file its name, unless another program was first: its file is the one then.
fn publish(temporary: &Path, file: &Path) -> Result<()> {
    let outcome = match fs::renameat_with(CWD, temporary, CWD, file, RenameFlags::NOREPLACE) {
        // File systems without RENAME_NOREPLACE (NFS) have links, which replace nothing either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let linked = fs::linkat(CWD, temporary, CWD, file, AtFlags::empty());
            linked.and_then(|()| fs::unlink(temporary))
        }
        other => other,
    };
    match outcome {
        Err(Errno::EXIST) => {
            let _ = fs::unlink(temporary);
            Ok(())
        }
        other => other.map_err(|e| fault::io(e, "write", file)),
    }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    text
}
