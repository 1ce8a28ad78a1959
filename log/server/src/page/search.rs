//! Finds entries: by index, by hash, by identity.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{Markup, html};
use signer_core::Result;

use super::{
    Inner, Place, Shown,
    home::table,
    index::{Index, Named},
    layout::{entry_link, number},
};
use crate::decode::Decoded;

/// Names and entries that are shown at most.
const NAMES: usize = 25;
const ENTRIES: usize = 100;
const OF_NAME: usize = 20;

pub(super) fn show(inner: &Inner, text: &str) -> Result<Shown> {
    let title = if text.is_empty() { "Search".to_owned() } else { format!("Search: {text}") };
    let content = html! {
        h1 { "Search" }
        @if text.is_empty() { (help()) } @else { (results(inner, text)?) }
    };
    Ok(Shown::new(title, Place::Elsewhere, content))
}

fn help() -> Markup {
    html! {
        section.card aria-label="What can be searched for" {
            dl.facts {
                dt { "An index" } dd { "the number of an entry: " code { "735" } }
                dt { "A hash" } dd { "of an artifact, of a public key, or of a leaf; hexadecimal (" code { "sha256:…" } " or the digits alone) or base64" }
                dt { "An identity" } dd { "an e-mail address, URI or host name of a certificate, or a part of one" }
            }
        }
    }
}

fn results(inner: &Inner, text: &str) -> Result<Markup> {
    let published = inner.log.published();
    if let Ok(index) = text.parse::<u64>() {
        return if index < published.checkpoint.size {
            let entries = inner.entries(&published, index, index + 1)?;
            Ok(html! { div.card { (table(inner.kind, &entries)) } })
        } else {
            let size = published.checkpoint.size;
            Ok(nothing(
                text,
                &format!(
                    "The log has {} entries so far, the last one is {}.",
                    number(size),
                    number(size.saturating_sub(1))
                ),
            ))
        };
    }
    let Some(index) = inner.index.as_ref().filter(|index| index.searchable) else {
        return Ok(nothing(text, "This log keeps no search index: entries are found by their index alone."));
    };
    let behind = published.checkpoint.size.saturating_sub(index.progress()?);
    let found = match hash(text) {
        Some(hash) => by_hash(inner, index, text, &hash)?,
        None => by_name(text, &index.by_name(text, NAMES, OF_NAME)?),
    };
    Ok(html! {
        (found)
        @if behind > 0 { p.result { "The newest " (number(behind)) " entries are not in the search index yet." } }
    })
}

fn nothing(text: &str, why: &str) -> Markup {
    html! { div.card { p { "Nothing was found for " b { (text) } ". " (why) } (help()) } }
}

/// A hash as people write it.
fn hash(text: &str) -> Option<Vec<u8>> {
    let digits = ["sha256:", "sha384:", "sha512:"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
    let known = |bytes: &Vec<u8>| matches!(bytes.len(), 32 | 48 | 64);
    hex::decode(digits).ok().filter(known).or_else(|| STANDARD.decode(digits).ok().filter(known))
}

fn by_hash(inner: &Inner, index: &Index, text: &str, hash: &[u8]) -> Result<Markup> {
    let published = inner.log.published();
    let mut entries = Vec::new();
    let mut candidates = index.by_hash(hash, ENTRIES + 1)?;
    if let Ok(leaf_hash) = hash.try_into() {
        candidates.extend(inner.log.find(leaf_hash)?);
    }
    let more = candidates.len() > ENTRIES;
    for at in candidates.into_iter().take(ENTRIES) {
        // The index has a part of each hash alone.
        let entry = inner.with_entry(&published, at, |entry| Decoded::new(entry, inner.log.format()))?;
        if has(&entry, hash) {
            entries.push((at, entry));
        }
    }
    if entries.is_empty() {
        return Ok(nothing(
            text,
            "No entry has this hash: not as an artifact's digest, nor of a key, nor of a leaf.",
        ));
    }
    Ok(html! {
        div.card {
            (table(inner.kind, &entries))
            @if more { p.result { "Only the newest " (ENTRIES) " are shown." } }
        }
    })
}

fn has(entry: &Decoded, hash: &[u8]) -> bool {
    entry.leaf_hash == hash
        || entry.digests.iter().any(|d| d.digest == hash)
        || entry.signers.iter().any(|s| s.fingerprint == hash)
}

fn by_name(text: &str, found: &[Named]) -> Markup {
    if found.is_empty() {
        return nothing(text, "No certificate in this log has a name with that in it.");
    }
    html! {
        div.card {
            table {
                thead { tr { th scope="col" { "Identity" } th scope="col" { "Entries, the newest first" } } }
                tbody {
                    @for one in found {
                        tr {
                            td { (one.name) }
                            td {
                                @for (at, index) in one.indices.iter().enumerate() { @if at > 0 { ", " } (entry_link(*index)) }
                                @if one.more { " and older ones" }
                            }
                        }
                    }
                }
            }
            @if found.len() == NAMES { p.result { "There are more: write more of the name." } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_known_by_their_length() {
        let digits = "ab".repeat(32);
        assert_eq!(hash(&digits).unwrap(), [0xab; 32]);
        assert_eq!(hash(&format!("sha256:{digits}")).unwrap(), [0xab; 32]);
        assert_eq!(hash(&STANDARD.encode([7; 32])).unwrap(), [7; 32]);
        assert_eq!(hash("me@example.com"), None);
        assert_eq!(hash("abab"), None);
    }
}
