//! The page that people look at: `/` and below `/ui/`, where neither Rekor's nor RFC 6962's API has anything.
//!
//! Rendered here, without a script: it works in every browser, and there is nothing to trust but the log's own files, from
//! which each page is computed anew. Requests are forms by GET.

mod checkpoints;
mod entry;
mod hashes;
mod home;
mod index;
mod layout;
mod proof;
mod search;

use std::{sync::Arc, time::Duration};

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use maud::{Markup, html};
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{EntryRef, Log, NoteKey, Published, TileId, WIDTH, read_entry_tile};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    decode::{Decoded, sha256},
    http::{Answer, answer},
    place::Kind,
};

use index::Index;
use layout::{Frame, Place, STYLE, STYLE_PATH};

/// Nothing is loaded from anywhere but here, nothing runs, nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
/// Pages that are computed at a time.
const AT_A_TIME: usize = 8;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest text that is searched for.
const LONGEST_QUERY: usize = 512;

/// The page of one log.
#[derive(Clone)]
pub(crate) struct Page {
    inner: Arc<Inner>,
    working: Arc<Semaphore>,
}

struct Inner {
    log: Log,
    kind: Kind,
    frame: Frame,
    /// What entries are found by, and the history of checkpoints; not there when the log has no folder on this machine.
    index: Option<Index>,
    /// Keys of witnesses, whose cosignatures can be verified.
    witnesses: Vec<NoteKey>,
}

/// What is shown: a status, a title, a place in the navigation, and the content.
struct Shown {
    status: StatusCode,
    title: String,
    place: Place,
    query: String,
    content: Markup,
}

impl Shown {
    fn new(title: impl Into<String>, place: Place, content: Markup) -> Self {
        Self { status: StatusCode::OK, title: title.into(), place, query: String::new(), content }
    }

    fn missing(what: &str) -> Self {
        let content = html! { h1 { "Nothing here" } div.card { p { (what) } p { a href="/" { "The newest entries" } } } };
        Self { status: StatusCode::NOT_FOUND, ..Self::new("Nothing here", Place::Elsewhere, content) }
    }
}

impl Page {
    /// The page of a log. What it keeps beside the log ends when `stopped` changes; the receiver tells when that is done.
    pub(crate) fn new(
        log: &Log,
        kind: Kind,
        searchable: bool,
        witnesses: Vec<NoteKey>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(Self, Option<oneshot::Receiver<()>>)> {
        let (index, ended) = match log.storage().state_folder() {
            Some(folder) => {
                let (index, ended) = Index::open(folder, log, searchable, stopped)?;
                (Some(index), Some(ended))
            }
            None => (None, None),
        };
        let frame = Frame {
            origin: log.key().name().to_owned(),
            kind: match kind {
                Kind::Signature => "signature transparency log",
                Kind::Certificate => "certificate transparency log",
            },
            style: hex::encode(&sha256(STYLE.as_bytes())[..6]),
        };
        let inner = Inner { log: log.clone(), kind, frame, index, witnesses };
        Ok((Self { inner: Arc::new(inner), working: Arc::new(Semaphore::new(AT_A_TIME)) }, ended))
    }

    /// Whether a path is one of the page's.
    pub(crate) fn has(path: &str) -> bool {
        path == "/" || path == "/ui" || path.starts_with("/ui/")
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, path: &str, query: Option<&str>) -> Answer {
        if path == STYLE_PATH {
            let mut answer = dressed(answer(StatusCode::OK, "text/css; charset=utf-8", STYLE));
            answer
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
            return answer;
        }
        let Ok(Ok(permit)) = timeout(PATIENCE, self.working.clone().acquire_owned()).await else {
            let mut busy = answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                "too many pages at a time\n",
            );
            busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            return busy;
        };
        let (inner, path, query) =
            (self.inner.clone(), path.to_owned(), query.unwrap_or_default().to_owned());
        let shown = spawn_blocking(move || {
            let _permit = permit;
            let shown = inner.show(&path, &query).unwrap_or_else(|e| failure(&path, &e));
            let page = inner.frame.page(&shown.title, shown.place, &shown.query, &shown.content);
            (shown.status, page.into_string())
        });
        let (status, page) = shown
            .await
            .unwrap_or_else(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made".to_owned()));
        let mut answer = dressed(answer(status, HTML, page));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer
    }
}

/// With the headers that keep a browser from doing anything but show.
fn dressed(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn failure(path: &str, e: &Error) -> Shown {
    if e.kind() == ErrorKind::NotFound {
        return Shown::missing(e.what());
    }
    tracing::error!("the page {path} cannot be shown: {e}");
    let content = html! {
        h1 { "This page cannot be shown" }
        div.card { p { "The log has a problem; its operator can read what it is." } }
    };
    Shown {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..Shown::new("This page cannot be shown", Place::Elsewhere, content)
    }
}

impl Inner {
    fn show(&self, path: &str, query: &str) -> Result<Shown> {
        let parameter = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.into_owned())
        };
        let number = |name: &str| parameter(name).and_then(|v| v.parse::<u64>().ok());
        if let Some(index) = path.strip_prefix("/ui/entry/") {
            return match index.parse() {
                Ok(index) => entry::show(self, index),
                Err(_) => Ok(Shown::missing("An entry is named by its index, a number.")),
            };
        }
        if let Some(size) = path.strip_prefix("/ui/checkpoint/") {
            return match size.parse() {
                Ok(size) => checkpoints::show(self, size),
                Err(_) => Ok(Shown::missing("A checkpoint is named by its size, a number.")),
            };
        }
        match path {
            "/" | "/ui" | "/ui/" => home::show(self, number("before")),
            "/ui/checkpoints" => checkpoints::list(self, number("before")),
            "/ui/search" => {
                let text = parameter("q").unwrap_or_default();
                let text = &text[..text.floor_char_boundary(LONGEST_QUERY)];
                let mut shown = search::show(self, text.trim())?;
                text.trim().clone_into(&mut shown.query);
                Ok(shown)
            }
            _ => Ok(Shown::missing("There is no such page.")),
        }
    }

    /// The published tree, and what of a range of entries is in it.
    fn entries(&self, published: &Published, begin: u64, end: u64) -> Result<Vec<(u64, Decoded)>> {
        let mut found = Vec::new();
        let format = self.log.format();
        for tile in begin / WIDTH..end.div_ceil(WIDTH) {
            let bytes = self.tile(published, tile)?;
            for (at, entry) in format.split_all(&bytes)?.iter().enumerate() {
                let index = tile * WIDTH + at as u64;
                if (begin..end).contains(&index) {
                    found.push((index, Decoded::new(entry, format)));
                }
            }
        }
        Ok(found)
    }

    fn tile(&self, published: &Published, tile: u64) -> Result<Vec<u8>> {
        let format = self.log.format();
        let size = published.checkpoint.size;
        let width = size.saturating_sub(tile.saturating_mul(WIDTH)).min(WIDTH);
        let id = TileId::new(format.tile_kind(), tile, width)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the log has no such entry"))?;
        read_entry_tile(&**self.log.storage(), format, id)
    }

    /// One entry as it lies in its tile.
    fn with_entry<T>(
        &self,
        published: &Published,
        index: u64,
        look: impl FnOnce(&EntryRef<'_>) -> T,
    ) -> Result<T> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("The log has no entry {index} yet: it has {}.", published.checkpoint.size),
            )
        };
        if index >= published.checkpoint.size {
            return Err(missing());
        }
        let bytes = self.tile(published, index / WIDTH)?;
        let entries = self.log.format().split_all(&bytes)?;
        entries.get((index % WIDTH) as usize).map(look).ok_or_else(missing)
    }
}
