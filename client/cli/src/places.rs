//! Where a user's files are, and who the user is.

use std::{fs, path::PathBuf};

use crate::failure::Failure;

/// `$XDG_CONFIG_HOME`, else `~/.config`.
pub(crate) fn user_config() -> Result<PathBuf, Failure> {
    folder("XDG_CONFIG_HOME", ".config").ok_or_else(|| {
        Failure::usage("neither XDG_CONFIG_HOME nor HOME is set").next("name the file with --config")
    })
}

/// The configuration that a daemon started by this user reads: `$SIGNERD_CONFIG`, the user's own, the system's.
pub(crate) fn daemon_config() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SIGNERD_CONFIG").filter(|v| !v.is_empty()) {
        return Some(path.into());
    }
    let own = folder("XDG_CONFIG_HOME", ".config").map(|d| d.join("signerd/signerd.toml"));
    own.into_iter().chain([PathBuf::from("/etc/signerd/signerd.toml")]).find(|p| p.exists())
}

fn folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set(variable).or_else(|| set("HOME").map(|h| h.join(in_home)))
}

/// The user as a grant names it: `user:alice`, or `uid:1000` where there is no name.
pub(crate) fn caller() -> String {
    let uid = rustix::process::geteuid().as_raw();
    user_name(uid).map_or_else(|| format!("uid:{uid}"), |name| format!("user:{name}"))
}

/// A user's name, where there is one.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    lookup("/etc/passwd", &uid.to_string())
}

/// A group's name, or number where there is no name.
pub(crate) fn group_name(gid: u32) -> String {
    let gid = gid.to_string();
    lookup("/etc/group", &gid).unwrap_or(gid)
}

/// The name in front of an identifier in a file such as `/etc/passwd`.
fn lookup(file: &str, id: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(id)).then(|| name.to_owned())
    })
}
