//! A log in a folder: plain files as C2SP names them, and beside them a journal.
//!
//! ```text
//! checkpoint  tile/0/000  tile/entries/000  issuer/…     what any web server can serve
//! .state/lock  .state/journal.0  .state/journal.1        whose it is, and what is durable first
//! ```
//!
//! The order of [`super`] costs one write and one `fdatasync` a batch here. The journal makes the entries durable; tiles and
//! checkpoint are written to files, and their turn to become durable comes in the background, when a journal file is full:
//! it is begun anew only after that. (When batches follow each other closely the checkpoint's file comes a few milliseconds later,
//! and readers of the folder are behind by that: [`super::face`].) If the machine itself dies before, [`Storage::recover`] gives all batches of the journal
//! again, and the same tiles are written from them. What is *not* in the order is the durability of the checkpoint file:
//! it may fall back to an older one after a power cut. The entries that it covered are durable, at the same indices, and the
//! start signs for them again before it answers anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::fs::{FlockOperation, flock};
use signer_core::{Error, ErrorKind, Result};

use super::{
    Batch, Objects, Recovered, Storage, Swap,
    face::Face,
    files::{self, Readers},
    journal::{self, Kind, MAX_RECORD, SEGMENT, Segment},
    unavailable,
};
use crate::tile::TileId;

/// How many partial forms of a tile stay for web servers that serve the folder as it is: more than the batches by which the
/// checkpoint's file may be behind. Ours needs the newest only.
const PARTIALS_KEPT: usize = 32;

/// A log in a folder of this machine.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
    folder: Folder,
    state: PathBuf,
    lock: File,
    readers: Readers,
    checkpoint: Face,
    /// Locked by the one that appends; readers don't need it.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    segments: [Segment; 2],
    active: usize,
    /// Files that were written since the active segment was begun, and may not be durable.
    dirty: BTreeSet<PathBuf>,
    /// Whether everything from the segment that is not active is durable in files.
    other_is_clean: bool,
    /// Makes it so.
    cleaner: Option<JoinHandle<io::Result<()>>>,
    /// Whether files that were not made durable may be missing in `dirty`.
    lost_track: bool,
    /// The newest partial forms of each tile at the edge.
    partials: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl LocalStorage {
    /// Makes a folder for a new log, or takes one that is there, and locks it. `Busy` when another process has it.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_for(root, None)
    }

    /// The same, and a group may read the log, whatever the mask of the process says. The process has to be in it.
    pub fn open_for(root: &Path, group: Option<u32>) -> Result<Self> {
        let readers = if group.is_some() { Readers::Group } else { Readers::AsMasked };
        let cannot = |what: &str, e: io::Error| {
            unavailable(format!("the log's folder {} {what}", root.display()), &e).device(root.display())
        };
        let state = root.join(".state");
        fs::create_dir_all(root).map_err(|e| cannot("cannot be made", e))?;
        if let Some(group) = group {
            let give = || {
                std::os::unix::fs::chown(root, None, Some(group))?;
                readers.open_folder(root)
            };
            give().map_err(|e| cannot("cannot be given to its group of readers", e))?;
        }
        match DirBuilder::new().mode(0o700).create(&state) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cannot("cannot be written to", e));
            }
            _ => {}
        }
        let lock = lock(&state.join("lock")).map_err(|e| cannot("cannot be locked", e))?.map_err(|pid| {
            let whom = if pid.is_empty() { String::new() } else { format!(", {pid}") };
            Error::new(
                ErrorKind::Busy { retry_after: std::time::Duration::from_secs(1) },
                format!("the log in {} is in use by another process{whom}", root.display()),
            )
            .next("stop it first: one process at a time writes a log")
        })?;
        let segment = |at: usize| {
            open_segment(&state.join(format!("journal.{at}")))
                .map_err(|e| cannot("has no room for its journal", e))
        };
        let segments = [segment(0)?, segment(1)?];
        sync_folders(root, &state).map_err(|e| cannot("cannot be made durable", e))?;
        let checkpoint = Face::open(root.join("checkpoint"), readers)
            .map_err(|e| cannot("has a checkpoint that cannot be read", e))?;
        let writer = Writer {
            segments,
            active: 0,
            dirty: BTreeSet::new(),
            other_is_clean: false,
            cleaner: None,
            lost_track: false,
            partials: BTreeMap::new(),
        };
        Ok(Self {
            root: root.to_owned(),
            folder: Folder::new(root),
            state,
            lock,
            readers,
            checkpoint,
            writer: Mutex::new(writer),
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        path_in(&self.root, name)
    }
}

impl Drop for LocalStorage {
    /// A child that was started a moment ago may still have the lock's file: it is given back, not only closed.
    fn drop(&mut self) {
        self.checkpoint.end();
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// The file of an object. Names are made by this house; one that would lead out of the folder has no file.
fn path_in(root: &Path, name: &str) -> Option<PathBuf> {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    name.split('/').all(plain).then(|| root.join(name))
}

/// A log in a folder, to be read only: another process may be writing it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The log in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The longest form of a tile that has at least so many. The log may be growing: a form that was there a moment ago is then
    /// replaced by a longer one.
    fn longer(&self, id: TileId) -> io::Result<Option<Vec<u8>>> {
        const LOOKS: u32 = 20;
        let folder = self.0.join(format!("{}.p", id.stem()));
        for _ in 0..LOOKS {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let widths = entries.filter_map(|e| e.file_name().to_str()?.parse::<u16>().ok());
            let partial = widths.filter(|w| *w >= id.width).max();
            if let Some(width) = partial
                && let Some(bytes) = files::read(&folder.join(width.to_string()))?
            {
                return Ok(Some(bytes));
            }
            if let Some(bytes) = files::read(&self.0.join(id.full().to_string()))? {
                return Ok(Some(bytes));
            }
            if partial.is_none() {
                break;
            }
        }
        Ok(None)
    }
}

impl Objects for Folder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = path_in(&self.0, name) else { return Ok(None) };
        let failed =
            |e: io::Error| unavailable(format!("{name} cannot be read"), &e).device(self.0.display());
        if let Some(bytes) = files::read(&path).map_err(failed)? {
            return Ok(Some(bytes));
        }
        match name.parse::<TileId>() {
            Ok(id) if !id.is_full() => self.longer(id).map_err(failed),
            _ => Ok(None),
        }
    }
}

impl Objects for LocalStorage {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if name == "checkpoint" { Ok(self.checkpoint.seen()) } else { self.folder.read(name) }
    }
}

impl Storage for LocalStorage {
    fn recover(&self) -> Result<Recovered> {
        let mut writer = self.writer();
        let mut found = Vec::new();
        for at in 0..2 {
            if let Some(contents) = writer.segments[at].read()? {
                writer.segments[at].resume(&contents);
                found.push((at, contents));
            }
        }
        found.sort_by_key(|(_, contents)| contents.generation);
        let checkpoint = self.checkpoint.seen();
        let Some((active, _)) = found.last() else {
            writer.other_is_clean = true;
            return Ok(Recovered { snapshot: None, batches: Vec::new(), checkpoint, sealed: false });
        };
        writer.active = *active;
        // The older file may not be durable in tiles yet. Its batches are given too: writing the same tiles again harms nobody.
        writer.other_is_clean = found.len() == 1;
        if let [(_, older), (_, newer)] = &found[..]
            && older.generation + 1 != newer.generation
        {
            return Err(Error::internal("the two files of the journal do not belong together")
                .next("restore the whole folder from one backup, or from a mirror"));
        }
        let snapshot = Some(found[0].1.snapshot.clone());
        let batches = found.into_iter().flat_map(|(_, contents)| contents.batches).collect();
        Ok(Recovered { snapshot, batches, checkpoint, sealed: false })
    }

    fn has_room(&self, batch: &Batch) -> bool {
        let writer = self.writer();
        writer.segments[writer.active].fits(journal::encoded_len(batch))
    }

    fn stage(&self, batch: &Batch, snapshot: &dyn Fn() -> Vec<u8>) -> Result<Swap> {
        let body = journal::encode(batch);
        if body.len() as u64 > MAX_RECORD / 2 {
            return Err(Error::bad_request("the batch is larger than the journal takes"));
        }
        let failed =
            |e: io::Error| unavailable("the entries cannot be made durable", &e).device(self.root.display());
        let mut writer = self.writer();
        if !writer.segments[writer.active].fits(body.len()) {
            writer.switch(&self.root, &snapshot()).map_err(failed)?;
        }
        let active = writer.active;
        writer.segments[active].append(Kind::Batch, &body).map_err(failed)?;
        Ok(Swap::Done)
    }

    fn write_tiles(&self, tiles: &[(TileId, Vec<u8>)]) -> Result<()> {
        for (id, bytes) in tiles {
            let path = self.root.join(id.to_string());
            files::write(&path, bytes, self.readers).map_err(|e| {
                unavailable(format!("{id} cannot be written"), &e).device(self.root.display())
            })?;
            // Locked for each tile alone: batches may be staged meanwhile.
            let mut writer = self.writer();
            writer.dirty.insert(path.clone());
            let folder = self.root.join(format!("{}.p", id.stem()));
            if id.is_full() {
                writer.partials.remove(&folder);
                writer.dirty.retain(|path| !path.starts_with(&folder));
                let _ = fs::remove_dir_all(&folder);
                continue;
            }
            let kept = writer.partials.entry(folder).or_default();
            kept.retain(|there| *there != path);
            kept.push(path);
            if kept.len() > PARTIALS_KEPT {
                let old = kept.remove(0);
                writer.dirty.remove(&old);
                let _ = fs::remove_file(&old);
            }
        }
        Ok(())
    }

    fn publish(&self, expected: Option<&[u8]>, checkpoint: &[u8]) -> Result<Swap> {
        self.writer().dirty.insert(self.root.join("checkpoint"));
        self.checkpoint.publish(expected, checkpoint)
    }

    fn settle(&self) -> Result<()> {
        self.checkpoint.settle()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path =
            self.path(name).ok_or_else(|| Error::bad_request(format!("{name:?} is no name of an object")))?;
        if path.exists() {
            return Ok(());
        }
        let store = || {
            path.parent().map_or(Ok(()), |folder| self.readers.make_folder(folder))?;
            files::replace(&path, bytes, self.readers)?;
            files::sync(&self.root, &BTreeSet::from([path.clone()]))
        };
        store().map_err(|e| unavailable(format!("{name} cannot be stored"), &e).device(self.root.display()))
    }

    fn state_folder(&self) -> Option<&Path> {
        Some(&self.state)
    }
}

impl Writer {
    /// Begins the other segment, when all that it held is durable in files, and leaves this one to become so.
    fn switch(&mut self, root: &Path, snapshot: &[u8]) -> io::Result<()> {
        if let Some(cleaner) = self.cleaner.take() {
            self.other_is_clean = cleaner.join().is_ok_and(|result| result.is_ok());
            self.lost_track |= !self.other_is_clean;
        }
        if !self.other_is_clean {
            // After a start, or when the background had no luck: everything at once.
            let all = if self.lost_track { everything(root) } else { self.dirty.clone() };
            files::sync(root, &all)?;
            (self.other_is_clean, self.lost_track) = (true, false);
        }
        let other = 1 - self.active;
        let generation = self.segments[self.active].generation() + 1;
        self.segments[other].begin(generation, snapshot)?;
        self.active = other;
        self.other_is_clean = false;
        let (root, dirty) = (root.to_owned(), std::mem::take(&mut self.dirty));
        let cleaner = std::thread::Builder::new().name("log-cleaner".into());
        self.cleaner = cleaner.spawn(move || files::sync(&root, &dirty)).ok();
        self.lost_track = self.cleaner.is_none();
        Ok(())
    }
}

/// All files of the log: what has to be durable when nobody knows what is.
fn everything(root: &Path) -> BTreeSet<PathBuf> {
    fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !hidden => walk(&entry.path(), found),
                Ok(kind) if kind.is_file() && !hidden => drop(found.insert(entry.path())),
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, &mut found);
    found
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(cleaner) = self.cleaner.take() {
            let _ = cleaner.join();
        }
    }
}

/// A journal file at its full length. The zeros are written, not only reserved: then no later write changes what the file
/// system knows of the file, and `fdatasync` has data to write and nothing else.
fn open_segment(path: &Path) -> io::Result<Segment> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    if length < SEGMENT {
        file.seek(io::SeekFrom::Start(length))?;
        let zeros = vec![0; 1 << 20];
        let mut left = SEGMENT - length;
        while left > 0 {
            let piece = left.min(zeros.len() as u64);
            file.write_all(&zeros[..piece as usize])?;
            left -= piece;
        }
        file.sync_all()?;
    }
    file.rewind()?;
    Ok(Segment::new(file))
}

fn sync_folders(root: &Path, state: &Path) -> io::Result<()> {
    File::open(state)?.sync_all()?;
    File::open(root)?.sync_all()?;
    match root.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Locks a file and writes this process's number into it. The inner error is what is in it.
pub(super) fn lock(path: &Path) -> io::Result<std::result::Result<File, String>> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.take(20).read_to_string(&mut pid);
            return Ok(Err(pid.trim().to_owned()));
        }
        Err(e) => return Err(e.into()),
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(Ok(file))
}
