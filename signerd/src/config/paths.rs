//! Where things are when nobody says.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The configuration file: the one given, else `$SIGNERD_CONFIG`, else `signerd/signerd.toml` in `$XDG_CONFIG_HOME`
/// (or `~/.config`), else `/etc/signerd/signerd.toml`. `None` when it is neither given nor there.
pub fn config_file(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    if let Some(file) = variable("SIGNERD_CONFIG") {
        return Some(file);
    }
    let own = home_folder("XDG_CONFIG_HOME", ".config").map(|d| d.join("signerd/signerd.toml"));
    let system = PathBuf::from("/etc/signerd/signerd.toml");
    own.into_iter().chain([system]).find(|f| f.exists())
}

/// Where the daemon listens: `$SIGNERD_SOCKET`, else `signerd/signerd.sock` in `$XDG_RUNTIME_DIR`, else in `/run` for
/// root. Another user without a runtime folder gets one in `/tmp` that nobody else may enter.
pub fn default_socket() -> PathBuf {
    if let Some(socket) = variable("SIGNERD_SOCKET") {
        return socket;
    }
    runtime_folder().join("signerd.sock")
}

fn runtime_folder() -> PathBuf {
    match variable("XDG_RUNTIME_DIR").filter(|d| d.is_absolute()) {
        Some(folder) => folder.join("signerd"),
        None if geteuid().is_root() => PathBuf::from("/run/signerd"),
        None => PathBuf::from(format!("/tmp/signerd-{}", geteuid().as_raw())),
    }
}

/// Where the daemon keeps what must outlive it: `signerd` in `$XDG_DATA_HOME` (or `~/.local/share`), or
/// `/var/lib/signerd` for root.
pub fn default_state() -> PathBuf {
    let system = PathBuf::from("/var/lib/signerd");
    if let Some(folder) = variable("XDG_DATA_HOME").filter(|d| d.is_absolute()) {
        return folder.join("signerd");
    }
    if geteuid().is_root() {
        return system;
    }
    home_folder("XDG_DATA_HOME", ".local/share").map_or(system, |d| d.join("signerd"))
}

fn home_folder(xdg: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |d: &PathBuf| d.is_absolute();
    variable(xdg).filter(absolute).or_else(|| Some(variable("HOME").filter(absolute)?.join(below_home)))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}
