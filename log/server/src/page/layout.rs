//! What all pages have around them. Everything that is put into a page is escaped by `maud`.

use maud::{DOCTYPE, Markup, html};
use signer_log_engine::Hash;

/// The style sheet, and where it is.
pub(super) const STYLE: &str = include_str!("style.css");
pub(super) const STYLE_PATH: &str = "/ui/style.css";

/// A part of the page that the navigation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Entries,
    Checkpoints,
    Elsewhere,
}

/// What is the same on all pages of one log.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) origin: String,
    /// `signature log`, `certificate log`.
    pub(super) kind: &'static str,
    /// A hash of the style sheet: a new one is fetched.
    pub(super) style: String,
}

impl Frame {
    /// A whole page.
    pub(super) fn page(&self, title: &str, place: Place, query: &str, content: &Markup) -> Markup {
        let current = |this: Place| (this == place).then_some("page");
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " – " (self.origin) }
                    link rel="stylesheet" href={ (STYLE_PATH) "?" (self.style) };
                    link rel="icon" href="data:,";
                }
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header {
                        div.wide {
                            a.brand href="/" { (self.origin) small { (self.kind) } }
                            nav aria-label="Pages" {
                                a href="/" aria-current=[current(Place::Entries)] { "Entries" }
                                a href="/ui/checkpoints" aria-current=[current(Place::Checkpoints)] { "Checkpoints" }
                            }
                            form.search action="/ui/search" method="get" role="search" {
                                label for="q" class="skip" { "Search the log" }
                                input #q type="search" name="q" value=(query) maxlength="512" autocomplete="off"
                                    placeholder="Index, hash, or identity";
                                button type="submit" { "Search" }
                            }
                        }
                    }
                    main.wide #content { (content) }
                    footer {
                        div.wide {
                            "Everything on these pages is computed from the log's public files, which you can check without believing this server: "
                            code { "signer-log check" } " reads the whole log, " code { "signer-log monitor" } " follows it."
                        }
                    }
                }
            }
        }
    }
}

/// A hash, whole, in hexadecimal.
pub(super) fn hash(hash: &[u8]) -> Markup {
    html! { span.hash { (hex::encode(hash)) } }
}

/// The beginning of a hash, for tables.
pub(super) fn short(hash: &[u8]) -> Markup {
    let text = hex::encode(hash);
    html! { span.hash title=(text) { (text.get(..16).unwrap_or(&text)) "…" } }
}

/// A link to an entry.
pub(super) fn entry_link(index: u64) -> Markup {
    html! { a href={ "/ui/entry/" (index) } { (number(index)) } }
}

/// A number with its thousands apart, as people read it.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A hash as the C2SP files have it.
pub(super) fn base64(hash: &Hash) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let frame = Frame { origin: "<b>".into(), kind: "signature log", style: "x".into() };
        let page = frame
            .page("\"><script>", Place::Elsewhere, "\"><img src=x onerror=alert(1)>", &html! { p { "<i>" } })
            .into_string();
        for bad in ["<script", "<img", "<b>", "<i>"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((number(999), number(1000)), ("999".to_owned(), "1\u{202f}000".to_owned()));
    }
}
