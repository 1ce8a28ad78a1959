//! Appending, reading and starting again.
#![allow(clippy::unwrap_used)] // tests

mod support;

use signer_core::{ErrorKind, KeyType};
use signer_log_engine::{
    Checkpoint, Folder, Format, Objects, StoredNodes, Submitted, check, consistency_proof, leaf_hash,
    prove_stored, verify_consistency, verify_inclusion,
};
use support::{append, append_all, entry, open};

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_is_proven_by_its_own_answer() {
    for key_type in [KeyType::Ed25519, KeyType::EcdsaP256] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path(), key_type).await.unwrap();
        assert_eq!(log.published().checkpoint.size, 0);
        let mut last = log.published().checkpoint.clone();
        for i in 0..300_u32 {
            let body = format!("entry {i}").into_bytes();
            let answer = append(&log, &body).await.unwrap();
            assert_eq!((answer.index, answer.size), (u64::from(i), u64::from(i) + 1));
            let checkpoint = Checkpoint::verified(answer.checkpoint.as_bytes(), log.key()).unwrap();
            assert_eq!((checkpoint.size, checkpoint.root), (answer.size, answer.root));
            verify_inclusion(&leaf_hash(&body), answer.index, answer.size, &answer.proof, &answer.root)
                .unwrap();
            if i % 50 == 0 {
                let nodes = StoredNodes::new(&**log.storage(), checkpoint.size);
                let proof = consistency_proof(last.size, checkpoint.size, &nodes).unwrap();
                verify_consistency((last.size, &last.root), (checkpoint.size, &checkpoint.root), &proof)
                    .unwrap();
                last = checkpoint;
            }
        }
        let root = log.published().checkpoint.root;
        for index in [0, 1, 255, 256, 299] {
            let (_, bytes) = prove_stored(&**log.storage(), Format::Entries, (300, &root), index).unwrap();
            assert_eq!(&bytes[2..], format!("entry {index}").as_bytes());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_batches() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    let bodies: Vec<_> = (0..3000).map(|i| format!("entry {i}").into_bytes()).collect();
    let answers = append_all(&log, bodies.clone()).await;
    for (body, answer) in bodies.iter().zip(answers) {
        let answer = answer.unwrap();
        verify_inclusion(&leaf_hash(body), answer.index, answer.size, &answer.proof, &answer.root).unwrap();
    }
    assert!(log.batches() < 1500, "{} batches for 3000 entries", log.batches());
    let findings = check(&**log.storage(), Format::Entries, &log.published().checkpoint, 2);
    assert_eq!((findings.wrong, findings.entries), (vec![], 3000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_entry_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    append_all(&log, (0..600).map(|i| format!("entry {i}").into_bytes()).collect()).await;
    let first = append(&log, b"again").await.unwrap().index;
    let duplicate = async |log: &signer_log_engine::Log| {
        let (hash, build) = entry(b"again");
        match log.submit(hash, build).await.unwrap() {
            Submitted::Duplicate(index) => index,
            Submitted::New(_) => panic!("it was taken for new"),
        }
    };
    assert_eq!(duplicate(&log).await, first);
    // From the file, when memory has let go of it.
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    assert_eq!(duplicate(&log).await, first);
    // Two at the same time.
    let (one, two) = (entry(b"both"), entry(b"both"));
    let (one, two) = tokio::join!(log.submit(one.0, one.1), async {
        tokio::task::yield_now().await;
        log.submit(two.0, two.1).await
    });
    let Submitted::New(one) = one.unwrap() else { panic!("the first is new") };
    let index = one.published().await.unwrap().index;
    assert!(matches!(two.unwrap(), Submitted::Duplicate(i) if i == index));
    log.close().await;
    // After a start, and after a start without the file.
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    assert_eq!(duplicate(&log).await, first);
    log.close().await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!(".state/entries.sqlite{suffix}")));
    }
    std::fs::write(folder.path().join(".state/entries.sqlite"), b"not a database at all, not at all")
        .unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    assert_eq!(duplicate(&log).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for round in 0..5 {
        let log = open(folder.path(), KeyType::EcdsaP256).await.unwrap();
        assert_eq!(log.published().checkpoint.size, expected);
        let bodies =
            (0..100 * (round + 1)).map(|i| format!("round {round} entry {i}").into_bytes()).collect();
        expected += append_all(&log, bodies).await.into_iter().flatten().count() as u64;
        log.close().await;
    }
    let log = open(folder.path(), KeyType::EcdsaP256).await.unwrap();
    let findings = check(&**log.storage(), Format::Entries, &log.published().checkpoint, 2);
    assert_eq!((findings.wrong, findings.entries), (vec![], 1500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    let error = open(folder.path(), KeyType::Ed25519).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy { .. }), "{error:?}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    append(&log, b"the first goes on").await.unwrap();
    log.close().await;
    open(folder.path(), KeyType::Ed25519).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_folder_sees_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    append_all(&log, (0..700).map(|i| format!("entry {i}").into_bytes()).collect()).await;
    let reader = Folder::new(folder.path());
    let note = reader.read("checkpoint").unwrap().unwrap();
    let checkpoint = Checkpoint::verified(&note, log.key()).unwrap();
    assert_eq!(check(&reader, Format::Entries, &checkpoint, 1).wrong, Vec::<String>::new());
    assert!(reader.read("../etc/passwd").unwrap().is_none());
    assert!(reader.read(".state/lock").unwrap().is_none());
}
