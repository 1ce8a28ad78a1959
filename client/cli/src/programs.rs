//! The other programs of the house, which stand beside this one.

use std::path::PathBuf;

/// The path of a program: beside this one, else wherever `PATH` has it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(name)));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&in_path).map(|d| d.join(name))).find(|p| p.is_file())
}
