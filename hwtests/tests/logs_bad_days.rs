//! What a served log does on bad days.
#![allow(clippy::unwrap_used)] // tests

use std::{io::Write, path::PathBuf, time::Duration};

use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    eventually,
    log::{ENTRIES, LogServer, Signatory},
    programs,
};
use signer_contract::PinSetup;

const PATIENCE: Duration = Duration::from_secs(20);

async fn daemon() -> (Software, Daemon) {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "log").await;
    (engine, daemon)
}

async fn post(log: &LogServer, artifact: &str) -> u16 {
    let request = Signatory::default().request(artifact.as_bytes()).to_string();
    log.caller().post(ENTRIES, request.as_bytes()).await.map_or(0, |answer| answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_folder_ends_and_the_first_goes_on() {
    let (_engine, daemon) = daemon().await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let second = programs::output(
        log.command().args(["serve", "--listen", "127.0.0.1:0", "--storage"]).arg(log.storage()),
    );
    assert_eq!(second.status.code(), Some(3), "{}", programs::text(&second));
    let text = programs::text(&second);
    assert!(text.contains("in use by another process") && text.contains(&log.pid().to_string()), "{text}");
    assert_eq!(post(&log, "the first goes on").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_log_waits_and_goes_on_by_itself() {
    let (_engine, daemon) = daemon().await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &["--timeout", "3"]).await;
    for i in 0..10 {
        assert_eq!(post(&log, &format!("before {i}")).await, 201);
    }
    daemon.kill();
    let status = post(&log, "while it is away").await;
    assert_eq!(status, 503, "an entry was acknowledged without a signature");
    let stuck = eventually(PATIENCE, async || {
        let health = log.caller().get("/healthz").await.unwrap();
        health.status == 503 && health.json()["why"].as_str().is_some_and(|w| !w.is_empty())
    });
    assert!(stuck.await, "health does not say so");
    // What is refused at once does not wait.
    let began = std::time::Instant::now();
    assert_eq!(post(&log, "refused").await, 503);
    assert!(began.elapsed() < Duration::from_secs(1));
    daemon.start_again().await;
    let back =
        eventually(PATIENCE, async || log.caller().get("/healthz").await.is_ok_and(|h| h.status == 200));
    assert!(back.await, "it does not go on by itself: {}", log.output());
    assert_eq!(post(&log, "after").await, 201);
    let (wrong, size) = log.check();
    assert_eq!((wrong, size), (vec![], 12), "ten before, the one that was durable, and one after");
}

/// A log on a small file system of its own, seen by nobody else.
async fn log_on_a_small_disk(daemon: &Daemon) -> (LogServer, PathBuf) {
    let mount = daemon.folder().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let original = LogServer::make(daemon, "log", "signature", "soft/log", &["--timeout", "3"]);
    let script = format!(
        "mount -t tmpfs -o size=80m,mode=0700 tmpfs {0} && cp -a {1}/. {0}/ && mount --bind {0} {1} && exec \"$0\" \"$@\"",
        mount.display(),
        original.storage().display()
    );
    let root = rustix::process::getuid().is_root();
    let unshare: &[&str] =
        if root { &["unshare", "--mount"] } else { &["unshare", "--mount", "--map-root-user"] };
    let wrapper: Vec<&str> = unshare.iter().copied().chain(["sh", "-c", &script]).collect();
    let mut log = original.wrapped(&wrapper);
    log.launch();
    log.ready().await;
    let seen = PathBuf::from(format!("/proc/{}/root{}", log.pid(), log.storage().display()));
    (log, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let (_engine, daemon) = daemon().await;
    let (log, disk) = log_on_a_small_disk(&daemon).await;
    for i in 0..20 {
        assert_eq!(post(&log, &format!("before {i}")).await, 201);
    }
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).expect("the log's disk can be seen");
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);
    let refused =
        eventually(PATIENCE, async || post(&log, &format!("{:?}", std::time::Instant::now())).await == 503);
    assert!(refused.await, "entries are acknowledged on a full disk");
    let health = log.caller().get("/healthz").await.unwrap();
    assert_eq!(health.status, 503);
    assert!(health.text().contains("room"), "{}", health.text());
    std::fs::remove_file(&filler).unwrap();
    let back = eventually(PATIENCE, async || post(&log, "after").await == 201);
    assert!(back.await, "it does not go on by itself: {}", log.output());
    let found = programs::output(log.command().args(["check", "--output", "json"]).arg(&disk));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["wrong"], serde_json::json!([]));
    assert!(found["size"].as_u64().unwrap() >= 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_refused() {
    let (_engine, daemon) = daemon().await;
    daemon.make_key("soft", "other").await;
    let log = LogServer::make(&daemon, "log", "signature", "soft/log", &[]);
    let other = programs::output(
        log.command().args(["serve", "--key", "soft/other", "--storage"]).arg(log.storage()),
    );
    assert_eq!(other.status.code(), Some(4), "{}", programs::text(&other));
    let again = programs::output(
        log.command()
            .args(["init", "--kind", "signature", "--origin", "x", "--key", "soft/log", "--storage"])
            .arg(log.storage()),
    );
    assert!(programs::text(&again).contains("already"), "{}", programs::text(&again));
}
