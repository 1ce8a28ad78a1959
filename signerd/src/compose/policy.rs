//! A caller's grants around a key.

use std::sync::{Arc, OnceLock};

use signer_core::{
    BoxFuture, Event, Input, KeyInfo, Result, SignRequest, Signature, SignatureAlgorithm, Signer,
    TouchListener, TouchPolicy, TouchPrompt,
};

use crate::{
    audit::{self, Audit, KeyOf},
    call::Call,
    events::What,
    grants::{AlgorithmSet, Operations, denied},
    identity::Identity,
    keys::{Entry, Permissions},
    place::Place,
};

/// A key as one caller may use it.
pub(crate) struct Policed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) caller: Arc<Identity>,
    pub(crate) allowed: AlgorithmSet,
    pub(crate) permissions: Permissions,
    pub(crate) audit: Option<Arc<Audit>>,
    /// What the caller says the call is for.
    pub(crate) label: Option<String>,
}

impl Policed {
    /// The same for a call that says what it is for.
    pub(crate) fn labelled(self, call: &Call) -> Self {
        Self { label: call.label(), ..self }
    }

    /// What the caller is told who asks for more than is granted.
    pub(crate) async fn deny(&self, algorithm: Option<SignatureAlgorithm>) -> signer_core::Error {
        let place = self.entry.place();
        place.metrics.denied(place.name(), Operations::SIGN);
        if let Some(audit) = &self.audit {
            audit.denied(self.event().with_algorithm(algorithm));
        }
        denied(&self.caller.describe().await, Operations::SIGN, self.entry.asked(), algorithm)
    }

    /// A signature to be recorded.
    pub(crate) fn event(&self) -> audit::Event {
        audit::Event::of_caller(&self.caller, Operations::SIGN, KeyOf::Opened(self.entry.clone()))
    }

    /// Signs, and gives the signature out when it is recorded.
    async fn sign_recorded(&self, audit: &Arc<Audit>, request: SignRequest) -> Result<Signature> {
        let algorithm = request.algorithm();
        let grant = self.permissions.iter().find(|p| p.algorithms.contains(algorithm)).map(|p| &p.place);
        let (event, request) = self.event().by_grant(grant).of_request(request).await?;
        audit.around(event, self.forward(request)).await
    }

    fn forward(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        if self.info().policy.touch.is_some_and(|touch| touch != TouchPolicy::Never) {
            return Box::pin(self.sign_touched(request));
        }
        self.entry.signer().sign(request)
    }

    /// Signs with a key whose device may wait for a finger: tells the watchers who asks, and for what.
    async fn sign_touched(&self, request: SignRequest) -> Result<Signature> {
        let caller = self.caller.describe().await;
        let purpose = purpose(&request);
        let told = Arc::new(OnceLock::new());
        let listener = {
            let (entry, told, label) = (self.entry.clone(), told.clone(), self.label.clone());
            let about = self.caller.clone();
            TouchListener::new(move |prompt| {
                let (place, key) = entry.touched(&prompt.key);
                let event = Event::TouchRequired {
                    prompt: TouchPrompt { key: key.clone(), ..prompt.clone() },
                    caller: caller.clone(),
                    purpose: purpose.clone(),
                    label: label.clone(),
                };
                place.tell_about(What::Backend(event), vec![about.clone()]);
                let _ = told.set((place, key));
            })
        };
        // Also when the caller goes away.
        let _ended = Ended { told, caller: self.caller.clone() };
        self.entry.signer().sign(request.on_touch(listener)).await
    }
}

/// What is to be signed, in words.
fn purpose(request: &SignRequest) -> String {
    let algorithm = request.algorithm();
    match request.input() {
        Input::Digest(digest) => format!("{algorithm} of the digest {digest:?}"),
        Input::Message(message) => format!("{algorithm} of a message of {} bytes", message.len()),
    }
}

/// Tells the watchers that nobody need touch the device any more.
struct Ended {
    told: Arc<OnceLock<(Arc<Place>, String)>>,
    caller: Arc<Identity>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some((place, key)) = self.told.get() {
            let event = Event::TouchEnded { key: key.clone() };
            place.tell_about(What::Backend(event), vec![self.caller.clone()]);
        }
    }
}

impl Signer for Policed {
    fn info(&self) -> &KeyInfo {
        self.entry.signer().info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        let algorithm = request.algorithm();
        if !self.allowed.contains(algorithm) {
            return Box::pin(async move { Err(self.deny(Some(algorithm)).await) });
        }
        if let Err(error) = self.info().check(algorithm) {
            return Box::pin(std::future::ready(Err(error)));
        }
        match &self.audit {
            Some(audit) => Box::pin(self.sign_recorded(audit, request)),
            None => self.forward(request),
        }
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.entry.signer().health()
    }
}
