//! What becomes of the audit log, and of signatures, on bad days.
#![allow(clippy::unwrap_used)] // tests

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hwtests::{
    audit::{Audited, table},
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine, SoftHsm, Software},
    eventually,
    load::input,
    programs,
};
use signer_contract::PinSetup;
use signer_core::{Digest, ErrorKind, HashAlgorithm, SignRequest, SignatureAlgorithm};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

async fn serving(audited: &Audited, service: &str) -> ServingStatus {
    let mut health = audited.daemon.client().service(HealthClient::with_origin);
    let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
    answer.unwrap_or_else(|e| panic!("health of {service}: {e}")).into_inner().status()
}

/// The error that says that nothing is signed, once there is one.
async fn refused(audited: &Audited, key: &str) -> signer_core::Error {
    for _ in 0..1000 {
        match audited.sign(key, "refused?").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return error,
        }
    }
    panic!("it goes on signing; the daemon said:\n{}", audited.daemon.log());
}

/// Everybody is told, and nobody gets a signature, however they ask.
async fn is_closed(audited: &Audited, error: &signer_core::Error, word: &str) {
    let text = error.to_string();
    assert!(text.contains("nothing may be signed, because the audit log"), "{text}");
    assert!(text.contains(word), "{text}");
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    for _ in 0..20 {
        audited.sign("soft/release", "x").await.unwrap_err();
    }
    let stream = audited.daemon.client().sign_stream("soft/release", P256, 1);
    assert!(stream.sign(SignRequest::message(P256, "x")).await.is_err());
    let made = audited.daemon.client().rotate("soft/release").await;
    assert!(made.is_err(), "a key was changed");
    // Health says so, and which.
    let red = eventually(Duration::from_secs(5), async || {
        serving(audited, "audit").await == ServingStatus::NotServing
    });
    assert!(red.await);
    assert_eq!(serving(audited, "").await, ServingStatus::NotServing);
    assert_eq!(serving(audited, "backend/soft").await, ServingStatus::Serving);
    let status = programs::output(audited.daemon.signer().arg("status"));
    assert_eq!(status.status.code(), Some(1));
    assert!(programs::text(&status).contains(word), "{}", programs::text(&status));
}

async fn is_open_again(audited: &Audited) {
    audited.healthy().await;
    audited.sign("soft/release", "it goes on").await.unwrap();
    let green = eventually(Duration::from_secs(5), async || {
        serving(audited, "audit").await == ServingStatus::Serving
    });
    assert!(green.await);
    assert_eq!(serving(audited, "").await, ServingStatus::Serving);
    audited.settled().await;
    assert_eq!(audited.wrong(), Vec::<String>::new());
}

/// How often: a short form by default, `AUDIT_KILLS=200` for a long one.
fn kills() -> u32 {
    std::env::var("AUDIT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_has_recorded_every_signature_that_left() {
    let (soft, hsm) = (Software::start(), SoftHsm::start());
    let backends = [soft.toml("soft", PinSetup::Right), hsm.toml("hsm", PinSetup::Right)];
    let audited = Arc::new(Audited::start(&backends, "soft/audit", "").await);
    audited.daemon.make_key("soft", "release").await;
    audited.daemon.make_key("hsm", "release").await;
    let (stop, got) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(HashMap::new())));
    let callers: Vec<_> = (0..16)
        .map(|at| {
            let (client, stop, got) = (audited.daemon.client(), stop.clone(), got.clone());
            // What signs at once, and what has to be waited for.
            let key = if at % 2 == 0 { "soft/release" } else { "hsm/release" };
            tokio::spawn(async move {
                for round in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let message = format!("caller {at} round {round}");
                    match client.sign(key, Some(P256), input(P256, &message)).await {
                        Ok(_) => {
                            let digest = Digest::of(HashAlgorithm::Sha256, message.as_bytes());
                            got.lock().unwrap().insert(format!("{digest:?}"), key);
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                }
            })
        })
        .collect();
    let remembered = audited.daemon.folder().join("remembered");
    let mut seed = std::process::id();
    for _ in 0..kills() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        tokio::time::sleep(Duration::from_millis(u64::from(60 + (seed >> 16) % 300))).await;
        audited.daemon.kill();
        audited.daemon.start_again().await;
        audited.healthy().await;
        // Somebody who keeps the newest checkpoint sees the log grow, and never change.
        let mut check = audited.audit("check");
        programs::must(check.arg("--key").arg(audited.public_key()).arg("--remember").arg(&remembered));
    }
    audited.healthy().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let records = audited.settled().await;
    assert_eq!(audited.wrong(), Vec::<String>::new());
    // Each has its own digest: one record for each, and not one that says that it failed.
    let failed: Vec<_> =
        records.iter().filter(|r| r["outcome"] == "failed" || r["outcome"] == "abandoned").collect();
    let mut recorded: HashMap<&str, Vec<u64>> = HashMap::new();
    for record in records.iter().filter(|r| r["operation"] == "sign" && r.get("of").is_none()) {
        let ended = failed.iter().any(|f| f["of"] == record["sequence"]) || record["outcome"] == "failed";
        if !ended {
            let sequence = record["sequence"].as_u64().unwrap();
            recorded.entry(record["digest"].as_str().unwrap()).or_default().push(sequence);
        }
    }
    let got = got.lock().unwrap();
    for (digest, key) in got.iter() {
        let found = recorded.get(digest.as_str()).map_or(0, Vec::len);
        assert_eq!(found, 1, "a signature of {digest} by {key} left, and is {found} times in the log");
    }
    assert_eq!(records.iter().filter(|r| r["operation"] == "start").count() as u32, kills() + 1);
    println!("{} signatures left, {} records", got.len(), records.len());
    assert!(got.len() > 500, "only {} signatures", got.len());
}

/// A daemon whose log is on a file system of its own, seen by nobody else.
async fn on_a_small_disk(engine: &Software, more: &str) -> (Audited, PathBuf) {
    let root = rustix::process::getuid().is_root();
    let daemon = Daemon::prepare("");
    let disk = daemon.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let directory = disk.join("audit");
    // In a user namespace of its own the daemon sees everybody as root.
    let grants = if root { GRANT_ALL.to_owned() } else { GRANT_ALL.replace("uid:UID", "uid:0") };
    daemon.configure(&format!(
        "{}\n{}{grants}",
        engine.toml("soft", PinSetup::Right),
        table(&directory, "soft/audit", more)
    ));
    let mount =
        format!("mount -t tmpfs -o size=160m,mode=0700 tmpfs {} && exec \"$0\" \"$@\"", disk.display());
    let unshare: &[&str] =
        if root { &["unshare", "--mount"] } else { &["unshare", "--mount", "--map-root-user"] };
    let wrapper: Vec<&str> = unshare.iter().copied().chain(["sh", "-c", &mount]).collect();
    let mut audited = Audited::begin(daemon.wrapped(&wrapper), directory, "soft/audit").await;
    let seen = PathBuf::from(format!("/proc/{}/root{}", audited.daemon.pid(), disk.display()));
    audited.directory = seen.join("audit");
    audited.daemon.make_key("soft", "release").await;
    (audited, seen)
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("the daemon's disk can be seen");
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_signing_until_there_is_room() {
    let soft = Software::start();
    let (audited, disk) = on_a_small_disk(&soft, "max_unsigned = \"300 ms\"").await;
    audited.sign("soft/release", "before").await.unwrap();
    fill(&disk.join("filler"));
    let error = refused(&audited, "soft/release").await;
    is_closed(&audited, &error, "No space left on device").await;
    std::fs::remove_file(disk.join("filler")).unwrap();
    is_open_again(&audited).await;
}

/// With a longer time the journal itself has to run full. Then it is the disk that ends it, not the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_ends_signing_until_there_is_room() {
    let soft = Software::start();
    let (audited, disk) = on_a_small_disk(&soft, "max_unsigned = \"1 h\"").await;
    fill(&disk.join("filler"));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|at| {
            let (client, stop) = (audited.daemon.client(), stop.clone());
            tokio::spawn(async move {
                for round in 0_u64.. {
                    let input = input(P256, &format!("{at} {round}"));
                    if stop.load(Ordering::Relaxed)
                        || client.sign("soft/release", Some(P256), input).await.is_err()
                    {
                        return round;
                    }
                }
                0
            })
        })
        .collect();
    let mut signed = 0;
    for caller in callers {
        signed += tokio::time::timeout(Duration::from_mins(3), caller).await.expect("it ends").unwrap();
    }
    println!("{signed} signatures went into the journal");
    assert!(signed > 1000, "{signed}");
    let error = refused(&audited, "soft/release").await;
    is_closed(&audited, &error, "No space left on device").await;
    std::fs::remove_file(disk.join("filler")).unwrap();
    is_open_again(&audited).await;
    let records = audited.records();
    assert!(records.iter().any(|r| r["operation"] == "resume" && r["refused"].as_u64() > Some(0)));
    assert!(records.len() as u64 > signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_ends_signing_until_it_can_be_written() {
    let soft = Software::start();
    let (audited, _disk) = on_a_small_disk(&soft, "max_unsigned = \"300 ms\"").await;
    audited.sign("soft/release", "before").await.unwrap();
    let pid = audited.daemon.pid().to_string();
    let directory = audited.daemon.folder().join("disk/audit").display().to_string();
    let inside = |script: &str| {
        let mut enter = Command::new(programs::system("nsenter", "util-linux"));
        enter.args(["--target", &pid, "--mount"]);
        if !rustix::process::getuid().is_root() {
            enter.args(["--user", "--preserve-credentials"]);
        }
        programs::must(enter.args(["sh", "-c", script, &directory]));
    };
    inside("mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\"");
    let error = refused(&audited, "soft/release").await;
    is_closed(&audited, &error, "Read-only file system").await;
    inside("umount \"$0\"");
    is_open_again(&audited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_signing_goes_on_for_a_while_and_no_longer() {
    let (soft, hsm) = (Software::start(), SoftHsm::start());
    let backends = [soft.toml("soft", PinSetup::Right), hsm.toml("hsm", PinSetup::Right)];
    let audited = Audited::start(&backends, "hsm/audit", "max_unsigned = \"2 s\"").await;
    audited.daemon.make_key("soft", "release").await;
    audited.settled().await;
    let away = hsm.folder().join("away");
    std::fs::rename(hsm.tokens(), &away).unwrap();
    audited.sign("soft/release", "for a while").await.unwrap();
    let error = refused(&audited, "soft/release").await;
    is_closed(&audited, &error, "are not signed for since").await;
    assert!(error.to_string().contains("key audit, device hsm"), "{error}");
    // Killed in that state, it starts, and waits for the key all the same.
    audited.daemon.kill();
    audited.daemon.start_again().await;
    std::fs::rename(&away, hsm.tokens()).unwrap();
    is_open_again(&audited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_folder_is_refused() {
    let soft = Software::start();
    let audited = Audited::start(&[soft.toml("soft", PinSetup::Right)], "soft/audit", "").await;
    let second = Daemon::prepare(&format!(
        "{}\n{}{GRANT_ALL}",
        soft.toml("soft", PinSetup::Right),
        table(&audited.directory, "soft/audit", "")
    ));
    second.launch();
    let ended = second.ended(Duration::from_secs(10)).await.expect("the second daemon ends");
    assert!(!ended.success());
    let said = second.log();
    assert!(
        said.contains("in use by another process") && said.contains(&audited.daemon.pid().to_string()),
        "{said}"
    );
    audited.daemon.make_key("soft", "release").await;
    audited.sign("soft/release", "the first goes on").await.unwrap();
}

/// Whatever somebody does to the files, `check` finds it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_found() {
    let soft = Software::start();
    let audited = Audited::start(&[soft.toml("soft", PinSetup::Right)], "soft/audit", "").await;
    audited.daemon.make_key("soft", "release").await;
    let remembered = audited.daemon.folder().join("remembered");
    let check = || {
        let mut check = audited.audit("check");
        programs::output(check.arg("--key").arg(audited.public_key()).arg("--remember").arg(&remembered))
    };
    for i in 0..300 {
        audited.sign("soft/release", &format!("{i}")).await.unwrap();
    }
    audited.settled().await;
    assert!(check().status.success());
    let early = audited.daemon.folder().join("early");
    copy(&audited.directory, &early);
    for i in 0..300 {
        audited.sign("soft/release", &format!("later {i}")).await.unwrap();
    }
    audited.settled().await;
    assert!(audited.daemon.stop().success());
    assert!(check().status.success());
    let good = audited.daemon.folder().join("good");
    copy(&audited.directory, &good);
    let tile = audited.directory.join("tile/entries/001");
    let reset = || {
        std::fs::remove_dir_all(&audited.directory).unwrap();
        copy(&good, &audited.directory);
    };
    let found = |what: &str, word: &str| {
        let output = check();
        assert_eq!(output.status.code(), Some(1), "{what} is not found");
        assert!(programs::text(&output).contains(word), "{what}: {}", programs::text(&output));
        reset();
    };
    // One bit, in the first record.
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&tile, &bytes).unwrap();
    found("a flipped bit", "another hash");
    // Two records in another order.
    let bytes = std::fs::read(&tile).unwrap();
    let length = |at: usize| 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (one, two) = (length(0), length(length(0)));
    let swapped = [&bytes[one..one + two], &bytes[..one], &bytes[one + two..]].concat();
    std::fs::write(&tile, swapped).unwrap();
    found("another order", "another hash");
    // One record less, with the hashes made to fit: the checkpoint does not.
    std::fs::write(&tile, &bytes[one..]).unwrap();
    found("a record that was taken out", "tile/entries/001");
    std::fs::remove_file(&tile).unwrap();
    found("a tile that was taken away", "is missing");
    // A checkpoint by nobody.
    let checkpoint = audited.directory.join("checkpoint");
    let text = std::fs::read_to_string(&checkpoint).unwrap();
    let size = text.lines().nth(1).unwrap().to_owned();
    std::fs::write(&checkpoint, text.replacen(&size, "300", 1)).unwrap();
    found("another checkpoint", "not by this key");
    // All of it as it was earlier: good by itself, and not what was seen since.
    std::fs::remove_dir_all(&audited.directory).unwrap();
    copy(&early, &audited.directory);
    assert_eq!(audited.wrong(), Vec::<String>::new());
    found("an older state", "older state");
    // The daemon does not go on with a log that is older than its checkpoint.
    std::fs::copy(good.join("checkpoint"), early.join("checkpoint")).unwrap();
    std::fs::remove_dir_all(&audited.directory).unwrap();
    copy(&early, &audited.directory);
    audited.daemon.launch();
    let ended = audited.daemon.ended(Duration::from_secs(10)).await.expect("the daemon ends");
    assert!(!ended.success());
    assert!(audited.daemon.log().contains("from the future"), "{}", audited.daemon.log());
}

fn copy(from: &Path, to: &Path) {
    programs::must(Command::new("cp").arg("-a").arg(from).arg(to));
}
