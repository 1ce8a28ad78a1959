//! The one key whose use is not recorded: it signs the log's checkpoints, and nothing else for anybody.

use std::sync::{Arc, OnceLock, Weak};

use signer_core::{
    BackendName, BoxFuture, Error, ErrorKind, KeyInfo, KeyName, PublicKey, Result, SignRequest, Signature,
    Signer, TouchPolicy,
};
use signer_log_engine::{NoteKey, OpenKey};

use crate::{
    config::AuditKeyRef,
    keys::Entry,
    place::Place,
    state::{Daemon, State},
};

/// The log's own key.
#[derive(Clone)]
pub(crate) struct OwnKey {
    reference: AuditKeyRef,
    daemon: Arc<OnceLock<Weak<Daemon>>>,
    /// Known once it was opened.
    public_key: Arc<OnceLock<PublicKey>>,
}

impl OwnKey {
    pub(super) fn new(reference: AuditKeyRef, daemon: Arc<OnceLock<Weak<Daemon>>>) -> Self {
        Self { reference, daemon, public_key: Arc::default() }
    }

    pub(super) fn belongs_to(&self, daemon: &Arc<Daemon>) {
        let _ = self.daemon.set(Arc::downgrade(daemon));
    }

    /// Whether the log has found its key.
    pub(crate) fn is_known(&self) -> bool {
        self.public_key.get().is_some()
    }

    /// Whether this is its configured name.
    pub(crate) fn is_called(&self, backend: &BackendName, key: &KeyName) -> bool {
        self.reference.backend == *backend
            && self.reference.key.clone().without_version() == key.clone().without_version()
    }

    /// Refuses to do with the log's key whatever would be done, by whatever name it was asked for.
    pub(crate) async fn spare(&self, state: &State, entry: &Entry) -> Result<()> {
        let Some(group) = entry.group() else {
            return self.spare_opened(state, entry.place(), entry.asked(), entry.info()).await;
        };
        if !self.is_known() {
            let named = self.reference.to_string();
            if group.standings().iter().any(|(member, _)| *member == named) {
                self.open(state).await?;
            }
        }
        // Of several places any may be the device that the log's key is in.
        let place = group.place_of(self.reference.backend.as_str()).unwrap_or(entry.place());
        self.spare_opened(state, place, entry.asked(), entry.info()).await
    }

    /// The same for a key that is not in the table.
    pub(crate) async fn spare_opened(
        &self,
        state: &State,
        place: &Place,
        asked: &str,
        info: &KeyInfo,
    ) -> Result<()> {
        if !self.is_known() {
            // A moment after the start. No key of another device can be the one.
            if place.name() != &self.reference.backend {
                return Ok(());
            }
            if let Err(error) = self.open(state).await {
                return if self.is_called(place.name(), &info.name) { Err(error) } else { Ok(()) };
            }
        }
        match self.public_key.get() {
            Some(known) if *known == info.public_key => Err(Self::spared(asked)),
            _ => Ok(()),
        }
    }

    /// What somebody is told who asks for it.
    pub(crate) fn spared(asked: &str) -> Error {
        Error::new(
            ErrorKind::Denied,
            format!(
                "{asked} is the key of the audit log: it signs checkpoints, and nothing else for anybody"
            ),
        )
        .key(asked)
        .next("use another key; `signer keys show` gives the public half of this one")
    }

    async fn open(&self, state: &State) -> Result<Arc<Entry>> {
        let name = self.reference.to_string();
        let entry = state.own_key(&name).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no key {name}"))
                .key(&name)
                .next(format!("make it: signer keys create {name} --type ed25519")),
            _ => e,
        })?;
        let info = entry.info();
        if info.policy.touch.is_some_and(|touch| touch != TouchPolicy::Never) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{name} wants a touch for each signature, and checkpoints are signed at any time"),
            )
            .key(&name)
            .next("give [audit] a key without a touch policy"));
        }
        // The name of the log does not matter here, only whether such a key can sign.
        let algorithm = NoteKey::of_log("audit", info.public_key.clone())?.algorithm();
        info.check(algorithm)?;
        if self.public_key.get_or_init(|| info.public_key.clone()) != &info.public_key {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("{name} is another key now than the one that signed the log so far"),
            )
            .key(&name)
            .next("bring the old one back, or begin another log in another folder"));
        }
        Ok(entry)
    }

    /// Opens the key for the log, when its device is there.
    pub(super) fn opener(&self) -> OpenKey {
        let this = self.clone();
        Box::new(move || {
            let this = this.clone();
            Box::pin(async move {
                let state = this.state()?;
                let entry = this.open(&state).await?;
                let info = entry.info().clone();
                Ok(Arc::new(CheckpointKey { own: this, info }) as Arc<dyn Signer>)
            })
        })
    }

    fn state(&self) -> Result<Arc<State>> {
        let daemon = self.daemon.get().and_then(Weak::upgrade);
        Ok(daemon.ok_or_else(|| Error::new(ErrorKind::DeviceGone, "the daemon is being started"))?.state())
    }
}

/// The key as the log signs with it: opened again when its device was away.
struct CheckpointKey {
    own: OwnKey,
    info: KeyInfo,
}

impl Signer for CheckpointKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move {
            let state = self.own.state()?;
            let entry = self.own.open(&state).await?;
            let result = entry.signer().sign(request).await;
            result.map_err(|e| e.key(&self.own.reference).device(entry.place().name()))
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let state = self.own.state()?;
            self.own.open(&state).await?.signer().health().await
        })
    }
}
