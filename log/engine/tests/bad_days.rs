//! What a log does when its files are not as it left them.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::{fs, path::Path};

use signer_core::{ErrorKind, KeyType};
use signer_log_engine::{
    CheckpointSigner, Format, Log, TileId, TileKind, check, leaf_hash, verify_inclusion,
};
use support::{ORIGIN, append, append_all, open, signer};

const KEY: KeyType = KeyType::Ed25519;

async fn log_of(folder: &Path, entries: u32) -> Log {
    let log = open(folder, KEY).await.unwrap();
    append_all(&log, (0..entries).map(|i| format!("entry {i}").into_bytes()).collect()).await;
    log
}

fn tile(kind: TileKind, index: u64) -> String {
    TileId::new(kind, index, 256).unwrap().to_string()
}

/// After a power cut, files that were not durable are gone or old; the journal is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_brings_back_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_of(folder.path(), 100).await;
    let old = fs::read(folder.path().join("checkpoint")).unwrap();
    let mut answers = Vec::new();
    for i in 0..400 {
        let body = format!("later {i}").into_bytes();
        answers.push((append(&log, &body).await.unwrap(), body));
    }
    log.close().await;
    for case in 0..3 {
        fs::remove_dir_all(folder.path().join("tile")).unwrap();
        match case {
            0 => fs::write(folder.path().join("checkpoint"), &old).unwrap(),
            1 => fs::remove_file(folder.path().join("checkpoint")).unwrap(),
            _ => fs::write(folder.path().join("checkpoint"), "").unwrap(),
        }
        let log = open(folder.path(), KEY).await.unwrap();
        assert_eq!(log.published().checkpoint.size, 500);
        let findings = check(&**log.storage(), Format::Entries, &log.published().checkpoint, 2);
        assert_eq!(findings.wrong, Vec::<String>::new());
        for (answer, body) in &answers {
            let now = log.prove(answer.index).await.unwrap();
            verify_inclusion(&leaf_hash(body), now.index, now.size, &now.proof, &now.root).unwrap();
            if answer.size == 500 {
                assert_eq!(answer.root, now.root);
            }
        }
        log.close().await;
    }
}

/// Long entries fill the journal's files, so that they are taken in turns, and every state is left by an end without warning.
#[tokio::test(flavor = "multi_thread")]
async fn the_journals_files_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let mut size = 0;
    for round in 0..4_u32 {
        let log = open(folder.path(), KEY).await.unwrap();
        assert_eq!(log.published().checkpoint.size, size);
        for i in 0..6_u32 {
            let long = vec![7; 60_000];
            let bodies = (0..100_u32).map(|j| [&[round as u8, i as u8, j as u8][..], &long].concat());
            size += append_all(&log, bodies.collect()).await.into_iter().flatten().count() as u64;
        }
        log.close().await;
        if round == 2 {
            // The newest files are lost: the journal has them.
            let partial = folder.path().join(format!("tile/entries/{:03}.p", size / 256));
            fs::remove_dir_all(partial).unwrap();
            fs::remove_file(folder.path().join("checkpoint")).unwrap();
        }
    }
    assert_eq!(size, 2400);
    let log = open(folder.path(), KEY).await.unwrap();
    let findings = check(&**log.storage(), Format::Entries, &log.published().checkpoint, 2);
    assert_eq!((findings.wrong, findings.entries), (vec![], 2400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_the_future_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let early = tempfile::tempdir().unwrap();
    log_of(folder.path(), 50).await.close().await;
    let copy = |from: &Path, to: &Path| {
        std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    };
    copy(folder.path(), early.path());
    let log = open(folder.path(), KEY).await.unwrap();
    append(&log, b"one more").await.unwrap();
    log.close().await;
    // An old backup with today's checkpoint.
    fs::copy(folder.path().join("checkpoint"), early.path().join("checkpoint")).unwrap();
    let error = open(early.path(), KEY).await.unwrap_err();
    assert!(error.what().contains("future"), "{error:?}");
    assert!(error.advice().unwrap().contains("backup"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_of(folder.path(), 1000).await;
    let checkpoint = log.published().checkpoint.clone();
    let findings = |log: &Log| check(&**log.storage(), Format::Entries, &checkpoint, 2).wrong;
    assert!(findings(&log).is_empty());
    for (kind, index) in [(TileKind::Hashes(0), 1), (TileKind::Entries, 2)] {
        let name = tile(kind, index);
        let path = folder.path().join(&name);
        let good = fs::read(&path).unwrap();
        // One bit.
        let mut bad = good.clone();
        bad[300] ^= 1;
        fs::write(&path, &bad).unwrap();
        let wrong = findings(&log);
        assert!(!wrong.is_empty(), "a flipped bit in {name} is not found");
        let mut refused = 0;
        for at in 256 * index..256 * (index + 1) {
            // What is given is right all the same.
            refused += u32::from(log.prove(at).await.is_err_and(|e| e.to_string().contains("damaged")));
        }
        assert!(refused > 0, "nothing in {name} is missed");
        // Gone.
        fs::remove_file(&path).unwrap();
        let wrong = findings(&log);
        assert!(wrong.iter().any(|w| w.contains(&name) && w.contains("missing")), "{wrong:?}");
        assert!(log.prove(256 * index + 9).await.is_err_and(|e| e.to_string().contains("missing")));
        // Short.
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(!findings(&log).is_empty());
        fs::write(&path, &good).unwrap();
        assert!(findings(&log).is_empty());
    }
    // What is at the edge is in memory: the log goes on all the same.
    append(&log, b"goes on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    log_of(folder.path(), 10).await.close().await;
    let path = folder.path().join("checkpoint");
    let good = fs::read(&path).unwrap();
    for at in [0, ORIGIN.len() + 1, 20, good.len() - 20] {
        let mut bad = good.clone();
        bad[at] ^= 2;
        fs::write(&path, bad).unwrap();
        let error = open(folder.path(), KEY).await.unwrap_err();
        assert!(error.to_string().contains("checkpoint"), "{error:?}");
    }
    // Another key.
    fs::write(&path, &good).unwrap();
    let error = open(folder.path(), KeyType::EcdsaP256).await.unwrap_err();
    assert!(error.what().contains("not by this log's key"), "{error:?}");
    open(folder.path(), KEY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_checkpoint_ends_the_log_without_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_of(folder.path(), 10).await;
    let path = folder.path().join("checkpoint");
    // A checkpoint that follows another one closely is brought into the folder a moment later.
    log.storage().settle().unwrap();
    let good = fs::read(&path).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    fs::write(&path, "something else\n").unwrap();
    let append = append(&log, b"refused");
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), append).await.expect("it ends");
    assert!(answer.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"something else\n");
    assert!(log.health().is_err_and(|e| e.what().contains("somebody else")));
    log.close().await;
    // Put right, the durable entry is there.
    fs::write(&path, &good).unwrap();
    assert_eq!(open(folder.path(), KEY).await.unwrap().published().checkpoint.size, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_extend_the_last_checkpoint_is_not_signed() {
    let mut signing = CheckpointSigner::new(ORIGIN, signer(KEY).await, false).unwrap();
    let (one, other) = (leaf_hash(b"one"), leaf_hash(b"other"));
    signing.sign(1, one, vec![], &[]).await.unwrap();
    // The same again is no fork.
    signing.sign(1, one, vec![], &[]).await.unwrap();
    for (size, root, proof) in
        [(1, other, vec![]), (0, one, vec![]), (2, other, vec![]), (2, other, vec![one])]
    {
        let error = signing.sign(size, root, vec![], &proof).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    }
    let two = signer_log_engine::node_hash(&one, &other);
    signing.sign(2, two, vec![], &[other]).await.unwrap();
}
