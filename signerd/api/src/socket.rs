//! Where the daemon listens when nobody says.

use std::{
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where a daemon listens by default: `$SIGNERD_SOCKET`, else `signerd/signerd.sock` in `$XDG_RUNTIME_DIR`, else in `/run`
/// for root. Another user without a runtime folder gets one in `/tmp`, which the daemon makes so that nobody else may
/// enter it.
pub fn default_socket() -> PathBuf {
    candidates(rustix::process::geteuid().as_raw(), |name| std::env::var_os(name)).swap_remove(0)
}

/// Where a client looks for the daemon by default: as [`default_socket`], but the system's socket when only that one is
/// there.
pub fn find_socket() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    choose(candidates(uid, |name| std::env::var_os(name)), |socket| is_trusted(socket, uid))
}

const SYSTEM: &str = "/run/signerd/signerd.sock";

/// Best first; never empty.
fn candidates(uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(socket) = set("SIGNERD_SOCKET") {
        return vec![socket];
    }
    let own = match set("XDG_RUNTIME_DIR").filter(|d| d.is_absolute()) {
        Some(folder) => Some(folder.join("signerd/signerd.sock")),
        None if uid == 0 => None,
        None => Some(PathBuf::from(format!("/tmp/signerd-{uid}/signerd.sock"))),
    };
    own.into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}

/// Whether the socket is there. In `/tmp` anybody may have made the folder: only one's own counts.
fn is_trusted(socket: &Path, uid: u32) -> bool {
    let folder = socket.parent().filter(|f| f.starts_with("/tmp"));
    socket.exists() && folder.is_none_or(|f| f.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid))
}

/// The first that is there; if none is, the first that nobody else has put there.
fn choose(mut candidates: Vec<PathBuf>, is_there: impl Fn(&Path) -> bool) -> PathBuf {
    let last = candidates.len() - 1;
    let absent = |candidates: &[PathBuf]| candidates.iter().position(|c| !c.exists()).unwrap_or(last);
    let at = candidates.iter().position(|c| is_there(c)).unwrap_or_else(|| absent(&candidates));
    candidates.swap_remove(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "/r/signerd/signerd.sock";

    fn with(uid: u32, variables: &'static [(&str, &str)]) -> Vec<PathBuf> {
        candidates(uid, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into()))
    }

    #[test]
    fn the_order_of_places() {
        assert_eq!(with(0, &[("SIGNERD_SOCKET", "s"), ("XDG_RUNTIME_DIR", "/r")]), [Path::new("s")]);
        let both = [Path::new(SET), Path::new(SYSTEM)];
        assert_eq!(with(0, &[("SIGNERD_SOCKET", ""), ("XDG_RUNTIME_DIR", "/r")]), both);
        assert_eq!(with(0, &[]), [Path::new(SYSTEM)]);
        assert_eq!(with(7, &[]), [Path::new("/tmp/signerd-7/signerd.sock"), Path::new(SYSTEM)]);
        let own = with(7, &[("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(choose(own.clone(), |p| p == Path::new(SYSTEM)), Path::new(SYSTEM));
        assert_eq!(choose(own, |_| false), Path::new(SET));
    }

    #[test]
    fn a_folder_of_somebody_else_in_tmp_is_not_trusted() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let socket = folder.path().join("signerd.sock");
        let uid = rustix::process::geteuid().as_raw();
        assert!(!is_trusted(&socket, uid));
        std::fs::write(&socket, "").unwrap();
        assert!(is_trusted(&socket, uid));
        assert!(!is_trusted(&socket, uid + 1));
        assert_eq!(choose(vec![socket, SYSTEM.into()], |_| false), Path::new(SYSTEM));
    }
}
