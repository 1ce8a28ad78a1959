//! Where reports go: a file, standard output, a webhook.
//!
//! A report leaves the outbox after it has arrived. A monitor that is killed in between sends it again, with the same `id`: at
//! least once. In a file, it looks first whether the report is there already: exactly once.

use std::{
    collections::HashSet,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use signer_core::{Error, ErrorKind, Result};

use super::{
    follow::lock,
    metrics::Metrics,
    state::{State, Waiting, file_identity},
    webhook::Webhook,
};

/// A place for reports.
pub(super) enum Sink {
    Stdout,
    File(PathBuf),
    Webhook(Box<Webhook>),
}

impl Sink {
    /// What it is called in the state and in figures. No secret that an address may have is in it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".into(),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Webhook(webhook) => webhook.name(),
        }
    }

    /// How many reports are given at a time.
    fn batch(&self) -> usize {
        if matches!(self, Self::Webhook(_)) { 1 } else { 256 }
    }

    fn deliver(&self, state: &Mutex<State>, waiting: &[Waiting]) -> Result<()> {
        let Some(last) = waiting.last().map(|w| w.number) else { return Ok(()) };
        let name = self.name();
        let file = match self {
            Self::Stdout => {
                print(waiting).map_err(|e| {
                    Error::new(ErrorKind::DeviceGone, "standard output cannot be written to").vendor(e)
                })?;
                None
            }
            Self::File(path) => Some(append(path, &name, state, waiting)?),
            Self::Webhook(webhook) => {
                waiting.iter().try_for_each(|w| webhook.post(&w.report))?;
                None
            }
        };
        let file = file.as_ref().map(|(identity, length)| (&identity[..], *length));
        lock(state).delivered(&name, last, file)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn print(waiting: &[Waiting]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for one in waiting {
        writeln!(out, "{}", one.report.body)?;
    }
    out.flush()
}

/// Appends what is not there yet, durably; gives which file it is and how long.
fn append(path: &Path, sink: &str, state: &Mutex<State>, waiting: &[Waiting]) -> Result<(Vec<u8>, u64)> {
    let failed = |e: &dyn fmt::Display| {
        Error::new(ErrorKind::DeviceGone, format!("{} cannot be written to", path.display())).vendor(e)
    };
    let new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|e| failed(&e))?;
    // Two monitors may write into one file.
    flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(&e))?;
    let metadata = file.metadata().map_err(|e| failed(&e))?;
    let (identity, length) = (file_identity(&metadata), metadata.len());
    if new && let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(&e))?;
    }
    let known = lock(state).file(sink)?;
    let from = match known {
        Some((known, from)) if known == identity && from <= length => from,
        // Another file has taken its place, or it was emptied: whatever is in it came since.
        Some(_) => 0,
        // The first report of all: what is there is not ours. Known before the first line is written.
        None => {
            lock(state).delivered(sink, 0, Some((&identity, length)))?;
            length
        }
    };
    let there = lines_from(&mut file, from).map_err(|e| failed(&e))?;
    let mut text = String::new();
    for one in waiting.iter().filter(|w| !there.contains(&w.report.id)) {
        text.push_str(&one.report.body);
        text.push('\n');
    }
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|e| failed(&e))?;
    let length = file.metadata().map_err(|e| failed(&e))?.len();
    Ok((identity, length))
}

/// The reports in a file from some place on. A line that was cut off by a kill is taken away.
fn lines_from(file: &mut File, from: u64) -> io::Result<HashSet<String>> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole < tail.len() {
        file.set_len(from + whole as u64)?;
    }
    let id = |line: &[u8]| {
        let line: Value = serde_json::from_slice(line).ok()?;
        Some(line["id"].as_str()?.to_owned())
    };
    Ok(tail[..whole].split(|b| *b == b'\n').filter_map(id).collect())
}

/// Wakes the threads that deliver.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<u64>,
    wake: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.wake.notify_all();
    }

    /// Waits until it rings, for so long at most. `seen` is how often it has rung so far.
    fn wait(&self, seen: &mut u64, most: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (rung, _) = self
            .wake
            .wait_timeout_while(rung, most, |rung| *rung == *seen)
            .unwrap_or_else(PoisonError::into_inner);
        *seen = *rung;
    }
}

/// What all threads that deliver share.
pub(super) struct Delivery {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bell: Arc<Bell>,
    /// Set when nothing more will come: what waits is still delivered, until the end.
    pub(super) ending: AtomicBool,
    pub(super) end: Mutex<Option<End>>,
    /// Why the monitor cannot go on, if it cannot.
    pub(super) hopeless: Mutex<Option<Error>>,
}

/// When it is over.
#[derive(Clone, Copy)]
pub(super) struct End {
    at: Instant,
    /// So much later each time that reports arrive.
    more: Duration,
}

/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

impl Delivery {
    /// Nothing more will come; what waits may take so long, and with `to_the_last` as long again each time that some arrive.
    pub(super) fn end(&self, patience: Duration, to_the_last: bool) {
        let more = if to_the_last { patience } else { Duration::ZERO };
        *self.lock_end() = Some(End { at: Instant::now() + patience, more });
        self.ending.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    fn lock_end(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self) {
        if let Some(end) = &mut *self.lock_end() {
            end.at = end.at.max(Instant::now() + end.more);
        }
    }

    fn time_is_over(&self) -> bool {
        self.lock_end().is_some_and(|end| Instant::now() >= end.at)
    }

    /// Delivers to one place until the end. For a thread of its own.
    pub(super) fn run(&self, sink: &Sink) {
        let name = sink.name();
        let (mut seen, mut pause) = (0, FIRST_PAUSE);
        loop {
            let waiting = lock(&self.state).waiting(&name, sink.batch());
            let ending = self.ending.load(Ordering::Relaxed);
            let done = match waiting {
                Ok(waiting) if waiting.is_empty() => {
                    if ending {
                        return;
                    }
                    self.bell.wait(&mut seen, Duration::from_secs(5));
                    continue;
                }
                Ok(waiting) => sink.deliver(&self.state, &waiting).map(|()| waiting.len()),
                Err(e) => Err(e),
            };
            match done {
                Ok(count) => {
                    self.metrics.delivered(&name, count as u64);
                    self.arrived();
                    pause = FIRST_PAUSE;
                }
                Err(e) => {
                    tracing::warn!("reports wait: {e}");
                    self.metrics.failed(&name);
                    if matches!(sink, Sink::Stdout) {
                        *self.hopeless.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        return;
                    }
                    let wished = e.kind().retry_after().unwrap_or_default();
                    self.pause(pause.max(wished).min(LONGEST_PAUSE));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if ending && self.time_is_over() {
                return;
            }
        }
    }

    /// Waits; the end is not waited for.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.time_is_over() {
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use signer_core::{KeyType, PublicKey};
    use signer_log_engine::{NoteKey, NoteKind};

    use super::*;
    use crate::monitor::report::Report;

    fn waiting(n: i64) -> Waiting {
        Waiting { number: n, report: Report { id: format!("id{n}"), body: format!("{{\"id\":\"id{n}\"}}") } }
    }

    /// What a monitor that was killed in the middle finds in its file.
    #[test]
    fn a_file_has_each_report_once() {
        let folder = tempfile::tempdir().unwrap();
        let key =
            NoteKey::new("log", NoteKind::Ed25519, PublicKey::from_raw(KeyType::Ed25519, &[7; 32]).unwrap());
        let state = Mutex::new(State::open(&folder.path().join("state"), &key.unwrap(), Vec::new()).unwrap());
        let path = folder.path().join("reports");
        let sink = Sink::File(path.clone());
        let text = || std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, "somebody else's line\n").unwrap();
        sink.deliver(&state, &[waiting(1)]).unwrap();
        // Written, and killed before the state says so; and the next one half written.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"id2\"}\n{\"id\":\"i").unwrap();
        sink.deliver(&state, &[waiting(2), waiting(3)]).unwrap();
        assert_eq!(text(), "somebody else's line\n{\"id\":\"id1\"}\n{\"id\":\"id2\"}\n{\"id\":\"id3\"}\n");
        // Rotated: the new file begins anew.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        sink.deliver(&state, &[waiting(4)]).unwrap();
        assert_eq!(text(), "{\"id\":\"id4\"}\n");
    }
}
