//! What happened, before it has a place in the log.

use std::{borrow::Cow, sync::Arc, time::Duration};

use signer_core::{Digest, Input, PublicKey, Result, SignRequest, SignatureAlgorithm};
use signerd_api::audit::{Caller, RECORD_VERSION, Record, utc};

use super::content;
use crate::{compose::blocking, grants::Operations, identity::Identity, keys};

/// The longest text of a caller's that is recorded: names of keys, names of programs.
const LONGEST: usize = 512;

/// Messages that are longer are hashed on another thread.
const LONG: usize = 128 * 1024;

/// With fewer requests in a backend's queue each record is written at once: the device may be as fast as the disk.
const CROWD: usize = 8;
/// What a request in the queue takes at the least, by the fastest device and with all of its processes.
const QUICKEST: Duration = Duration::from_micros(20);
const LONGEST_PATIENCE: Duration = Duration::from_millis(2);

/// Something to record. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Event {
    operation: &'static str,
    pub(super) caller: Option<Arc<Identity>>,
    pub(crate) key: Option<KeyOf>,
    algorithm: Option<SignatureAlgorithm>,
    digest: Option<Digest>,
    input: Option<&'static str>,
    content: Option<Arc<str>>,
    decision: Option<&'static str>,
    grant: Option<Arc<str>>,
    outcome: Option<&'static str>,
    error: Option<&'static str>,
    pub(super) of: Option<u64>,
    suppressed: Option<u64>,
    refused: Option<u64>,
    config: Option<Arc<str>>,
    /// Whether the log may need just this to go on: a PIN, its own key.
    pub(super) helps_the_log: bool,
}

/// Which key.
#[derive(Clone)]
pub(crate) enum KeyOf {
    /// One that was opened.
    Opened(Arc<keys::Entry>),
    /// One of which this is known.
    Named { reference: Arc<str>, fingerprint: Option<Arc<str>> },
}

impl KeyOf {
    /// A key of which only the name is known.
    pub(crate) fn named(reference: impl AsRef<str>) -> Self {
        Self::Named { reference: reference.as_ref().into(), fingerprint: None }
    }

    /// A key that was made, or changed.
    pub(crate) fn known(reference: impl AsRef<str>, key: &PublicKey) -> Self {
        let fingerprint = Some(format!("{:?}", key.fingerprint()).into());
        Self::Named { reference: reference.as_ref().into(), fingerprint }
    }
}

impl Event {
    /// Somebody wants something of a key.
    pub(crate) fn of_caller(caller: &Arc<Identity>, operation: Operations, key: KeyOf) -> Self {
        Self {
            operation: operation.name(),
            caller: Some(caller.clone()),
            key: Some(key),
            decision: Some("allowed"),
            helps_the_log: operation == Operations::UNLOCK,
            ..Self::default()
        }
    }

    /// The daemon itself does something.
    pub(crate) fn of_daemon(operation: &'static str) -> Self {
        Self { operation, ..Self::default() }
    }

    /// An operation that grants have no name for.
    pub(crate) fn called(self, operation: &'static str) -> Self {
        Self { operation, ..self }
    }

    /// The configuration that holds from here on, by its hash.
    pub(crate) fn with_config(self, config: &str) -> Self {
        Self { config: Some(config.into()), ..self }
    }

    /// How many denials before it are not recorded one by one.
    pub(super) fn with_suppressed(self, suppressed: u64) -> Self {
        Self { suppressed: Some(suppressed).filter(|n| *n > 0), ..self }
    }

    /// Whose it is.
    pub(super) fn of(self, caller: Option<Arc<Identity>>) -> Self {
        Self { caller, ..self }
    }

    pub(super) fn with_refused(self, refused: u64) -> Self {
        Self { refused: Some(refused), ..self }
    }

    /// Which grant allows it.
    pub(crate) fn by_grant(self, grant: Option<&Arc<str>>) -> Self {
        Self { grant: grant.cloned(), ..self }
    }

    pub(crate) fn with_algorithm(self, algorithm: Option<SignatureAlgorithm>) -> Self {
        Self { algorithm, ..self }
    }

    /// It may be done even while nothing else may: the log's own key is made.
    pub(crate) fn for_the_log(self, helps: bool) -> Self {
        Self { helps_the_log: self.helps_the_log || helps, ..self }
    }

    /// What is to be signed: the digest of it, and what kind of thing it is. The request that is given back has the digest
    /// in place of the message wherever that is what is signed, so that it is not made twice.
    pub(crate) async fn of_request(mut self, request: SignRequest) -> Result<(Self, SignRequest)> {
        self.algorithm = Some(request.algorithm());
        let request = match request.input() {
            Input::Digest(digest) => {
                (self.input, self.digest) = (Some("digest"), Some(*digest));
                return Ok((self, request));
            }
            Input::Message(message) => {
                self.input = Some("message");
                self.content = content::kind(message).map(Into::into);
                let long = message.len() > LONG;
                let hash = move || {
                    let request = request.hashed();
                    let digest = match request.input() {
                        Input::Digest(digest) => *digest,
                        Input::Message(message) => Digest::of(signer_core::HashAlgorithm::Sha256, message),
                    };
                    Ok((request, digest))
                };
                let (request, digest) = if long { blocking(hash).await? } else { hash()? };
                self.digest = Some(digest);
                request
            }
        };
        Ok((self, request))
    }

    /// Whether the device has the request as soon as it was sent: a driver process has. What goes over a network waits for this
    /// thread to send it.
    pub(super) fn is_at_its_device(&self) -> bool {
        matches!(&self.key, Some(KeyOf::Opened(entry)) if entry.place().driver().is_some())
    }

    /// How long the device will take at the least: for so long its record may wait for those of others.
    pub(super) fn patience(&self) -> Duration {
        let Some(KeyOf::Opened(entry)) = &self.key else { return Duration::ZERO };
        let before = entry.place().in_flight();
        if before < CROWD {
            return Duration::ZERO;
        }
        (QUICKEST * u32::try_from(before).unwrap_or(u32::MAX)).min(LONGEST_PATIENCE)
    }

    // How it ends.

    pub(super) fn begun(&self) -> Self {
        Self { outcome: Some("begun"), ..self.clone() }
    }

    pub(super) fn ended<T>(self, result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self { outcome: Some("done"), ..self },
            Err(e) => Self { outcome: Some("failed"), error: Some(e.kind().name()), ..self },
        }
    }

    pub(super) fn abandoned(self) -> Self {
        Self { outcome: Some("abandoned"), ..self }
    }

    pub(super) fn denied(self) -> Self {
        Self { decision: Some("denied"), ..self }
    }

    /// The record of it, at its place.
    pub(super) fn record(&self, sequence: u64, time: u64) -> Record<'_> {
        let (key, fingerprint) = match &self.key {
            Some(KeyOf::Opened(entry)) => (Some(entry.reference()), Some(entry.fingerprint())),
            Some(KeyOf::Named { reference, fingerprint }) => (Some(&**reference), fingerprint.as_deref()),
            None => (None, None),
        };
        Record {
            algorithm: self.algorithm.map(|a| a.name().into()),
            caller: self.caller.as_deref().map(caller),
            config: self.config.as_deref().map(Into::into),
            content: self.content.as_deref().map(Into::into),
            decision: self.decision.map(Into::into),
            digest: self.digest.map(|d| format!("{d:?}").into()),
            error: self.error.map(Into::into),
            fingerprint: fingerprint.map(Into::into),
            grant: self.grant.as_deref().map(Into::into),
            input: self.input.map(Into::into),
            key: key.map(short),
            of: self.of,
            operation: self.operation.into(),
            outcome: self.outcome.map(Into::into),
            refused: self.refused,
            sequence,
            suppressed: self.suppressed,
            time: utc(time).into(),
            v: RECORD_VERSION,
            version: self.config.as_ref().map(|_| env!("CARGO_PKG_VERSION").into()),
        }
    }
}

fn caller(identity: &Identity) -> Caller<'_> {
    let process = identity.process();
    Caller {
        gid: process.map(|p| p.gid),
        pid: process.and_then(|p| p.pid),
        program: process.and_then(|p| p.program.as_deref()).map(short),
        uid: identity.uid(),
        user: process.and_then(|p| p.user.as_deref()).map(Into::into),
    }
}

/// A text that somebody else has chosen, no longer than is of use.
fn short(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return text.into();
    }
    let mut end = LONGEST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use signer_core::{HashAlgorithm, KeyType};

    use super::*;

    #[tokio::test]
    async fn a_record_has_the_digest_and_nothing_of_the_message() {
        let caller = Arc::new(Identity::new(Some(1000), vec![100]));
        let event = Event::of_caller(&caller, Operations::SIGN, KeyOf::named("hsm/release"));
        let message = "something very confidential".repeat(10_000);
        for algorithm in [KeyType::EcdsaP256.default_algorithm(), KeyType::Ed25519.default_algorithm()] {
            let request = SignRequest::message(algorithm, message.clone());
            let (event, request) = event.clone().of_request(request).await.unwrap();
            let text = String::from_utf8(event.record(3, 0).to_json()).unwrap();
            assert!(!text.contains("confidential"), "{text}");
            let digest = Digest::of(HashAlgorithm::Sha256, message.as_bytes());
            assert!(text.contains(&format!("{digest:?}")), "{text}");
            assert_eq!(matches!(request.input(), Input::Digest(_)), algorithm.prehash().is_some());
        }
    }

    #[test]
    fn what_a_caller_chooses_is_cut() {
        let long = "ä".repeat(100_000);
        let caller = Arc::new(Identity::anybody());
        let event = Event::of_caller(&caller, Operations::DELETE, KeyOf::named(&long));
        assert!(event.denied().record(0, 0).to_json().len() < 2000);
    }
}
