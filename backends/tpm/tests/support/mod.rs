//! What the tests share: a backend in this process over a real swtpm, with PINs that are counted.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // tests; each uses a part

use std::sync::{Arc, Mutex};

use hwtests::engines::{Engine, SwTpm};
use signer_core::{
    Backend, BoxFuture, Error, ErrorKind, GenerateRequest, HashAlgorithm, KeyInfo, KeyName, KeyPolicy,
    KeySelector, KeyType, ListRequest, Pin, PinLease, PinOutcome, PinPolicy, PinPrompt, PinSource, Result,
    SignRequest, Signature, SignatureAlgorithm, Signer, UnlockRequest,
};
use signer_tpm::{TpmBackend, TpmConfig};

pub const ECDSA: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A backend in this process, with the engine's PIN.
pub fn backend(tpm: &SwTpm) -> TpmBackend {
    backend_with(tpm, &TestPins::new(&tpm.pin()))
}

pub fn backend_with(tpm: &SwTpm, pins: &Arc<TestPins>) -> TpmBackend {
    let config = TpmConfig::from_json(tpm.options()).unwrap();
    TpmBackend::new(config, "tpm", pins.clone()).unwrap()
}

/// Runs a future of the backend, which blocks.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

pub fn name(text: &str) -> KeyName {
    KeyName::label(text).unwrap()
}

pub fn selector(text: &str) -> KeySelector {
    KeySelector::Name(name(text))
}

pub fn policy(pin: PinPolicy) -> KeyPolicy {
    KeyPolicy { pin: Some(pin), ..KeyPolicy::default() }
}

pub fn generate(backend: &TpmBackend, label: &str, key_type: KeyType, policy: KeyPolicy) -> Result<KeyInfo> {
    let request = GenerateRequest { policy, ..GenerateRequest::new(name(label), key_type) };
    now(backend.generate().unwrap().generate(request))
}

pub fn open(backend: &TpmBackend, label: &str) -> Result<Arc<dyn Signer>> {
    now(backend.open(&selector(label)))
}

pub fn delete(backend: &TpmBackend, label: &str) -> Result<()> {
    now(backend.delete().unwrap().delete(&selector(label)))
}

pub fn names(backend: &TpmBackend) -> Vec<String> {
    let page = now(backend.list(ListRequest::default())).unwrap();
    page.keys.iter().map(|k| k.name.to_string()).collect()
}

pub fn unlock(backend: &TpmBackend, pin: &str, use_last_try: bool) -> Result<()> {
    let pin = Pin::new(pin.into()).unwrap();
    now(backend.unlock().unwrap().unlock(UnlockRequest { pin, use_last_try }))
}

/// Signs and verifies.
pub fn sign(signer: &dyn Signer, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Signature> {
    let request = SignRequest::message(algorithm, message.to_vec());
    let input = request.input().clone();
    let signature = now(signer.sign(request))?;
    signer.info().public_key.verify(algorithm, &input, signature.as_bytes()).unwrap();
    Ok(signature)
}

/// A PIN source that lends like the daemon does, and counts.
#[derive(Clone, Default)]
pub struct TestPins(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pin: Option<String>,
    use_last_try: bool,
    refused: Option<String>,
    seen: Vec<(PinPrompt, PinOutcome)>,
}

impl TestPins {
    pub fn new(pin: &str) -> Arc<Self> {
        let this = Self::default();
        this.set(pin, false);
        Arc::new(this)
    }

    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    pub fn set(&self, pin: &str, use_last_try: bool) {
        let mut state = self.0.lock().unwrap();
        state.pin = Some(pin.to_owned());
        state.use_last_try = use_last_try;
        state.refused = None;
    }

    /// Each lease and how it ended.
    pub fn seen(&self) -> Vec<(PinPrompt, PinOutcome)> {
        self.0.lock().unwrap().seen.clone()
    }

    /// How many leases were refused by the TPM.
    pub fn refused(&self) -> usize {
        self.seen().iter().filter(|(_, outcome)| matches!(outcome, PinOutcome::Refused(_))).count()
    }
}

struct Lent {
    pin: Pin,
    use_last_try: bool,
    prompt: PinPrompt,
    source: TestPins,
}

impl PinSource for TestPins {
    fn lease<'a>(&'a self, prompt: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            let Some(pin) = state.pin.clone() else {
                return Err(Error::new(ErrorKind::PinRequired, "the device needs its PIN"));
            };
            if state.refused.as_ref() == Some(&pin) {
                return Err(Error::new(
                    ErrorKind::Locked,
                    "the PIN was refused before and is not tried again",
                ));
            }
            let use_last_try = std::mem::take(&mut state.use_last_try);
            let lent =
                Lent { pin: Pin::new(pin)?, use_last_try, prompt: prompt.clone(), source: self.clone() };
            Ok(Box::new(lent) as Box<dyn PinLease>)
        })
    }
}

impl PinLease for Lent {
    fn pin(&self) -> &Pin {
        &self.pin
    }

    fn may_use_last_try(&self) -> bool {
        self.use_last_try
    }

    fn report(self: Box<Self>, outcome: PinOutcome) {
        let mut state = self.source.0.lock().unwrap();
        if let PinOutcome::Refused(_) = outcome {
            state.refused = Some(self.pin.expose().to_owned());
        }
        state.seen.push((self.prompt, outcome));
    }
}
