//! What is said of a find: one JSON object, with an identifier that is the same however often it is said.

use serde::Serialize;
use serde_json::{Value, json};
use signer_log_engine::{Checkpoint, Hash, now_millis};

use super::rules::Found;
use crate::{
    clock,
    decode::{CertificateView, Decoded, sha256},
};

/// A report on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The same for the same thing, whoever says it and however often.
    pub(super) id: String,
    /// JSON, one line.
    pub(super) body: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// An entry matches.
    Match,
    /// An entry cannot be read, so nobody knows whether it matches.
    Unreadable,
    /// The log is not an extension of what it was, or its entries are not those of its checkpoint.
    Inconsistent,
    /// The checkpoint is older than it may be.
    Stale,
    /// It was, and is no longer.
    Fresh,
}

/// The entry that a report is about.
pub(super) struct About<'a> {
    pub(super) origin: &'a str,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) index: u64,
    pub(super) entry: &'a Decoded,
}

impl Report {
    /// An entry that some rules match.
    pub(super) fn of_match(about: &About<'_>, rules: &[(&str, Vec<Found>)]) -> Self {
        let names: Vec<_> = rules.iter().map(|(name, _)| *name).collect();
        let message = format!("entry {} of {} matches {}", about.index, about.origin, names.join(", "));
        let rules: Vec<_> = rules.iter().map(|(name, found)| json!({"name": name, "found": found})).collect();
        Self::of_entry(Event::Match, about, &message, json!(rules))
    }

    /// An entry that cannot be read as a whole.
    pub(super) fn of_unreadable(about: &About<'_>) -> Self {
        let message = format!(
            "entry {} of {} cannot be read, and may be one that a rule asks for: {}",
            about.index,
            about.origin,
            about.entry.unreadable.join("; ")
        );
        Self::of_entry(Event::Unreadable, about, &message, Value::Null)
    }

    fn of_entry(event: Event, about: &About<'_>, message: &str, rules: Value) -> Self {
        let entry = about.entry;
        let id = id(about.origin, event, &[&about.index.to_be_bytes(), &entry.leaf_hash]);
        let mut body = json!({
            "id": id, "event": event, "log": about.origin, "message": message, "index": about.index,
            "leaf_hash": hex::encode(entry.leaf_hash), "checkpoint": checkpoint(about.checkpoint),
            "entry": summary(entry), "noticed": clock::rfc3339(now_millis()),
        });
        if !rules.is_null() {
            body["rules"] = rules;
        }
        Self { id, body: body.to_string() }
    }

    /// Something about the log as a whole. `what` makes it the same thing or another.
    pub(super) fn of_log(origin: &str, event: Event, what: &[&[u8]], message: &str, details: Value) -> Self {
        let id = id(origin, event, what);
        let mut body = json!({
            "id": id, "event": event, "log": origin, "message": message, "noticed": clock::rfc3339(now_millis()),
        });
        if let (Value::Object(body), Value::Object(details)) = (&mut body, details) {
            body.extend(details);
        }
        Self { id, body: body.to_string() }
    }
}

/// The identifier: half of a hash over what the report is about.
fn id(origin: &str, event: Event, what: &[&[u8]]) -> String {
    let event = serde_json::to_string(&event).unwrap_or_default();
    let mut bytes = Vec::new();
    for part in [origin.as_bytes(), event.as_bytes()].iter().chain(what) {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(*part);
    }
    hex::encode(&sha256(&bytes)[..16])
}

pub(super) fn checkpoint(checkpoint: &Checkpoint) -> Value {
    json!({"size": checkpoint.size, "root": hex::encode(checkpoint.root)})
}

fn summary(entry: &Decoded) -> Value {
    let digests: Vec<_> = entry
        .digests
        .iter()
        .map(|d| json!({"algorithm": d.algorithm, "digest": hex::encode(&d.digest)}))
        .collect();
    let signers: Vec<_> = entry
        .signers
        .iter()
        .map(|signer| {
            json!({
                "fingerprint": hex::encode(signer.fingerprint),
                "certificate": signer.certificate.as_ref().map(certificate),
            })
        })
        .collect();
    json!({
        "kind": entry.kind, "version": entry.version, "time": entry.time.map(clock::rfc3339), "digests": digests,
        "signers": signers, "issuer_key_hash": entry.issuer_key_hash.map(|h: Hash| hex::encode(h)),
    })
}

fn certificate(view: &CertificateView) -> Value {
    let identities: Vec<_> =
        view.sans.iter().map(|san| json!({"type": san.kind.to_string(), "value": san.value})).collect();
    // The extensions that are text are those that rules ask for; the others would make reports long.
    let extensions: Vec<_> = view
        .extensions
        .iter()
        .filter_map(|e| Some(json!({"oid": e.oid, "name": e.name, "value": e.text.as_deref()?})))
        .collect();
    json!({
        "serial": view.serial, "subject": view.subject, "issuer": view.issuer, "not_before": view.not_before,
        "not_after": view.not_after, "identities": identities, "extensions": extensions,
    })
}
