//! The checkpoints of the past, and why each is the beginning of today's tree.

use maud::{Markup, html};
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{
    Checkpoint, Note, NoteKey, NoteKind, StoredNodes, consistency_proof, now_millis, verify_consistency,
};

use super::{
    Inner, Place, Shown,
    index::Past,
    layout::{base64, hash, number},
};
use crate::clock;

/// Checkpoints of one page.
const CHECKPOINTS: usize = 50;

pub(super) fn list(inner: &Inner, before: Option<u64>) -> Result<Shown> {
    let published = inner.log.published();
    let before = before.unwrap_or(u64::MAX >> 1);
    let history = match &inner.index {
        Some(index) => index.history(before, CHECKPOINTS + 1)?,
        None => Vec::new(),
    };
    let more = history.len() > CHECKPOINTS;
    let content = html! {
        h1 { "Checkpoints" }
        section.card aria-label="The newest" {
            p {
                "A checkpoint is the log's signed word on how many entries it has and which root they have. Whoever has two of them can ask the log to "
                "prove that the older one is the beginning of the newer one. The newest:"
            }
            pre { (published.note) }
            p { a href={ "/ui/checkpoint/" (published.checkpoint.size) } { "Checked here" } " · " a href=(raw_path(inner)) { "as a file" } }
        }
        section.card aria-label="Before" {
            @if history.is_empty() {
                p { "Nothing is kept of the time before yet." }
            } @else {
                div.scroll {
                    table {
                        caption { "The last checkpoint of each minute; after a week, of each hour" }
                        thead { tr { th scope="col" { "Seen" } th.number scope="col" { "Entries" } th scope="col" { "Root" } } }
                        tbody {
                            @for past in history.iter().take(CHECKPOINTS) {
                                tr {
                                    td.number { (clock::for_people(past.seen)) }
                                    td.number { a href={ "/ui/checkpoint/" (past.size) } { (number(past.size)) } }
                                    td { (root(past)) }
                                }
                            }
                        }
                    }
                }
                @if more {
                    div.pager {
                        span {}
                        @if let Some(last) = history.get(CHECKPOINTS - 1) { a href={ "/ui/checkpoints?before=" (last.seen) } { "Older →" } }
                    }
                }
            }
        }
    };
    Ok(Shown::new("Checkpoints", Place::Checkpoints, content))
}

fn raw_path(inner: &Inner) -> &'static str {
    match inner.kind {
        crate::place::Kind::Signature => "/api/v2/checkpoint",
        crate::place::Kind::Certificate => "/checkpoint",
    }
}

fn root(past: &Past) -> Markup {
    let root = Note::parse(past.note.as_bytes()).and_then(|note| Checkpoint::from_text(note.text()));
    html! { @if let Ok(checkpoint) = root { (hash(&checkpoint.root)) } }
}

pub(super) fn show(inner: &Inner, size: u64) -> Result<Shown> {
    let published = inner.log.published();
    let past = if published.checkpoint.size == size {
        Some(Past { size, seen: now_millis(), note: published.note.to_string() })
    } else {
        inner.index.as_ref().map(|index| index.checkpoint(size)).transpose()?.flatten()
    };
    let past = past.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("No checkpoint of {size} entries is kept here."))
    })?;
    let checkpoint = Checkpoint::from_text(Note::parse(past.note.as_bytes())?.text())?;
    let (signatures, signed) = signatures(past.note.as_bytes(), inner.log.key(), &inner.witnesses);
    let now = &published.checkpoint;
    let nodes = StoredNodes::new(&**inner.log.storage(), now.size);
    let proof = consistency_proof(size, now.size, &nodes);
    let verdict = match &proof {
        Ok(proof) => verify_consistency((size, &checkpoint.root), (now.size, &now.root), proof)
            .map_err(|e| e.what().to_owned()),
        Err(e) => Err(e.what().to_owned()),
    };
    let content = html! {
        h1 { "Checkpoint of " (number(size)) " entries" }
        section.card aria-label="The checkpoint" {
            pre { (past.note) }
            dl.facts {
                dt { "Root" } dd { (hash(&checkpoint.root)) }
                dt { "Seen" } dd { (clock::for_people(past.seen)) }
            }
            h2 { "Signatures" }
            (signatures)
            @if !signed { p.verdict.bad { "The log's own signature does not verify." } }
        }
        section.card aria-labelledby="proof" {
            h2 #proof { "Is it the beginning of today's log?" }
            @match &verdict {
                Ok(()) if size == now.size => p.verdict.good { "It is today's checkpoint." }
                Ok(()) => p.verdict.good {
                    "Yes. Computed just now: the first " (number(size)) " of the " (number(now.size)) " entries of today have the root of this checkpoint."
                }
                Err(why) => p.verdict.bad { "No: " (why) "." }
            }
            @if let Ok(proof) = &proof && !proof.is_empty() {
                p {
                    "From these hashes both roots can be computed (RFC 6962, section 2.1.2): the root of this checkpoint from some of them, "
                    "today's root from all. A log that had changed or left out one of the old entries could not give them."
                }
                ol.steps {
                    @for one in proof { li { p.result { (hash(one)) } } }
                    li { p { "the root of " (number(size)) " entries" } p.result { (hash(&checkpoint.root)) " " code { (base64(&checkpoint.root)) } } }
                    li { p { "the root of " (number(now.size)) " entries" } p.result { (hash(&now.root)) " " code { (base64(&now.root)) } } }
                }
            }
        }
    };
    Ok(Shown::new(format!("Checkpoint of {size}"), Place::Checkpoints, content))
}

/// Each signature of a note and whether it verifies; and whether the log's own does.
pub(super) fn signatures(note: &[u8], log: &NoteKey, witnesses: &[NoteKey]) -> (Markup, bool) {
    let Ok(note) = Note::parse(note) else {
        return (html! { p { "The checkpoint cannot be read." } }, false);
    };
    let signed = note.verify(log).is_ok();
    let rows = html! {
        ul {
            @for (name, hint, signature) in note.signatures() {
                @let is_log = name == log.name() && hint == log.hint();
                @let witness = witnesses.iter().find(|w| w.name() == name && w.hint() == hint);
                li {
                    b { (name) } " "
                    @if is_log {
                        "the log itself, " @if signed { "verifies" } @else { "does not verify" }
                        @if log.kind() == NoteKind::TreeHead && let Ok(time) = note.verify(log) { ", made " (clock::for_people(time)) }
                    } @else if let Some(witness) = witness {
                        @match note.verify(witness) {
                            Ok(time) => { "a witness, verifies, made " (clock::for_people(time.saturating_mul(1000))) }
                            Err(_) => { "a witness, does not verify" }
                        }
                    } @else if let Some((time, rest)) = signature.split_first_chunk::<8>() && rest.len() == 64 {
                        "a cosignature by somebody whose key is not known here, who says it was made "
                        (clock::for_people(u64::from_be_bytes(*time).saturating_mul(1000)))
                    } @else {
                        "by somebody whose key is not known here"
                    }
                    " " span.result { "key " code { (hex::encode(hint)) } }
                }
            }
        }
    };
    (rows, signed)
}
