//! The checkpoint of a log in a folder: whoever reads through this process sees a new one at once, whoever reads the folder a
//! moment later.
//!
//! Replacing a file takes longer than everything else that is done for a batch, and batches may follow each other by less than
//! a millisecond. So the file is replaced at once when it was not replaced a moment ago, and else as soon as that moment is over,
//! by what is the newest then. A file that could not be replaced is tried again, and nothing more is published before it was.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use signer_core::{Error, ErrorKind, Result};

use super::{
    Swap,
    files::{self, Readers},
    unavailable,
};

/// How long a file is left alone after it was replaced.
const MOMENT: Duration = Duration::from_millis(5);
/// How long until a file that could not be replaced is tried again without being asked to.
const AGAIN: Duration = Duration::from_secs(1);

/// The checkpoint, and the thread that brings it into its file.
#[derive(Debug)]
pub(super) struct Face {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    readers: Readers,
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug)]
struct Now {
    /// What readers see.
    seen: Option<Vec<u8>>,
    /// What the file has.
    written: Option<Vec<u8>>,
    replaced: Option<Instant>,
    /// Whether the last try to replace the file failed.
    failed: bool,
    ending: bool,
}

impl Face {
    /// The checkpoint that the file has now. The folder must be locked: nobody else replaces it.
    pub(super) fn open(path: PathBuf, readers: Readers) -> io::Result<Self> {
        let written = read(&path)?;
        let now = Now { seen: written.clone(), written, replaced: None, failed: false, ending: false };
        let shared = Arc::new(Shared { path, readers, now: Mutex::new(now), changed: Condvar::new() });
        let thread = shared.clone();
        let writer = std::thread::Builder::new().name("log-face".into()).spawn(move || thread.keep_up())?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// What readers see.
    pub(super) fn seen(&self) -> Option<Vec<u8>> {
        self.shared.lock().seen.clone()
    }

    /// Replaces the checkpoint, if it still is the expected one.
    pub(super) fn publish(&self, expected: Option<&[u8]>, checkpoint: &[u8]) -> Result<Swap> {
        let mut now = self.shared.lock();
        if now.seen.as_deref() != expected {
            return Err(self.shared.replaced_by_another());
        }
        let before = now.seen.replace(checkpoint.to_vec());
        if now.failed || now.replaced.is_none_or(|at| at.elapsed() >= MOMENT) {
            // Readers go on with what they have seen: nobody was told of this one.
            self.shared.write(&mut now).inspect_err(|_| now.seen = before)?;
        } else {
            self.shared.changed.notify_one();
        }
        Ok(Swap::Done)
    }

    /// Waits until readers of the folder see what was published.
    pub(super) fn settle(&self) -> Result<()> {
        let mut now = self.shared.lock();
        if now.is_behind() { self.shared.write(&mut now) } else { Ok(()) }
    }

    /// Brings what was published last into the file, if that is possible, and leaves the file alone from then on.
    pub(super) fn end(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        self.end();
    }
}

impl Now {
    fn is_behind(&self) -> bool {
        self.seen != self.written
    }

    /// How long until the file may be replaced by the thread; `None` when there is nothing to do.
    fn rest(&self) -> Option<Duration> {
        let pause = if self.failed { AGAIN } else { MOMENT };
        self.is_behind()
            .then(|| self.replaced.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed())))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: brings the file up to what is seen.
    fn keep_up(&self) {
        let mut now = self.lock();
        while !now.ending {
            now = match now.rest() {
                None => self.changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(rest) if rest.is_zero() => {
                    if let Err(e) = self.write(&mut now) {
                        tracing::warn!("the file of the checkpoint is behind: {e}");
                    }
                    now
                }
                Some(rest) => self.changed.wait_timeout(now, rest).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        if now.is_behind()
            && let Err(e) = self.write(&mut now)
        {
            tracing::warn!("the file of the checkpoint stays behind until the log is opened again: {e}");
        }
    }

    /// Replaces the file by what is seen.
    fn write(&self, now: &mut Now) -> Result<()> {
        let result = self.replace(now);
        (now.failed, now.replaced) = (result.is_err(), Some(Instant::now()));
        result
    }

    fn replace(&self, now: &mut Now) -> Result<()> {
        let failed = |e: io::Error| {
            unavailable("the checkpoint cannot be published", &e)
                .device(self.path.with_file_name("").display())
        };
        // The folder is locked, so between this look and the rename only somebody who ignores the lock can come.
        if read(&self.path).map_err(failed)? != now.written {
            return Err(self.replaced_by_another());
        }
        files::replace(&self.path, now.seen.as_deref().unwrap_or_default(), self.readers).map_err(failed)?;
        now.written.clone_from(&now.seen);
        Ok(())
    }

    fn replaced_by_another(&self) -> Error {
        Error::new(ErrorKind::Denied, "somebody else has replaced the checkpoint of this log")
            .device(self.path.with_file_name("").display())
            .next("stop whatever else writes into the folder, run `signer-log check`, and start again")
    }
}

/// The file's contents; an empty one says nothing.
fn read(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    Ok(files::read(path)?.filter(|contents| !contents.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face() -> (tempfile::TempDir, PathBuf, Face) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let face = Face::open(path.clone(), Readers::AsMasked).unwrap();
        (folder, path, face)
    }

    fn publish(face: &Face, from: u32, to: u32) {
        for at in from..to {
            let before = at.checked_sub(1).map(|before| before.to_string());
            face.publish(before.as_deref().map(str::as_bytes), at.to_string().as_bytes()).unwrap();
        }
    }

    #[test]
    fn readers_see_each_checkpoint_at_once_and_the_folder_the_last_one_soon() {
        let (_folder, path, face) = face();
        publish(&face, 0, 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"0", "the first of a while is there at once");
        publish(&face, 1, 100);
        assert_eq!(face.seen().unwrap(), b"99");
        let began = Instant::now();
        while std::fs::read(&path).unwrap() != b"99" {
            assert!(began.elapsed() < Duration::from_secs(5), "the file stays behind");
        }
    }

    #[test]
    fn what_was_published_is_in_the_file_after_the_end_and_when_it_was_waited_for() {
        let (_folder, path, face) = face();
        publish(&face, 0, 50);
        face.settle().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"49");
        publish(&face, 50, 60);
        drop(face);
        assert_eq!(std::fs::read(&path).unwrap(), b"59");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stops_the_next_one_until_it_can() {
        let (folder, path, face) = face();
        publish(&face, 0, 1);
        std::fs::create_dir(folder.path().join(".checkpoint.new")).unwrap();
        publish(&face, 1, 3);
        let began = Instant::now();
        while !face.shared.lock().failed {
            assert!(began.elapsed() < Duration::from_secs(5), "the file was not tried");
        }
        let error = face.publish(Some(b"2"), b"3").unwrap_err();
        assert_eq!((error.kind(), face.seen().unwrap()), (ErrorKind::DeviceGone, b"2".to_vec()));
        std::fs::remove_dir(folder.path().join(".checkpoint.new")).unwrap();
        publish(&face, 3, 4);
        assert_eq!(std::fs::read(&path).unwrap(), b"3");
    }

    #[test]
    fn a_file_that_somebody_else_has_replaced_is_left_alone() {
        let (_folder, path, face) = face();
        publish(&face, 0, 3);
        face.settle().unwrap();
        std::fs::write(&path, "other").unwrap();
        std::thread::sleep(MOMENT);
        let error = face.publish(Some(b"2"), b"3").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        drop(face);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }
}
