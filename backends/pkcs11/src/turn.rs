//! Taking turns with other driver processes on the same module.
//!
//! SoftHSM writes to the token's files at each login, and a process that reads them in that moment takes the token, or a
//! single key, for broken until it initialises the module again. So drivers initialise and log in one after the other.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

/// A process that hangs in the module must not stop the others.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A turn; it ends when this is dropped, or the process ends.
pub(crate) struct Turn(#[expect(dead_code, reason = "holds the lock")] Option<File>);

impl Turn {
    /// Waits for a turn with this module. The lock is on the module's own file: no other file has to be made, and there is
    /// none to be left behind. After two seconds the turn is taken anyway.
    pub(crate) fn take(module: &Path) -> Self {
        let Ok(file) = File::open(module) else { return Self(None) };
        let until = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Self(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                Err(_) => return Self(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = Turn::take(file.path());
        let waits = std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let start = Instant::now();
                drop(Turn::take(file.path()));
                start.elapsed()
            });
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
            second.join().unwrap()
        });
        assert!(waits >= Duration::from_millis(80) && waits < PATIENCE, "{waits:?}");
    }

    #[test]
    fn what_is_no_file_has_no_turns() {
        drop(Turn::take(Path::new("/nowhere.so")));
    }
}
