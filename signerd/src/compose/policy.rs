//! A caller's grants around a key.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use signer_core::{
    BoxFuture, Event, Input, KeyInfo, Result, SignRequest, Signature, SignatureAlgorithm, Signer,
    TouchListener, TouchPolicy,
};

use crate::{
    call::Call,
    events::What,
    grants::{AlgorithmSet, Operations, denied},
    identity::Identity,
    keys::Entry,
    place::Place,
};

/// A key as one caller may use it.
pub(crate) struct Policed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) caller: Arc<Identity>,
    pub(crate) allowed: AlgorithmSet,
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
        denied(&self.caller.describe().await, Operations::SIGN, self.entry.asked(), algorithm)
    }

    /// Signs with a key whose device may wait for a finger: tells the watchers who asks, and for what.
    async fn sign_touched(&self, request: SignRequest) -> Result<Signature> {
        let caller = self.caller.describe().await;
        let purpose = purpose(&request);
        let place = self.entry.place().clone();
        let told = Arc::new(AtomicBool::new(false));
        let listener = {
            let (place, told, label) = (place.clone(), told.clone(), self.label.clone());
            let about = self.caller.clone();
            TouchListener::new(move |prompt| {
                told.store(true, Relaxed);
                let event = Event::TouchRequired {
                    prompt: prompt.clone(),
                    caller: caller.clone(),
                    purpose: purpose.clone(),
                    label: label.clone(),
                };
                place.tell_about(What::Backend(event), vec![about.clone()]);
            })
        };
        // Also when the caller goes away.
        let (key, caller) = (self.info().name.to_string(), self.caller.clone());
        let _ended = Ended { place, told, key, caller };
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
    place: Arc<Place>,
    told: Arc<AtomicBool>,
    key: String,
    caller: Arc<Identity>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.told.load(Relaxed) {
            let event = Event::TouchEnded { key: std::mem::take(&mut self.key) };
            self.place.tell_about(What::Backend(event), vec![self.caller.clone()]);
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
        if self.info().policy.touch.is_some_and(|touch| touch != TouchPolicy::Never) {
            return Box::pin(self.sign_touched(request));
        }
        self.entry.signer().sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.entry.signer().health()
    }
}
