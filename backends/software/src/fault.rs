//! Errors of the file system, in words.

use std::path::Path;

use rustix::io::Errno;
use signer_core::{Error, ErrorKind};

/// What the system said when `doing` something ("write", "read") with `path`.
pub(crate) fn io(errno: Errno, doing: &str, path: &Path) -> Error {
    let error = |kind| Error::new(kind, format!("cannot {doing} {}", path.display())).vendor(errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            Error::new(ErrorKind::Internal, format!("cannot {doing} {}: the disk is full", path.display()))
                .vendor(errno)
                .next("free some space and try again")
        }
        Errno::ACCESS | Errno::PERM => {
            error(ErrorKind::Denied).next("check the owner: `ls -ld` shows who may")
        }
        Errno::ROFS => error(ErrorKind::Denied).next("the file system is mounted read-only"),
        Errno::NAMETOOLONG => error(ErrorKind::BadRequest),
        _ => error(ErrorKind::Internal),
    }
}

/// A file or folder that others than its owner can read or write.
pub(crate) fn too_open(path: &Path, mode: u32, wanted: u32) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("{} can be used by others than its owner (mode {:04o})", path.display(), mode & 0o7777),
    )
    .next(format!("run `chmod {wanted:o} '{}'`", path.display()))
}

/// Something that is not the kind of file that belongs there.
pub(crate) fn wrong_kind(path: &Path, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("{} is not {wanted}; symbolic links are not followed", path.display()),
    )
    .next("replace it by the real thing, or remove it")
}
