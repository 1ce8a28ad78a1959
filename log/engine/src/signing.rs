//! The code that signs checkpoints, and refuses one that does not extend the last.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use signer_core::{Error, ErrorKind, Input, Result, SignRequest, Signer};

use crate::{
    checkpoint::Checkpoint,
    note::{NoteKey, NoteKind},
    tree::{Hash, Nodes, consistency_proof, empty_root, verify_consistency},
    witness::Witnesses,
};

/// How long the key may take for one checkpoint.
const PATIENCE: Duration = Duration::from_secs(10);

/// Signs the checkpoints of one log with one key, wherever the key is.
pub struct CheckpointSigner {
    key: NoteKey,
    signer: Arc<dyn Signer>,
    /// The last tree that was signed or found published: nothing is signed that does not extend it.
    last: (u64, Hash),
    /// The last time that was stated.
    time: u64,
    witnesses: Option<Arc<dyn Witnesses>>,
}

impl CheckpointSigner {
    /// A signer for the log called `origin`. `tree_heads` asks for the form of RFC 6962 that certificate logs use.
    pub fn new(origin: &str, signer: Arc<dyn Signer>, tree_heads: bool) -> Result<Self> {
        let public_key = signer.info().public_key.clone();
        let key = if tree_heads {
            NoteKey::new(origin, NoteKind::TreeHead, public_key)
                .map_err(|e| e.next("use an ecdsa-p256 key: RFC 6962 allows no other kind but RSA"))?
        } else {
            NoteKey::of_log(origin, public_key)?
        };
        signer.info().check(key.algorithm())?;
        Ok(Self { key, signer, last: (0, empty_root()), time: 0, witnesses: None })
    }

    /// Lets others cosign what is signed, before it is published.
    #[must_use]
    pub fn witnessed(mut self, witnesses: Arc<dyn Witnesses>) -> Self {
        self.witnesses = Some(witnesses);
        self
    }

    /// The key that verifies what is signed here.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The key itself.
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// The size of the last tree that was signed or found published.
    pub fn size(&self) -> u64 {
        self.last.0
    }

    /// Takes over a checkpoint that was published, if it is one and extends the last one that was signed or taken over. From
    /// now on it is only extended. The nodes are those of its tree.
    pub(crate) fn resume(&mut self, checkpoint: &Checkpoint, nodes: &impl Nodes) -> Result<()> {
        if checkpoint.size < self.last.0 {
            return Err(Error::new(
                ErrorKind::DeviceGone,
                format!(
                    "the checkpoint of {} entries that was read is older than the one of {} that was seen before",
                    checkpoint.size, self.last.0
                ),
            )
            .next("the storage gives old answers, or somebody has put an old checkpoint back"));
        }
        let proof = consistency_proof(self.last.0, checkpoint.size, nodes)?;
        verify_consistency((self.last.0, &self.last.1), (checkpoint.size, &checkpoint.root), &proof).map_err(
            |e| {
                Error::new(
                    ErrorKind::Denied,
                    format!(
                        "the published checkpoint of {} entries does not extend the one of {}: the log has forked",
                        checkpoint.size, self.last.0
                    ),
                )
                .vendor(e.what())
                .next("stop all servers of this log, run `signer-log check`, and restore it from a mirror")
            },
        )?;
        self.last = (checkpoint.size, checkpoint.root);
        Ok(())
    }

    /// Adds the cosignatures of the witnesses to what was signed. Fails when too few have signed.
    pub(crate) async fn cosigned(
        &self,
        note: String,
        size: u64,
        nodes: &(impl Nodes + Sync),
    ) -> Result<String> {
        let Some(witnesses) = &self.witnesses else { return Ok(note) };
        let prove = |old: u64| consistency_proof(old, size, nodes);
        let lines = witnesses.cosign(&note, size, &prove).await?;
        Ok(lines.into_iter().fold(note, |note, line| note + &line))
    }

    /// Signs a checkpoint. `proof` shows that its tree extends the last one; without that the key is not asked.
    pub async fn sign(
        &mut self,
        size: u64,
        root: Hash,
        extensions: Vec<String>,
        proof: &[Hash],
    ) -> Result<String> {
        verify_consistency((self.last.0, &self.last.1), (size, &root), proof).map_err(|e| {
            Error::new(
                ErrorKind::Denied,
                format!(
                    "a checkpoint of {size} entries that does not extend the last one of {} is not signed",
                    self.last.0
                ),
            )
            .vendor(e.what())
            .next("the log would fork: run `signer-log check`, and restore it from a mirror or a backup")
        })?;
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root, extensions };
        let text = checkpoint.to_text();
        // A clock that goes back must not make a tree head older than the one before.
        let time = now_millis().max(self.time);
        let message = self.key.message(&text, time)?;
        let algorithm = self.key.algorithm();
        let request =
            SignRequest::message(algorithm, message.clone()).deadline(Some(Instant::now() + PATIENCE));
        let signature = self.signer.sign(request).await?;
        // From here on a signature exists, published or not.
        self.last = (size, root);
        self.time = time;
        // A device that makes a wrong one must not end the log: nobody could verify it, the next start included.
        self.key
            .public_key()
            .verify(algorithm, &Input::Message(message.into()), signature.as_bytes())
            .map_err(|e| {
                Error::internal("the key made a checkpoint signature that does not verify").vendor(e.what())
            })?;
        Ok(format!("{text}\n{}", self.key.line(time, signature.as_bytes())))
    }
}

/// Milliseconds since 1970.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
