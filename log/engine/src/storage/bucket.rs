//! The objects under one prefix of an object store, for callers that may block.

use std::{
    fmt,
    future::Future,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion, path::Path,
};
use signer_core::{Error, ErrorKind, Result};
use tokio::runtime::Runtime;

use super::Objects;
use crate::tile::TileId;

/// How long one request may take, with the store's own tries.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many objects are written at a time.
const AT_A_TIME: usize = 16;

/// A log under a prefix of an object store, to be read; other processes may be writing it.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Of its own: callers are threads that may block, and some of them hold a runtime that they must not block.
    runtime: Option<Runtime>,
}

/// An object, and the tag of this state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) bytes: Vec<u8>,
    pub(super) tag: String,
}

impl Bucket {
    /// The log under this prefix. Nothing is asked of the store yet.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let prefix = Path::parse(prefix.trim_matches('/'))
            .map_err(|e| Error::bad_request(format!("{prefix:?} is no prefix of objects")).vendor(e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("log-bucket")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("a runtime cannot be started").vendor(e))?;
        Ok(Self { store, prefix, runtime: Some(runtime) })
    }

    /// Reads an object of any name, those of `.state` too.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.tagged(name)?.map(|object| object.bytes))
    }

    /// Stores an object if there is none of this name; says whether it did.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        self.swap(name, bytes, None).map(|tag| tag.is_some())
    }

    pub(super) fn tagged(&self, name: &str) -> Result<Option<Tagged>> {
        let (store, path) = (self.store.clone(), self.path(name));
        let read = async move {
            let found = store.get(&path).await?;
            let tag = found.meta.e_tag.clone();
            Ok::<_, object_store::Error>((found.bytes().await?, tag))
        };
        match self.wait(read)? {
            Ok((bytes, tag)) => {
                Ok(Some(Tagged { bytes: bytes.into(), tag: tag.ok_or_else(|| untagged(name))? }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(&format!("{name} cannot be read"), &e)),
        }
    }

    /// Replaces an object if it is in the state of this tag, or makes it if there must be none. The new tag, or `None` when
    /// it was in another state. After an error it may have been done all the same.
    pub(super) fn swap(&self, name: &str, bytes: &[u8], expected: Option<&str>) -> Result<Option<String>> {
        let (store, path) = (self.store.clone(), self.path(name));
        let mode = match expected {
            None => PutMode::Create,
            Some(tag) => PutMode::Update(UpdateVersion { e_tag: Some(tag.to_owned()), version: None }),
        };
        let options = PutOptions { mode, attributes: attributes(name), ..PutOptions::default() };
        let bytes = Bytes::copy_from_slice(bytes);
        match self.wait(async move { store.put_opts(&path, bytes.into(), options).await })? {
            Ok(done) => Ok(Some(done.e_tag.ok_or_else(|| untagged(name))?)),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotModified { .. },
            ) => Ok(None),
            Err(e) => Err(failed(&format!("{name} cannot be written"), &e)),
        }
    }

    /// Writes objects, several at a time, whatever was there.
    pub(super) fn write_all(&self, objects: Vec<(String, Bytes)>) -> Result<()> {
        let store = self.store.clone();
        let puts: Vec<_> = objects
            .into_iter()
            .map(|(name, bytes)| (self.path(&name), attributes(&name), name, bytes))
            .collect();
        let write = async move {
            let put = |(path, attributes, name, bytes): (Path, Attributes, String, Bytes)| {
                let store = store.clone();
                async move {
                    let options = PutOptions { attributes, ..PutOptions::default() };
                    let put = store.put_opts(&path, bytes.into(), options).await;
                    put.map(|_| ()).map_err(|e| failed(&format!("{name} cannot be written"), &e))
                }
            };
            stream::iter(puts).map(put).buffer_unordered(AT_A_TIME).try_collect::<()>().await
        };
        self.wait(write)?
    }

    /// Deletes objects that nobody needs any more, some time. `folders` go with all that is in them.
    pub(super) fn forget(&self, names: &[String], folders: &[String]) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !names.is_empty() || !folders.is_empty()) else {
            return;
        };
        let store = self.store.clone();
        let mut paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let folders: Vec<_> = folders.iter().map(|name| self.path(name)).collect();
        runtime.spawn(async move {
            for folder in folders {
                let found: Vec<_> =
                    store.list(Some(&folder)).map_ok(|object| object.location).collect().await;
                paths.extend(found);
            }
            let paths = stream::iter(paths).filter(|path| std::future::ready(path.is_ok())).boxed();
            // What stays costs a little room, and nobody's answer is wrong by it.
            store.delete_stream(paths).for_each(|_| std::future::ready(())).await;
        });
    }

    /// Whether the store keeps its word: a server that knows no conditional writes would let a log fork.
    pub(super) fn prove_conditional_writes(&self, name: &str) -> Result<()> {
        let unfit = |what: &str| {
            Error::new(ErrorKind::Unsupported, format!("the object store {what}: a log could fork on it"))
                .next("use a server with conditional writes: AWS S3, MinIO, versitygw, Ceph from Tentacle on")
        };
        let first = self.swap(name, b"1", None)?.ok_or_else(|| unfit("refuses what is new"))?;
        let checked = (|| {
            if self.swap(name, b"2", None)?.is_some() {
                return Err(unfit("ignores If-None-Match"));
            }
            let second =
                self.swap(name, b"3", Some(&first))?.ok_or_else(|| unfit("refuses a right If-Match"))?;
            if second == first || self.swap(name, b"4", Some(&first))?.is_some() {
                return Err(unfit("ignores If-Match"));
            }
            Ok(())
        })();
        self.forget(&[name.to_owned()], &[]);
        checked
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// The shortest partial form of a tile that has at least so many.
    fn longer_partial(&self, id: TileId) -> Result<Option<Vec<u8>>> {
        let (store, folder) = (self.store.clone(), self.path(&format!("{}.p", id.stem())));
        let found = self.wait(async move { store.list(Some(&folder)).try_collect::<Vec<_>>().await })?;
        let found = found.map_err(|e| failed(&format!("{id} cannot be looked for"), &e))?;
        let widths = found.iter().filter_map(|object| object.location.filename()?.parse::<u16>().ok());
        match widths.filter(|width| *width >= id.width).min() {
            Some(width) => self.get(&format!("{}.p/{width}", id.stem())),
            None => Ok(None),
        }
    }

    /// Runs a request to its end while this thread waits.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let gone = || Error::internal("a request to the object store was lost");
        let (tell, told) = sync_channel(1);
        self.runtime.as_ref().ok_or_else(gone)?.spawn(async move {
            let _ = tell.send(tokio::time::timeout(PATIENCE, request).await);
        });
        told.recv().map_err(|_| gone())?.map_err(|_| {
            Error::new(ErrorKind::TimedOut, "the object store does not answer").next("look at its health")
        })
    }
}

impl Objects for Bucket {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        // What begins with a dot is not for readers.
        if name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return Ok(None);
        }
        if let Some(bytes) = self.get(name)? {
            return Ok(Some(bytes));
        }
        match name.parse::<TileId>() {
            Ok(id) if !id.is_full() => self.longer_partial(id),
            _ => Ok(None),
        }
    }
}

impl Drop for Bucket {
    /// A runtime must not be waited for by another runtime's thread.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({}, {})", self.store, self.prefix)
    }
}

/// How an object is to be served by whoever serves the bucket as it is: as our own server does it.
fn attributes(name: &str) -> Attributes {
    let (kind, caching) = match name {
        "checkpoint" => ("text/plain; charset=utf-8", "no-cache"),
        name if name.starts_with("tile/") => {
            ("application/octet-stream", "public, max-age=31536000, immutable")
        }
        name if name.starts_with("issuer/") => {
            ("application/pkix-cert", "public, max-age=31536000, immutable")
        }
        _ => ("application/octet-stream", "no-store"),
    };
    Attributes::from_iter([(Attribute::ContentType, kind), (Attribute::CacheControl, caching)])
}

/// What an object store's error means for a log: the one place that says so.
fn failed(what: &str, e: &object_store::Error) -> Error {
    use object_store::Error as Store;
    let (kind, advice) = match e {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => (
            ErrorKind::Denied,
            "give the credentials the rights to list the bucket and to read, write and delete its objects; the log goes on \
             by itself",
        ),
        Store::NotFound { .. } => {
            (ErrorKind::NotFound, "is there such a bucket? it has to be made before the log")
        }
        Store::NotSupported { .. } | Store::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "use a server with conditional writes: AWS S3, MinIO, versitygw")
        }
        _ => (ErrorKind::DeviceGone, "look at the object store; the log goes on by itself"),
    };
    Error::new(kind, what.to_owned()).device("the bucket").vendor(causes(e)).next(advice)
}

fn untagged(name: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the object store gives no ETag for {name}"))
        .next("use a server with conditional writes: AWS S3, MinIO, versitygw")
}

/// An error with what is behind it, in one line, and no longer than a log can bear.
fn causes(e: &object_store::Error) -> String {
    let mut text = e.to_string();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(600).collect()
}
