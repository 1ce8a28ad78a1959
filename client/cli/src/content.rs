//! The files that are signed: read once, at disk speed, in little memory.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use signer_core::{Digest, HashAlgorithm, Hasher};

use crate::{context::Context, failure::Failure};

/// What one pass over a file gave.
pub(crate) struct Content {
    digests: Vec<Digest>,
    /// The whole message, if it was asked for and is not longer than allowed.
    pub(crate) message: Option<Vec<u8>>,
    /// Bytes.
    pub(crate) len: u64,
}

/// What a pass over a file should give.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Digests by these hash functions.
    pub(crate) hashes: Vec<HashAlgorithm>,
    /// The message itself, if it has at most so many bytes.
    pub(crate) message: Option<usize>,
}

/// Bytes of one read: the most that still stays in a core's cache.
const PIECE: usize = 256 * 1024;

/// From this length on a file is worth a thread of its own (the connection is served meanwhile) and a progress bar.
const LONG: u64 = 16 << 20;

/// How a path is called in messages.
pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Whether a path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Content {
    /// Reads a file, or standard input for `-`.
    pub(crate) async fn read(path: &Path, wanted: Wanted, context: &Context) -> Result<Self, Failure> {
        let failure = |e: &io::Error| Failure::io(format!("{} cannot be read", name(path)), e);
        if is_stdin(path) {
            let bar = context.shows_progress().then(|| bar(None, "standard input"));
            return read_apart(io::stdin(), wanted, bar).await.map_err(|e| failure(&e));
        }
        let file = File::open(path).map_err(|e| failure(&e))?;
        let meta = file.metadata().map_err(|e| failure(&e))?;
        if meta.is_dir() {
            return Err(failure(&io::ErrorKind::IsADirectory.into()));
        }
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let read = if meta.is_file() && meta.len() < LONG {
            Self::of(file, wanted, None)
        } else {
            let len = Some(meta.len()).filter(|_| meta.is_file());
            let bar = context.shows_progress().then(|| bar(len, &name(path)));
            read_apart(file, wanted, bar).await
        };
        read.map_err(|e| failure(&e))
    }

    fn of(mut reader: impl Read, wanted: Wanted, bar: Option<ProgressBar>) -> io::Result<Self> {
        let mut hashers: Vec<Hasher> = wanted.hashes.into_iter().map(Hasher::new).collect();
        let mut message = wanted.message.map(|_| Vec::new());
        let limit = wanted.message.unwrap_or_default();
        let mut piece = vec![0; PIECE];
        let mut len = 0;
        loop {
            let n = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            len += n as u64;
            for hasher in &mut hashers {
                hasher.update(&piece[..n]);
            }
            match &mut message {
                Some(whole) if whole.len() + n <= limit => whole.extend_from_slice(&piece[..n]),
                _ => message = None,
            }
            if let Some(bar) = &bar {
                bar.set_position(len);
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(Self { digests: hashers.into_iter().map(Hasher::finish).collect(), message, len })
    }

    /// The digest by a hash function that was asked for.
    pub(crate) fn digest(&self, hash: HashAlgorithm) -> Option<Digest> {
        self.digests.iter().find(|d| d.algorithm() == hash).copied()
    }
}

async fn read_apart(
    reader: impl Read + Send + 'static,
    wanted: Wanted,
    bar: Option<ProgressBar>,
) -> io::Result<Content> {
    let read = tokio::task::spawn_blocking(move || Content::of(reader, wanted, bar));
    read.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// A progress bar that shows itself only after a moment, so that what is fast stays silent.
fn bar(len: Option<u64>, name: &str) -> ProgressBar {
    let bar = match len {
        Some(len) => ProgressBar::new(len),
        None => ProgressBar::new_spinner(),
    };
    let template = match len {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {spinner} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_gives_all_digests_and_no_more_than_the_limit() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
        for (limit, kept) in [(999_999, false), (1_000_000, true)] {
            let wanted = Wanted { hashes: HashAlgorithm::ALL.to_vec(), message: Some(limit) };
            let content = Content::of(&bytes[..], wanted, None).unwrap();
            assert_eq!(content.len, 1_000_000);
            for hash in HashAlgorithm::ALL {
                assert_eq!(content.digest(hash), Some(Digest::of(hash, &bytes)));
            }
            assert_eq!(content.message.as_deref() == Some(&bytes[..]), kept);
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_message() {
        let content = Content::of(&b""[..], Wanted { hashes: vec![], message: Some(0) }, None).unwrap();
        assert_eq!((content.len, content.message), (0, Some(vec![])));
    }
}
