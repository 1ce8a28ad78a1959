//! Files that hold secrets: there, readable, and by nobody else.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::Finding;

/// Checks the file of a backend's PIN or passphrase.
pub(super) fn check_pin_file(backend: &str, path: &Path) -> Finding {
    let at = path.display();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Finding::ok(format!("{backend}: the PIN file {at} is not for your eyes"));
        }
        Err(e) => {
            return Finding::problem(
                format!("{backend}: the PIN file {at} cannot be found ({e})"),
                "write the PIN into it (mode 0600), or correct `pin` in the configuration",
            );
        }
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Finding::problem(
            format!("{backend}: others may read the PIN file {at} (mode {mode:04o}, owner {})", meta.uid()),
            format!("chmod 600 {at}"),
        );
    }
    if meta.len() == 0 {
        return Finding::problem(format!("{backend}: the PIN file {at} is empty"), "write the PIN into it");
    }
    Finding::ok(format!("{backend}: the PIN file {at} is there and private"))
}
