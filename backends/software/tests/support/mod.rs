//! A backend on a temporary folder, and short ways to ask it.
#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use signer_core::{
    Backend, BoxFuture, Error, ErrorKind, GenerateRequest, KeyInfo, KeyName, KeySelector, KeyType,
    ListRequest, Pin, SignRequest, Signer,
};
use signer_software::{Kdf, SoftwareBackend, SoftwareConfig};

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// Every future of this backend is ready at its first poll.
pub(crate) fn now<T>(mut future: BoxFuture<'_, T>) -> T {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the backend did not answer in the first poll"),
    }
}

pub(crate) fn config(directory: &Path, passphrase: &str) -> SoftwareConfig {
    SoftwareConfig {
        directory: directory.to_owned(),
        passphrase: Pin::new(passphrase.into()).unwrap(),
        kdf: Kdf::Scrypt,
        name: "soft".into(),
    }
}

pub(crate) fn open(directory: &Path) -> SoftwareBackend {
    SoftwareBackend::open(config(directory, PASSPHRASE)).unwrap()
}

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) backend: SoftwareBackend,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = open(&folder.path().join("keys"));
        Self { folder, backend }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// The same folder, as a program sees it that is started now.
    pub(crate) fn started_again(&self) -> SoftwareBackend {
        open(&self.directory())
    }
}

pub(crate) fn selector(text: &str) -> KeySelector {
    text.parse().unwrap()
}

pub(crate) fn generate(backend: &SoftwareBackend, name: &str, key_type: KeyType) -> Result<KeyInfo, Error> {
    let request = GenerateRequest::new(name.parse::<KeyName>()?, key_type);
    now(Backend::generate(backend).unwrap().generate(request))
}

pub(crate) fn rotate(backend: &SoftwareBackend, name: &str) -> Result<KeyInfo, Error> {
    now(Backend::rotate(backend).unwrap().rotate(&name.parse().unwrap()))
}

pub(crate) fn delete(backend: &SoftwareBackend, name: &str) -> Result<(), Error> {
    now(Backend::delete(backend).unwrap().delete(&selector(name)))
}

pub(crate) fn open_key(backend: &SoftwareBackend, name: &str) -> Result<Arc<dyn Signer>, Error> {
    now(Backend::open(backend, &selector(name)))
}

/// Signs and verifies.
pub(crate) fn try_to_sign(signer: &dyn Signer) -> Result<(), Error> {
    let request = SignRequest::message(signer.info().default_algorithm(), "a message");
    let signature = now(signer.sign(request.clone()))?;
    let key = &signer.info().public_key;
    key.verify(request.algorithm(), request.input(), signature.as_bytes())
}

pub(crate) fn works(backend: &SoftwareBackend, name: &str) {
    try_to_sign(&*open_key(backend, name).unwrap()).unwrap();
}

pub(crate) fn list(backend: &SoftwareBackend) -> Vec<String> {
    let page = now(backend.list(ListRequest::default())).unwrap();
    page.keys.iter().map(|k| k.name.to_string()).collect()
}

pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this must fail"),
        Err(error) => error.kind(),
    }
}

/// Every file below a folder with its bytes, for comparing states.
pub(crate) fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}
