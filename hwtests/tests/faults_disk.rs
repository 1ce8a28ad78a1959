//! A full disk while keys are made.
#![allow(clippy::unwrap_used)] // tests

use std::{io::Write, path::PathBuf, time::Duration};

use hwtests::{daemon::Daemon, load::input, random_secret, toml_path};
use signer_core::{
    Backend, ErrorKind, GenerateRequest, HashAlgorithm, KeyName, KeyType, ListRequest, SignatureAlgorithm,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A daemon whose keys and state are on a file system of 1 MiB of its own, seen by nobody else.
async fn daemon_on_a_small_disk() -> (Daemon, PathBuf) {
    let root = rustix::process::getuid().is_root();
    let passphrase = random_secret();
    let daemon = Daemon::prepare("");
    let disk = daemon.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let pin = daemon.folder().join("passphrase");
    hwtests::engines::private_file(&pin, &passphrase);
    // In a user namespace of its own the daemon sees everybody as root.
    let uid = if root { "UID" } else { "0" };
    daemon.configure(&format!(
        "{}\n[[grant]]\ncallers = [\"uid:{uid}\"]\nkeys = [\"*\"]\noperations = [\"*\"]\n",
        hwtests::engines::software_toml("soft", &disk.join("keys"), Some(pin))
    ));
    let text = std::fs::read_to_string(daemon.configuration()).unwrap();
    let state = format!("state = {}", toml_path(&daemon.state()));
    assert!(text.contains(&state));
    std::fs::write(
        daemon.configuration(),
        text.replace(&state, &format!("state = {}", toml_path(&disk.join("state")))),
    )
    .unwrap();
    let mount = format!("mount -t tmpfs -o size=1m,mode=0700 tmpfs {} && exec \"$0\" \"$@\"", disk.display());
    let unshare: &[&str] =
        if root { &["unshare", "--mount"] } else { &["unshare", "--mount", "--map-root-user"] };
    let wrapper: Vec<&str> = unshare.iter().copied().chain(["sh", "-c", &mount]).collect();
    let daemon = daemon.wrapped(&wrapper);
    daemon.start_again().await;
    let seen = PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), disk.display()));
    (daemon, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_the_new_key_and_nothing_else() {
    let (daemon, disk) = daemon_on_a_small_disk().await;
    let mut keys = Vec::new();
    for at in 0..3 {
        keys.push(daemon.make_key("soft", &format!("before {at}")).await);
    }
    // Filled to the last byte.
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).expect("the daemon's disk can be seen");
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);

    let backend = daemon.backend("soft").await;
    let generate = async |name: &str| {
        let name = KeyName::label(name).unwrap();
        let request = GenerateRequest::new(name, KeyType::Rsa2048);
        backend.generate().unwrap().generate(request).await
    };
    for at in 0..3 {
        let error = generate(&format!("full {at}")).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("space") || text.contains("full"),
            "it does not say that the disk is full: {error:?}"
        );
        assert!(!error.is_uncertain(), "it is certain that no key was made: {error:?}");
        assert_ne!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    }
    let rotated = backend.rotate().unwrap().rotate(&KeyName::label("before 0").unwrap()).await;
    assert!(rotated.is_err(), "a key was rotated on a full disk");

    // The old state is untouched.
    let check = async |count: usize| {
        let listed = daemon.backend("soft").await.list(ListRequest::default()).await.unwrap().keys;
        assert_eq!(
            listed.len(),
            count,
            "{:?}",
            listed.iter().map(|k| k.name.to_string()).collect::<Vec<_>>()
        );
        for key in &keys {
            let input = input(P256, "x");
            let signed =
                daemon.client().sign(&format!("soft/{}", key.name), Some(P256), input.clone()).await.unwrap();
            key.public_key.verify(P256, &input, signed.signature.as_bytes()).unwrap();
        }
    };
    check(3).await;
    // Room again: the same names are free.
    std::fs::remove_file(&filler).unwrap();
    for at in 0..3 {
        generate(&format!("full {at}")).await.unwrap();
    }
    check(6).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let halves: Vec<_> = std::fs::read_dir(disk.join("keys"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("tmp") || name.contains("new") || name.ends_with('~'))
        .collect();
    assert!(halves.is_empty(), "half-written files are left: {halves:?}");
}
