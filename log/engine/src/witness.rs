//! Witnesses (C2SP `tlog-witness`): others who state that they have seen a checkpoint, and that it extends all they have seen
//! of this log before. Both sides: whom a log asks, and one who is asked.

use std::{fmt, sync::Arc};

use signer_core::{BoxFuture, Error, ErrorKind, Input, Result, SignRequest, Signer};
use tokio::sync::Mutex;

use crate::{
    checkpoint::Checkpoint,
    note::{Note, NoteKey, NoteKind},
    signing::now_millis,
    storage::Mirror,
    tree::{Hash, empty_root, verify_consistency},
};

/// Gives the consistency proof from a tree of so many entries to the one that is to be cosigned.
pub type Prove<'a> = &'a (dyn Fn(u64) -> Result<Vec<Hash>> + Sync);

/// Whom a log asks for cosignatures before it publishes a checkpoint.
pub trait Witnesses: Send + Sync {
    /// Collects cosignatures of a signed checkpoint of `size` entries, as signature lines, ends of lines and all. An error means
    /// that too few have signed: then the checkpoint is not published, and asked for again.
    fn cosign<'a>(&'a self, note: &'a str, size: u64, prove: Prove<'a>)
    -> BoxFuture<'a, Result<Vec<String>>>;
}

/// Why a witness does not cosign: the cases that `tlog-witness` tells apart.
#[derive(Debug)]
pub enum Refused {
    /// The request makes no sense.
    Malformed(Error),
    /// Another log.
    Unknown,
    /// Not signed by the log.
    Unsigned(Error),
    /// What was cosigned last has another size than the request says, or the same size and another root.
    Conflict(u64),
    /// The proof does not show that the tree extends the last one.
    Unproven(Error),
    /// The witness itself cannot, at the moment.
    Failed(Error),
}

/// A witness of one log, beside a copy of it.
pub struct Witness {
    copy: Arc<Mirror>,
    key: NoteKey,
    signer: Arc<dyn Signer>,
    /// Held from the comparison with the last checkpoint until the new one is durable: nothing can come between.
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    size: u64,
    root: Hash,
    /// As the log signed it.
    note: Option<String>,
    /// With the cosignature, when it was made since the start.
    cosigned: Option<String>,
    /// The time of the last cosignature: a clock that goes back is not followed.
    time: u64,
}

impl Witness {
    /// A witness called `name`, with the state that it left beside the copy.
    pub fn open(copy: Arc<Mirror>, name: &str, signer: Arc<dyn Signer>) -> Result<Arc<Self>> {
        let key = NoteKey::new(name, NoteKind::Cosignature, signer.info().public_key.clone())
            .map_err(|e| e.next("a witness signs with an ed25519 key"))?;
        signer.info().check(key.algorithm())?;
        let mut last = Last { size: 0, root: empty_root(), note: None, cosigned: None, time: 0 };
        if let Some(note) = copy.cosigned()? {
            let checkpoint = Checkpoint::verified(&note, copy.key()).map_err(|e| {
                Error::new(e.kind(), "the checkpoint that was cosigned last is not by this log's key")
                    .vendor(e.what())
                    .next("give the right --public-key; without that state a witness cannot go on: it could cosign a fork")
            })?;
            last = Last {
                size: checkpoint.size,
                root: checkpoint.root,
                note: String::from_utf8(note).ok(),
                ..last
            };
        }
        Ok(Arc::new(Self { copy, key, signer, last: Mutex::new(last) }))
    }

    /// The key that verifies what it signs.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        self.copy.key().name()
    }

    /// `add-checkpoint`: a checkpoint that extends the one of `old` entries which was cosigned last, by this proof. Gives the
    /// signature line.
    pub async fn add(&self, old: u64, proof: &[Hash], note: &[u8]) -> std::result::Result<String, Refused> {
        let parsed = Note::parse(note).map_err(Refused::Malformed)?;
        let origin = parsed.text().split('\n').next().unwrap_or_default();
        if origin != self.origin() {
            return Err(Refused::Unknown);
        }
        parsed.verify(self.copy.key()).map_err(Refused::Unsigned)?;
        // What the log has signed, without the cosignatures of others.
        let own = parsed.lines_by(self.copy.key()).map_err(Refused::Unsigned)?;
        let kept = format!("{}\n{own}", parsed.text());
        let checkpoint = Checkpoint::from_text(parsed.text()).map_err(Refused::Malformed)?;
        if old > checkpoint.size {
            return Err(Refused::Malformed(Error::bad_request(format!(
                "the old size {old} is beyond the checkpoint of {} entries",
                checkpoint.size
            ))));
        }
        let mut last = self.last.lock().await;
        if old != last.size {
            return Err(Refused::Conflict(last.size));
        }
        if checkpoint.size == last.size && checkpoint.root != last.root {
            let before = last.note.as_deref().map(str::as_bytes);
            let what = format!("the log has signed two trees of {} entries", checkpoint.size);
            tracing::error!("{}", self.copy.evidence(before, note, &what));
            return Err(Refused::Conflict(last.size));
        }
        let (from, to) = ((last.size, &last.root), (checkpoint.size, &checkpoint.root));
        verify_consistency(from, to, proof).map_err(Refused::Unproven)?;
        // Durable before the cosignature exists: no crash makes a witness forget what it has signed.
        if last.note.is_none() || checkpoint.size != last.size {
            self.copy.remember(kept.as_bytes()).map_err(Refused::Failed)?;
        }
        (last.size, last.root) = (checkpoint.size, checkpoint.root);
        last.note = Some(kept);
        last.cosigned = None;
        self.sign(&mut last, parsed.text()).await.map_err(Refused::Failed)
    }

    async fn sign(&self, last: &mut Last, text: &str) -> Result<String> {
        let time = (now_millis() / 1000).max(last.time);
        let message = self.key.message(text, time)?;
        let request = SignRequest::message(self.key.algorithm(), message.clone());
        let signature = self.signer.sign(request).await?;
        let verified = self.key.public_key().verify(
            self.key.algorithm(),
            &Input::Message(message.into()),
            signature.as_bytes(),
        );
        verified.map_err(|e| {
            Error::internal("the key made a cosignature that does not verify").vendor(e.what())
        })?;
        let line = self.key.line(time, signature.as_bytes());
        last.time = time;
        last.cosigned = last.note.as_ref().map(|note| format!("{note}{line}"));
        Ok(line)
    }

    /// The checkpoint that was cosigned last, with the cosignature.
    pub async fn latest(&self) -> Result<Option<String>> {
        let mut last = self.last.lock().await;
        if last.cosigned.is_none()
            && let Some(note) = last.note.clone()
        {
            let parsed = Note::parse(note.as_bytes())?;
            self.sign(&mut last, parsed.text()).await?;
        }
        Ok(last.cosigned.clone())
    }

    /// Compares what was cosigned with what the copy has from the log's readers' side. `Denied`, with evidence, when the log
    /// shows another tree to its readers. Blocks.
    pub fn compare(&self) -> Result<()> {
        let (size, root, note) = {
            let last = self.last.blocking_lock();
            (last.size, last.root, last.note.clone())
        };
        let Some(copied) = self.copy.checkpoint()? else { return Ok(()) };
        if size > copied.size || self.copy.root_of(size)? == root {
            return Ok(());
        }
        let shown = self.copy.published()?.unwrap_or_default();
        let before = note.as_deref().map(str::as_bytes);
        Err(self.copy.evidence(
            before,
            &shown,
            &format!(
                "the log shows its readers another tree than the one of {size} entries that it had cosigned"
            ),
        ))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Witness({:?} of {})", self.key, self.origin())
    }
}

/// Whether an error passes by itself: for whoever asks a witness again.
impl Refused {
    /// The error behind it, if there is one.
    pub fn error(&self) -> Error {
        match self {
            Self::Malformed(e) | Self::Unsigned(e) | Self::Unproven(e) | Self::Failed(e) => e.clone(),
            Self::Unknown => Error::new(ErrorKind::NotFound, "this witness does not know the log"),
            Self::Conflict(size) => {
                Error::new(ErrorKind::Denied, format!("this witness has cosigned {size} entries of the log"))
            }
        }
    }
}
