//! What proves that a log is not what it was: kept in a folder that can be given to others.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use signer_core::Result;
use signer_log_engine::{Hash, NoteKey, Objects, now_millis};

use crate::{clock, decode::sha256};

/// Why a log cannot be believed any more.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// A sentence.
    pub(super) reason: String,
    /// The checkpoint that was proven before, as it is signed.
    pub(super) before: Option<Vec<u8>>,
    /// What the log gives now.
    pub(super) after: Vec<u8>,
    /// The consistency proof that the log's tiles give, if one was made.
    pub(super) proof: Option<Vec<Hash>>,
    /// The root that the log has now for the size of the checkpoint before.
    pub(super) prefix_root: Option<Hash>,
    /// The objects of the log that were read for it.
    pub(super) objects: BTreeMap<String, Vec<u8>>,
}

impl Broken {
    /// The same for the same pair of checkpoints, whenever it is seen.
    pub(super) fn identity(&self) -> Hash {
        let text = |note: &[u8]| note.split(|b| *b == b'\n').take(3).collect::<Vec<_>>().join(&b'\n');
        let before = self.before.as_deref().map(text).unwrap_or_default();
        sha256(&[&before[..], b"\0", &text(&self.after), b"\0", self.reason.as_bytes()].concat())
    }

    /// What a report says beside the sentence.
    pub(super) fn details(&self, folder: Option<&Path>) -> Value {
        let note = |note: &[u8]| String::from_utf8_lossy(note).into_owned();
        json!({
            "before": self.before.as_deref().map(note), "after": note(&self.after),
            "consistency_proof": self.proof.as_ref().map(|p| p.iter().map(hex::encode).collect::<Vec<_>>()),
            "root_now_of_the_size_before": self.prefix_root.map(hex::encode),
            "evidence": folder.map(|f| f.display().to_string()),
        })
    }

    /// Keeps everything in a folder below `root`, durably; the folder's name tells the time. The same is kept once.
    pub(super) fn keep(&self, root: &Path, key: &NoteKey) -> io::Result<PathBuf> {
        fs::create_dir_all(root)?;
        let id = hex::encode(&self.identity()[..6]);
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(&format!("-{id}")) {
                return Ok(entry.path());
            }
        }
        let time: String =
            clock::rfc3339(now_millis()).chars().filter(|c| !matches!(c, '-' | ':')).take(15).collect();
        let folder = root.join(format!("{time}Z-{id}"));
        let unfinished = root.join(format!(".{id}.new"));
        let _ = fs::remove_dir_all(&unfinished);
        let mut what = self.details(None);
        if let Some(what) = what.as_object_mut() {
            what.remove("evidence");
            what.insert("reason".into(), self.reason.clone().into());
            what.insert("log".into(), key.name().into());
            what.insert("seen".into(), clock::rfc3339(now_millis()).into());
        }
        let mut folders = vec![unfinished.clone()];
        let mut write = |name: &str, bytes: &[u8]| -> io::Result<()> {
            let path = unfinished.join(name);
            let parent = path.parent().unwrap_or(&unfinished).to_owned();
            fs::create_dir_all(&parent)?;
            folders.extend(parent.ancestors().take_while(|f| f.starts_with(&unfinished)).map(Path::to_owned));
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        if let Some(before) = &self.before {
            write("checkpoint.before", before)?;
        }
        write("checkpoint.after", &self.after)?;
        write("public-key.pem", key.public_key().to_pem().as_bytes())?;
        write("evidence.json", format!("{what:#}\n").as_bytes())?;
        write("README", readme(&self.reason, key.name()).as_bytes())?;
        for (name, bytes) in self.objects.iter().filter(|(name, _)| plain(name)) {
            write(&format!("log/{name}"), bytes)?;
        }
        folders.sort();
        folders.dedup();
        for folder in folders.iter().rev() {
            File::open(folder)?.sync_all()?;
        }
        fs::rename(&unfinished, &folder)?;
        File::open(root)?.sync_all()?;
        Ok(folder)
    }
}

/// Whether a name cannot lead out of the folder.
fn plain(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

fn readme(reason: &str, origin: &str) -> String {
    format!(
        "The transparency log {origin} is not consistent: {reason}.\n\n\
         checkpoint.before  the checkpoint that the monitor had verified and proven before\n\
         checkpoint.after   the checkpoint that the log gave afterwards\n\
         public-key.pem     the log's key, which has signed both\n\
         evidence.json      the reason, the consistency proof from the log's tiles, and the root that the log has now for the\n                   \
         size of the checkpoint before\n\
         log/               what the log gave when it was asked for the proof\n\n\
         Both checkpoints are signed by the log. It cannot take them back: either it shows a consistency proof between them\n\
         (RFC 6962 section 2.1.2), or it has shown different histories. Show this folder to those who rely on the log.\n"
    )
}

/// A log, and what was read of it since the last [`Recorder::take`].
pub(super) struct Recorder<'a> {
    objects: &'a dyn Objects,
    read: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(objects: &'a dyn Objects) -> Self {
        Self { objects, read: Mutex::default() }
    }

    /// What was read.
    pub(super) fn take(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Objects for Recorder<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = self.objects.read(name)?;
        if let Some(bytes) = &bytes {
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes.clone());
        }
        Ok(bytes)
    }
}
