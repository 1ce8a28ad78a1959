//! What the process does for its own safety before it holds any secret.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};

/// No core dumps, no debugger of the same user, files for nobody else, and as many file descriptors as allowed.
pub(crate) fn harden() {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(e) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be turned off: {e}");
    }
    if let Err(e) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!("the process cannot be hidden from debuggers: {e}");
    }
    let files = getrlimit(Resource::Nofile);
    let all = Rlimit { current: files.maximum, maximum: files.maximum };
    if files.current != files.maximum && setrlimit(Resource::Nofile, all).is_err() {
        tracing::debug!("the limit of open files stays at {:?}", files.current);
    }
}
