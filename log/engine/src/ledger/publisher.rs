//! The thread that signs for what is durable: steps 2 to 4 of [`crate::storage`], in its own time.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use signer_core::{Error, Result};
use tokio::runtime::Handle;

use super::{OpenKey, Shared, lock, overtaken};
use crate::{
    checkpoint::Checkpoint,
    frontier::{Growth, View},
    log::Published,
    sequencer::{is_hopeless, sign_and_publish},
    signing::CheckpointSigner,
    tree::Edge,
};

/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    shared: Arc<Shared>,
    open_key: OpenKey,
    runtime: Handle,
    signer: Option<CheckpointSigner>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, open_key: OpenKey, runtime: Handle) -> Self {
        Self { shared, open_key, runtime, signer: None }
    }

    pub(super) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut not_before = Instant::now();
        loop {
            let closing = self.wait(not_before);
            let (signed, durable) = {
                let condition = lock(&self.shared.condition);
                (condition.signed, self.shared.durable.load(Ordering::Acquire))
            };
            let nothing_to_do = signed == Some(durable) || (signed.is_none() && durable == 0);
            if self.shared.give_up.load(Ordering::Relaxed) || (closing && nothing_to_do) {
                return;
            }
            if nothing_to_do {
                continue;
            }
            let began = Instant::now();
            let result = self.publish();
            let hopeless = matches!(&result, Err(e) if is_hopeless(e));
            match result {
                Ok(published) => {
                    self.published(published, began);
                    pause = FIRST_PAUSE;
                    not_before = began + *lock(&self.shared.publish_every);
                }
                Err(error) => {
                    self.failed(error);
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if hopeless {
                return;
            }
        }
    }

    /// Waits until there may be something to sign, and not before a moment; `true` when the ledger is being closed.
    fn wait(&self, not_before: Instant) -> bool {
        let (bell, rings) = &self.shared.bell;
        let mut closing = lock(bell);
        loop {
            let now = Instant::now();
            // At the end nobody waits for the time of the next checkpoint, only for the next try.
            let wait = not_before.saturating_duration_since(now);
            let wait = if *closing { wait.min(LONGEST_PAUSE / 20) } else { wait };
            if !wait.is_zero() {
                closing = rings.wait_timeout(closing, wait).unwrap_or_else(PoisonError::into_inner).0;
                if *closing || not_before <= Instant::now() {
                    return *closing;
                }
                continue;
            }
            if *closing || lock(&self.shared.condition).unsigned_since.is_some() {
                return *closing;
            }
            closing = rings.wait(closing).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn publish(&mut self) -> Result<Published> {
        // 2. Whatever becomes of the key, tiles do not stay in memory.
        let frontier = self.shared.write_tiles()?;
        let (storage, none) = (&*self.shared.storage, Growth::default());
        let view = View { frontier: &frontier, growth: &none, storage };
        let signer = match &mut self.signer {
            Some(signer) => signer,
            none => {
                let key = self.runtime.block_on((self.open_key)())?;
                let mut signer = CheckpointSigner::new(&self.shared.origin, key, false)?;
                if let Some(published) = &*self.shared.published.borrow() {
                    let checkpoint = Checkpoint::verified(published.note.as_bytes(), signer.key());
                    let checkpoint = checkpoint.map_err(|e| {
                        Error::new(e.kind(), "the log's checkpoint is not by this log's key")
                            .vendor(e.what())
                            .next("give the log the key that it was made with, or another folder")
                    })?;
                    signer.resume(&checkpoint, &view)?;
                }
                none.insert(signer)
            }
        };
        let size = frontier.size();
        let root = Edge::new(size, &view)?.root();
        let expected = self.shared.published.borrow().as_ref().map(|p| p.note.clone());
        // 3 and 4.
        let published = sign_and_publish(storage, &view, &[], signer, (size, root), expected.as_deref());
        self.runtime.block_on(published)?.ok_or_else(overtaken)
    }

    fn published(&self, published: Published, began: Instant) {
        let size = published.checkpoint.size;
        self.shared.published.send_replace(Some(Arc::new(published)));
        let mut condition = lock(&self.shared.condition);
        condition.signed = Some(size);
        condition.publish_error = None;
        // What came meanwhile came after this round had begun.
        condition.unsigned_since = (self.shared.durable.load(Ordering::Acquire) > size).then_some(began);
    }

    fn failed(&self, error: Error) {
        let mut condition = lock(&self.shared.condition);
        if condition.publish_error.as_ref().map(Error::what) != Some(error.what()) {
            tracing::warn!("durable entries cannot be signed for yet: {error}");
        }
        condition.publish_error = Some(error);
    }
}
