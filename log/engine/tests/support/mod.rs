//! Logs in temporary folders, with real software keys.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use signer_core::{Backend, GenerateRequest, KeyName, KeySelector, KeyType, Pin, Result, Signer};
use signer_log_engine::{
    Appended, CheckpointSigner, Entry, Format, Limits, LocalStorage, Log, Submitted, leaf_hash,
};
use signer_software::{Kdf, SoftwareBackend, SoftwareConfig};

pub const ORIGIN: &str = "log.example";

/// A key of a kind, the same for all tests of a program.
pub async fn signer(key_type: KeyType) -> Arc<dyn Signer> {
    static FOLDER: OnceLock<(tempfile::TempDir, SoftwareBackend)> = OnceLock::new();
    let (_, backend) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let backend = SoftwareBackend::open(SoftwareConfig {
            directory: folder.path().join("keys"),
            passphrase: Pin::new("a passphrase of tests".to_owned()).unwrap(),
            kdf: Kdf::Scrypt,
            name: "soft".into(),
        });
        (folder, backend.unwrap())
    });
    let name = KeyName::label(key_type.name()).unwrap();
    let selector = KeySelector::Name(name.clone());
    if let Ok(signer) = backend.open(&selector).await {
        return signer;
    }
    let _ = backend.generate().unwrap().generate(GenerateRequest::new(name, key_type)).await;
    backend.open(&selector).await.unwrap()
}

/// Opens the log of a folder.
pub async fn open(folder: &Path, key_type: KeyType) -> Result<Log> {
    let signer = CheckpointSigner::new(ORIGIN, signer(key_type).await, false)?;
    Log::open(Arc::new(LocalStorage::open(folder)?), Format::Entries, signer, Limits::default()).await
}

/// An entry, and what identifies it.
pub fn entry(body: &[u8]) -> (signer_log_engine::Hash, signer_log_engine::Build) {
    let hash = leaf_hash(body);
    let mut data = (body.len() as u16).to_be_bytes().to_vec();
    data.extend(body);
    (hash, Box::new(move |_, _| Entry { data: data.clone().into(), leaf_hash: hash }))
}

/// Appends an entry that is new.
pub async fn append(log: &Log, body: &[u8]) -> Result<Appended> {
    let (hash, build) = entry(body);
    match log.submit(hash, build).await? {
        Submitted::New(ticket) => ticket.published().await,
        Submitted::Duplicate(index) => panic!("{body:?} is a duplicate of {index}"),
    }
}

/// Appends many at once.
pub async fn append_all(log: &Log, bodies: Vec<Vec<u8>>) -> Vec<Result<Appended>> {
    let tasks: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let log = log.clone();
            tokio::spawn(async move { append(&log, &body).await })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}
