//! Crashes, full disks, wrong permissions, wrong passphrases, damaged files.
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use signer_core::{Backend, ErrorKind, KeyType, ListRequest};
use signer_software::SoftwareBackend;
use support::{
    Place, config, delete, generate, kind, list, now, open, open_key, rotate, selector, snapshot,
    try_to_sign, works,
};

mod support;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn private_folder(path: &Path) {
    std::fs::create_dir(path).unwrap();
    chmod(path, 0o700);
}

/// Every state that a kill between two steps of a change can leave, made by hand.
#[test]
fn what_a_crash_leaves_is_no_key_and_is_cleaned() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let directory = place.directory();
    let key = directory.join("k");
    let before = snapshot(&directory);

    // A new key, half written; and a whole one that was not renamed yet.
    private_folder(&directory.join(".new-0000000000000001"));
    std::fs::write(directory.join(".new-0000000000000001/1.pem"), "-----BEGIN ENCR").unwrap();
    private_folder(&directory.join(".new-0000000000000002"));
    for file in ["1.pem", "1.pub"] {
        std::fs::copy(key.join(file), directory.join(".new-0000000000000002").join(file)).unwrap();
    }
    private_folder(&directory.join(".new-0000000000000003"));
    // A deleted key whose files are not removed yet.
    private_folder(&directory.join(".deleted-0000000000000004"));
    std::fs::copy(key.join("1.pem"), directory.join(".deleted-0000000000000004/1.pem")).unwrap();
    assert_eq!(list(&place.backend), ["k@1"]);
    let started = place.started_again();
    assert_eq!(list(&started), ["k@1"]);
    assert_eq!(snapshot(&directory), before);
    works(&started, "k");

    // A new version whose public file was moved, and whose private one was not.
    std::fs::copy(key.join("1.pub"), key.join("2.pub")).unwrap();
    let started = place.started_again();
    assert_eq!(list(&started), ["k@1"]);
    assert_eq!(open_key(&started, "k").unwrap().info().name.version(), Some("1"));
    assert_eq!(kind(open_key(&started, "k@2")), ErrorKind::NotFound);
    // Its number is used up, and the next version is whole.
    assert_eq!(rotate(&started, "k").unwrap().name.to_string(), "k@3");
    works(&started, "k@3");

    // A version that was to be deleted: its number is marked, its files are there.
    std::fs::write(key.join("3.deleted"), "").unwrap();
    works(&place.started_again(), "k@3");
    // Its private file was moved away, the others were not.
    std::fs::remove_file(key.join("3.pem")).unwrap();
    let started = place.started_again();
    assert_eq!(list(&started), ["k@1"]);
    assert_eq!(kind(delete(&started, "k@3")), ErrorKind::NotFound);
    assert_eq!(rotate(&started, "k").unwrap().name.to_string(), "k@4");

    // A folder that holds no key does not keep a name from being used.
    private_folder(&directory.join("empty"));
    generate(&started, "empty", KeyType::Ed25519).unwrap();
    works(&started, "empty");
    assert_eq!(list(&place.started_again()), ["empty@1", "k@1", "k@4"]);
}

/// Kills a process that makes, rotates and deletes keys as fast as it can, many times, and looks at what is left.
#[test]
fn a_killed_process_leaves_whole_keys() {
    if let Ok(directory) = std::env::var("SIGNER_SOFTWARE_TEST_CHURN") {
        let backend = open(Path::new(&directory));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10); // should nobody kill it
        for round in 0_u64.. {
            assert!(std::time::Instant::now() < end, "the test that was to kill this is gone");
            let name = format!("k{}", round % 5);
            let _ = generate(&backend, &name, KeyType::Ed25519);
            let _ = rotate(&backend, &name);
            let _ = rotate(&backend, &name);
            let _ = delete(&backend, if round % 3 == 0 { &name } else { "k0@2" });
        }
    }
    let place = Place::new();
    generate(&place.backend, "stays", KeyType::EcdsaP256).unwrap();
    let mut seen = 0;
    for round in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_leaves_whole_keys", "--nocapture"])
            .env("SIGNER_SOFTWARE_TEST_CHURN", place.directory())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(400 + round * 7));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let started = place.started_again();
        for name in list(&started) {
            works(&started, &name);
            seen += 1;
        }
        works(&started, "stays");
        generate(&started, "after", KeyType::Ed25519).unwrap();
        delete(&started, "after").unwrap();
        for entry in std::fs::read_dir(place.directory()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".new-") && !name.starts_with(".deleted-"), "{name}");
        }
    }
    println!("{seen} keys checked");
    assert!(seen > 60, "the killed processes made too little to prove anything: {seen}");
}

/// A tiny file system that is unmounted in the end.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(mount.is_ok_and(|s| s.success()), "this test mounts a tmpfs: run it as root");
        Self(folder)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_changes_nothing() {
    let disk = TinyDisk::new("64k");
    let backend = open(&disk.0.path().join("keys"));
    let directory = disk.0.path().join("keys");
    generate(&backend, "k", KeyType::EcdsaP256).unwrap();
    // A file that leaves room for so many pages: the write fails at a different step each time.
    let filler = disk.0.path().join("filler");
    let mut failures = 0;
    for pages in 0..=4 {
        let free = rustix_free_pages(disk.0.path());
        std::fs::write(&filler, vec![0; (free - pages) * 4096]).unwrap();
        let before = snapshot(&directory);
        for change in [
            generate(&backend, "new", KeyType::MlDsa87).map(drop),
            rotate(&backend, "k").map(drop),
            store_own_certificate(&backend, "k"),
        ] {
            let Err(error) = change else { continue };
            failures += 1;
            assert!(error.to_string().contains("disk is full"), "{error}");
            assert!(error.device_name() == Some("soft") && !error.is_uncertain(), "{error}");
        }
        if pages == 0 {
            assert_eq!(failures, 3, "something was written to a full disk");
            assert_eq!(snapshot(&directory), before, "a failed change left something behind");
        }
        let started = open(&directory);
        works(&started, "k");
        for name in list(&started) {
            works(&started, &name);
        }
        let _ = delete(&started, "new");
        for extra in list(&started).iter().filter(|n| *n != "k@1") {
            delete(&started, extra).unwrap();
        }
        std::fs::remove_file(&filler).unwrap();
    }
    generate(&backend, "new", KeyType::MlDsa87).unwrap();
    works(&backend, "new");
}

fn rustix_free_pages(path: &Path) -> usize {
    let stat = rustix::fs::statvfs(path).unwrap();
    usize::try_from(stat.f_bfree * stat.f_frsize / 4096).unwrap()
}

fn store_own_certificate(backend: &SoftwareBackend, name: &str) -> Result<(), signer_core::Error> {
    let signer = open_key(backend, name).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let certificate = runtime.block_on(signer_contract::self_signed(&*signer, "full disk")).unwrap();
    now(Backend::store_certificate(backend).unwrap().store_certificate(&selector(name), &certificate))
}

#[test]
fn files_that_others_can_read_are_refused_with_the_command_that_helps() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let directory = place.directory();
    for (path, mode, fix) in [
        (directory.join("k/1.pem"), 0o640, 0o600),
        (directory.join("k/1.pem"), 0o604, 0o600),
        (directory.join("k"), 0o750, 0o700),
        (directory.clone(), 0o701, 0o700),
    ] {
        chmod(&path, mode);
        let errors = [
            now(place.backend.list(ListRequest::default())).err(),
            open_key(&place.backend, "k").err(),
            rotate(&place.backend, "k").err(),
        ];
        for error in errors.into_iter().map(|e| e.expect("an exposed key is refused")) {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert_eq!(error.advice(), Some(&*format!("run `chmod {fix:o} '{}'`", path.display())));
        }
        chmod(&path, fix);
        works(&place.started_again(), "k");
    }
    chmod(&directory, 0o755);
    let error = SoftwareBackend::open(config(&directory, "p")).err().unwrap();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn links_are_not_followed() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let (directory, elsewhere) = (place.directory(), place.folder.path().join("elsewhere"));
    std::fs::rename(directory.join("k"), &elsewhere).unwrap();
    symlink(&elsewhere, directory.join("k")).unwrap();
    assert_eq!(kind(open_key(&place.backend, "k")), ErrorKind::Denied);
    std::fs::remove_file(directory.join("k")).unwrap();
    std::fs::rename(&elsewhere, directory.join("k")).unwrap();
    works(&place.backend, "k");
    let pem = directory.join("k/1.pem");
    std::fs::rename(&pem, &elsewhere).unwrap();
    symlink(&elsewhere, &pem).unwrap();
    let started = place.started_again();
    assert_eq!(kind(open_key(&started, "k")), ErrorKind::Denied);
}

#[test]
fn a_wrong_passphrase_is_told_and_makes_no_key() {
    let place = Place::new();
    now(place.backend.health()).unwrap();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let before = snapshot(&place.directory());
    let wrong = SoftwareBackend::open(config(&place.directory(), "something else")).unwrap();
    assert_eq!(list(&wrong), ["k@1"], "names need no passphrase");
    let signer = open_key(&wrong, "k").unwrap();
    for error in [
        try_to_sign(&*signer).unwrap_err(),
        try_to_sign(&*signer).unwrap_err(),
        now(wrong.health()).unwrap_err(),
        generate(&wrong, "new", KeyType::EcdsaP256).unwrap_err(),
        rotate(&wrong, "k").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: None }, "{error}");
        assert!(error.what().contains(".pem"), "{error}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("something else") && !text.contains(support::PASSPHRASE), "{text}");
    }
    // Without the check file, a key that is there tells it.
    std::fs::remove_file(place.directory().join(".check.pem")).unwrap();
    let wrong = SoftwareBackend::open(config(&place.directory(), "something else")).unwrap();
    assert!(matches!(kind(generate(&wrong, "new", KeyType::EcdsaP256)), ErrorKind::WrongPin { .. }));
    let right = place.started_again();
    generate(&right, "new", KeyType::EcdsaP256).unwrap();
    delete(&right, "new").unwrap();
    assert_eq!(snapshot(&place.directory()).len(), before.len());
    works(&place.started_again(), "k");
}

#[test]
fn files_that_do_not_belong_together_are_noticed_at_the_first_signature() {
    let place = Place::new();
    for name in ["a", "b"] {
        generate(&place.backend, name, KeyType::EcdsaP256).unwrap();
    }
    let directory = place.directory();
    std::fs::copy(directory.join("b/1.pub"), directory.join("a/1.pub")).unwrap();
    let started = place.started_again();
    let error = try_to_sign(&*open_key(&started, "a").unwrap()).unwrap_err();
    assert!(error.kind() == ErrorKind::Internal && error.what().contains("a/1.pem"), "{error}");
    works(&started, "b");

    // Damage of each file by itself; the others go on.
    std::fs::write(directory.join("a/1.pub"), "nonsense").unwrap();
    let started = place.started_again();
    assert_eq!(list(&started), ["b@1"]);
    let error = open_key(&started, "a").err().unwrap();
    assert!(error.what().contains("a/1.pub") && error.advice().is_some(), "{error}");
    std::fs::copy(directory.join("b/1.pub"), directory.join("a/1.pub")).unwrap();
    std::fs::write(directory.join("a/1.pem"), "nonsense").unwrap();
    let started = place.started_again();
    let error = try_to_sign(&*open_key(&started, "a").unwrap()).unwrap_err();
    assert!(error.what().contains("a/1.pem") && error.advice().is_some(), "{error}");
    assert_eq!(kind(generate(&started, "a", KeyType::EcdsaP256)), ErrorKind::AlreadyExists);
    delete(&started, "a").unwrap();
    assert_eq!(list(&started), ["b@1"]);
}

#[test]
fn a_folder_that_goes_away_and_comes_back() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::EcdsaP256).unwrap();
    let signer = open_key(&place.backend, "k").unwrap();
    let away = place.folder.path().join("away");
    std::fs::rename(place.directory(), &away).unwrap();
    assert_eq!(kind(now(place.backend.health())), ErrorKind::DeviceGone);
    assert_eq!(kind(now(signer.health())), ErrorKind::DeviceGone);
    assert_eq!(kind(now(place.backend.list(ListRequest::default()))), ErrorKind::DeviceGone);
    assert_eq!(kind(generate(&place.backend, "new", KeyType::EcdsaP256)), ErrorKind::DeviceGone);
    std::fs::rename(&away, place.directory()).unwrap();
    now(place.backend.health()).unwrap();
    now(signer.health()).unwrap();
    works(&place.backend, "k");
}
