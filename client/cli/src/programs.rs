//! The other programs of the house, which stand beside this one.

use std::path::PathBuf;

/// The path of a program: beside this one, else wherever `PATH` has it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(name)));
    beside.filter(|p| p.is_file()).or_else(|| in_path(name))
}

/// Whether it is found by its name alone.
pub(crate) fn is_in_path(name: &str) -> bool {
    in_path(name).is_some()
}

pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|d| d.join(name)).find(|p| p.is_file())
}
