//! One entry: what it says, and why it is in the log.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{Markup, html};
use signer_core::{PublicKey, Result};
use signer_log_engine::{Format, Hash, NoteKey, Published, prove_stored, timestamped_entry};

use super::{
    Inner, Place, Shown, checkpoints,
    layout::{base64, hash, number},
    proof::{Walk, walk},
};
use crate::{
    clock,
    decode::{CertificateView, Decoded, Signed},
};

pub(super) fn show(inner: &Inner, index: u64) -> Result<Shown> {
    let published = inner.log.published();
    let (decoded, body) = inner.with_entry(&published, index, |entry| {
        (Decoded::new(entry, inner.log.format()), entry.body().to_vec())
    })?;
    let tree = (published.checkpoint.size, &published.checkpoint.root);
    let proof = prove_stored(&**inner.log.storage(), inner.log.format(), tree, index).map(|(proof, _)| proof);
    let title = format!("Entry {index}");
    let content = html! {
        h1 { "Entry " (number(index)) }
        (facts(&decoded, index))
        @for (at, signer) in decoded.signers.iter().enumerate() {
            (signed(signer, (decoded.signers.len() > 1).then_some(at + 1), inner.log.format()))
        }
        section.card aria-labelledby="proof" {
            h2 #proof { "Is it really in the log?" }
            @match &proof {
                Ok(proof) => {
                    (inclusion(&decoded.leaf_hash, index, &published, proof, inner.log.key(), &inner.witnesses, inner.log.format()))
                }
                Err(e) => p.verdict.bad { "Not proven: " (e.what()) "." }
            }
        }
        (raw(inner.log.format(), &body))
        div.pager {
            @if index + 1 < published.checkpoint.size { a href={ "/ui/entry/" (index + 1) } { "← Entry " (number(index + 1)) } } @else { span {} }
            @if index > 0 { a href={ "/ui/entry/" (index - 1) } { "Entry " (number(index - 1)) " →" } }
        }
    };
    Ok(Shown::new(title, Place::Entries, content))
}

fn facts(entry: &Decoded, index: u64) -> Markup {
    html! {
        section.card aria-label="The entry" {
            dl.facts {
                dt { "Kind" }
                dd { (entry.kind) @if !entry.version.is_empty() { " " (entry.version) } " " span.result { (meaning(&entry.kind)) } }
                dt { "Index" } dd { (index) }
                @if let Some(time) = entry.time { dt { "Logged" } dd { (clock::for_people(time)) " " span.result { "(" (time) " ms since 1970)" } } }
                @for digest in &entry.digests {
                    dt { @if entry.kind == "dsse" { "Payload, " } (digest.algorithm) }
                    dd { a href={ "/ui/search?q=" (hex::encode(&digest.digest)) } { (hash(&digest.digest)) } }
                }
                @if let Some(issuer) = &entry.issuer_key_hash { dt { "Issuer's key, sha256" } dd { (hash(issuer)) } }
                dt { "Leaf hash" } dd { (hash(&entry.leaf_hash)) }
                @for problem in &entry.unreadable { dt { "Not readable" } dd { (problem) } }
            }
        }
    }
}

/// What a kind of entry is, for those who do not know.
fn meaning(kind: &str) -> &'static str {
    match kind {
        "hashedrekord" => "a signature over the digest of an artifact",
        "dsse" => {
            "signatures over an attestation in a DSSE envelope; the log keeps the hash of its payload, not its payload type"
        }
        "certificate" => "a certificate as it was issued",
        "precertificate" => "what an authority promised to issue, before the log's timestamps were put in",
        _ => "",
    }
}

fn signed(signer: &Signed, number: Option<usize>, format: Format) -> Markup {
    let key = PublicKey::from_der(&signer.spki);
    html! {
        section.card aria-label="Signature" {
            h2 {
                @match (format, number) {
                    (Format::Certificates, _) => "The certificate",
                    (_, None) => "Who has signed",
                    (_, Some(number)) => { "Signature " (number) }
                }
            }
            @if let Some(view) = &signer.certificate { (certificate(view)) }
            h3 { "Public key" }
            dl.facts {
                dt { "Type" } dd { @match &key { Ok(key) => (key.key_type()), Err(_) => "not one that is known here" } }
                dt { "Fingerprint, sha256" } dd { a href={ "/ui/search?q=" (hex::encode(signer.fingerprint)) } { (hash(&signer.fingerprint)) } }
                @if !signer.details.is_empty() { dt { "Signs as" } dd { (signer.details) } }
                @if !signer.signature.is_empty() { dt { "Signature" } dd { code { (STANDARD.encode(&signer.signature)) } } }
            }
            @if let Ok(key) = &key { details { summary { "The key, PEM" } pre { (key.to_pem()) } } }
        }
    }
}

fn certificate(view: &CertificateView) -> Markup {
    html! {
        dl.facts {
            @for san in &view.sans {
                dt { "Identity (" (san.kind) ")" }
                dd { a href={ "/ui/search?q=" (encoded(&san.value)) } { (san.value) } }
            }
            @if let Some(issuer) = view.issuer_v2() { dt { "Vouched for by" } dd { (issuer) } }
            dt { "Valid" } dd { (view.not_before) " to " (view.not_after) }
            @if !view.subject.is_empty() { dt { "Subject" } dd { (view.subject) } }
            dt { "Issued by" } dd { (view.issuer) }
            dt { "Serial number" } dd { (hash_text(&view.serial)) }
        }
        h3 { "Extensions" }
        dl.facts {
            @for extension in &view.extensions {
                dt { (extension.name.unwrap_or(&extension.oid)) @if extension.critical { " " span.tag { "critical" } } }
                dd {
                    @match extension.in_words() {
                        Some(text) => (text),
                        None => code { (hex::encode(&extension.value)) }
                    }
                    @if extension.name.is_some() { " " span.result { (extension.oid) } }
                }
            }
        }
    }
}

fn hash_text(text: &str) -> Markup {
    html! { span.hash { (text) } }
}

/// A text as it goes into a query.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The proof, in words, each step computed here.
fn inclusion(
    leaf: &Hash,
    index: u64,
    published: &Published,
    proof: &[Hash],
    key: &NoteKey,
    witnesses: &[NoteKey],
    format: Format,
) -> Markup {
    let checkpoint = &published.checkpoint;
    let Walk { steps, wrong } = walk(leaf, index, checkpoint.size, proof, &checkpoint.root);
    let (signatures, signed) = checkpoints::signatures(published.note.as_bytes(), key, witnesses);
    html! {
        @match (&wrong, signed) {
            (None, true) => p.verdict.good { "Yes. Computed just now: the entry leads to the root that the log has signed for " (number(checkpoint.size)) " entries." }
            (Some(wrong), _) => p.verdict.bad { "No: " (wrong) "." }
            (None, false) => p.verdict.bad { "The entry leads to the checkpoint's root, but the checkpoint's signature does not verify." }
        }
        p {
            "The log is a tree of hashes. Each hash stands for everything below it, so the one at the top, the root, stands for all entries "
            "at once, and nobody can change an entry without changing the root. Here is the way from this entry to the root, "
            (steps.len()) " steps for " (number(checkpoint.size)) " entries."
        }
        ol.steps {
            li {
                p {
                    "Hash the entry" @match format { Format::Entries => " as it stands, after a zero byte", Format::Certificates => " as RFC 6962 writes it (MerkleTreeLeaf), after a zero byte" }
                    ": this is its leaf hash."
                }
                p.result { (hash(leaf)) }
            }
            @for step in &steps {
                li {
                    p {
                        "Put the neighbour " @if step.left { "before" } @else { "after" } " it, and hash both, after a byte of one: this stands for the entries "
                        (number(step.covers.0)) " to " (number(step.covers.1.saturating_sub(1))) "."
                    }
                    p.result { "neighbour " (hash(&step.sibling)) }
                    p.result { "together " (hash(&step.result)) }
                }
            }
            li {
                p { @if wrong.is_none() { "The last hash is the root that the checkpoint states." } @else { "The last hash should be the root that the checkpoint states." } }
                p.result { (hash(&checkpoint.root)) " " span { "(in the checkpoint: " code { (base64(&checkpoint.root)) } ")" } }
            }
            li {
                p { "The checkpoint is signed. By whom, and whether each signature verifies:" }
                (signatures)
            }
        }
        details { summary { "The checkpoint as it is signed" } pre { (published.note) } }
        details {
            summary { "Check it with a program of your own" }
            pre { "signer-log prove https://HOST-OF-THIS-PAGE --kind " (match format { Format::Entries => "signature", Format::Certificates => "certificate" }) " --origin " (key.name()) " --public-key log.pem " (index) }
        }
    }
}

/// The entry itself, for those who want to compute the leaf hash.
fn raw(format: Format, body: &[u8]) -> Markup {
    let text = match format {
        Format::Entries => serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|value| serde_json::to_string_pretty(&value).ok()),
        Format::Certificates => None,
    };
    let certificate = match format {
        Format::Certificates => {
            timestamped_entry(body).filter(|parts| !parts.precertificate).map(|parts| pem(parts.signed))
        }
        Format::Entries => None,
    };
    html! {
        section.card aria-labelledby="raw" {
            h2 #raw { "The entry itself" }
            @if let Some(text) = &text { details { summary { "As JSON, with line breaks" } pre { (text) } } }
            @if let Some(pem) = &certificate { details { summary { "The certificate, PEM" } pre { (pem) } } }
            details { summary { "As it is hashed, base64" } pre { (STANDARD.encode(body)) } }
        }
    }
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
