//! Following somebody else's log.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::{fs, path::Path};

use signer_core::{ErrorKind, KeyType};
use signer_log_engine::{Checkpoint, Folder, Format, Mirror, check};
use support::{append_all, open};

const KEY: KeyType = KeyType::Ed25519;

async fn grow(folder: &Path, what: &str, entries: u32) {
    let log = open(folder, KEY).await.unwrap();
    append_all(&log, (0..entries).map(|i| format!("{what} {i}").into_bytes()).collect()).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_and_is_whole() {
    let (log, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = open(log.path(), KEY).await.unwrap().key().clone();
    let mirror = Mirror::open(copy.path(), key.clone(), Format::Entries).unwrap();
    let mut size = 0;
    for (round, entries) in [0, 1, 254, 1, 1, 600, 300].into_iter().enumerate() {
        grow(log.path(), &round.to_string(), entries).await;
        let now = mirror.follow(&Folder::new(log.path())).unwrap();
        assert_eq!((now.before, now.checkpoint.size), (size, size + u64::from(entries)));
        size = now.checkpoint.size;
        let reader = Folder::new(copy.path());
        assert_eq!(check(&reader, Format::Entries, &now.checkpoint, 1).wrong, Vec::<String>::new());
    }
    assert_eq!(
        fs::read(log.path().join("checkpoint")).unwrap(),
        fs::read(copy.path().join("checkpoint")).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rewritten_is_caught_and_the_evidence_is_kept() {
    let (log, other, copy) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(log.path(), "true", 300).await;
    let key = open(log.path(), KEY).await.unwrap().key().clone();
    let mirror = Mirror::open(copy.path(), key.clone(), Format::Entries).unwrap();
    mirror.follow(&Folder::new(log.path())).unwrap();
    let good = fs::read(copy.path().join("checkpoint")).unwrap();
    // Shorter, and longer with other entries: both with checkpoints by the right key.
    for entries in [200, 400] {
        grow(other.path(), &format!("false {entries}"), entries).await;
        let error = mirror.follow(&Folder::new(other.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let kept = |name: &str| fs::read(copy.path().join("evidence").join(name)).unwrap();
        assert_eq!(kept("checkpoint.before"), good);
        assert!(Checkpoint::verified(&kept("checkpoint.after"), &key).unwrap().size != 300);
        assert_eq!(fs::read(copy.path().join("checkpoint")).unwrap(), good);
    }
}
