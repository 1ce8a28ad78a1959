//! The newest entries, and how the log is.

use maud::{Markup, html};
use signer_core::Result;

use super::{
    Inner, Place, Shown,
    layout::{entry_link, hash, number, short},
};
use crate::{clock, decode::Decoded, place::Kind};

/// Entries of one page.
const ENTRIES: u64 = 25;

pub(super) fn show(inner: &Inner, before: Option<u64>) -> Result<Shown> {
    let published = inner.log.published();
    let size = published.checkpoint.size;
    let end = before.unwrap_or(size).min(size);
    let begin = end.saturating_sub(ENTRIES);
    let mut entries = inner.entries(&published, begin, end)?;
    entries.reverse();
    let newest = end == size;
    let content = html! {
        h1 { @if newest { "Newest entries" } @else { "Entries " (number(begin)) " to " (number(end.saturating_sub(1))) } }
        @if newest { (state(inner)) }
        div.card {
            @if entries.is_empty() {
                p { "The log has no entries yet." }
            } @else {
                (table(inner.kind, &entries))
                div.pager {
                    @if newest { span {} } @else if end + ENTRIES >= size { a href="/" { "← Newer" } }
                    @else { a href={ "/?before=" (end + ENTRIES) } { "← Newer" } }
                    @if begin > 0 { a href={ "/?before=" (begin) } { "Older →" } }
                }
            }
        }
    };
    Ok(Shown::new(if newest { "Newest entries" } else { "Entries" }, Place::Entries, content))
}

/// How the log is at the moment.
fn state(inner: &Inner) -> Markup {
    let published = inner.log.published();
    let healthy = inner.log.health().is_ok();
    html! {
        section.card aria-label="State of the log" {
            dl.figures {
                div { dt { "Entries" } dd { (number(published.checkpoint.size)) } }
                div {
                    dt { "State" }
                    dd {
                        @if inner.log.is_frozen() { "frozen: takes on nothing more" }
                        @else if healthy { "in order" }
                        @else { "entries cannot be published at the moment" }
                    }
                }
                div { dt { "Newest checkpoint" } dd { a href={ "/ui/checkpoint/" (published.checkpoint.size) } { "signed, and checked here" } } }
                div { dt { "Root" } dd { (hash(&published.checkpoint.root)) } }
            }
        }
    }
}

/// A table of entries.
pub(super) fn table(kind: Kind, entries: &[(u64, Decoded)]) -> Markup {
    let certificates = kind == Kind::Certificate;
    html! {
        div.scroll {
            table.entries {
                thead {
                    tr {
                        th.number scope="col" { "Entry" }
                        th scope="col" { "Kind" }
                        th scope="col" { @if certificates { "For" } @else { "Signed by" } }
                        th scope="col" { @if certificates { "Logged" } @else { "Digest of what was signed" } }
                    }
                }
                tbody {
                    @for (index, entry) in entries {
                        tr {
                            td.number { (entry_link(*index)) }
                            td { span.tag { (entry.kind) } }
                            td { (who(entry)) }
                            td {
                                @if let Some(time) = entry.time { (clock::for_people(time)) }
                                @for digest in &entry.digests { (digest.algorithm) " " (short(&digest.digest)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The identities of an entry, or the keys where there are none.
fn who(entry: &Decoded) -> Markup {
    html! {
        @for (at, signer) in entry.signers.iter().enumerate() {
            @if at > 0 { br; }
            @match &signer.certificate {
                Some(certificate) => {
                    @if certificate.sans.is_empty() { (certificate.subject) }
                    @for (at, san) in certificate.sans.iter().enumerate() { @if at > 0 { ", " } (san.value) }
                }
                None => { "key " (short(&signer.fingerprint)) }
            }
        }
        @if entry.signers.is_empty() { "cannot be read" }
    }
}
