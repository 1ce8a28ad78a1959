//! Logs in buckets, on S3 servers of others: MinIO and versitygw.
#![allow(clippy::unwrap_used)] // tests

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    eventually,
    log::{Acknowledged, ENTRIES, LogServer, Signatory},
    programs,
    proxy::{Carry, Proxy},
    s3::{Make, S3},
};
use serde_json::{Value, json};
use signer_contract::PinSetup;
use signer_log_engine::{EntryRef, Folder, Format, TileId, TileKind, WIDTH, read_entry_tile};

const PATIENCE: Duration = Duration::from_secs(30);

async fn daemon() -> (Software, Daemon) {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    let key = daemon.make_key("soft", "log").await.public_key;
    std::fs::write(daemon.folder().join("log.pub"), key.to_pem()).unwrap();
    (engine, daemon)
}

/// A server for the log in the bucket, with an index of its own.
fn server(daemon: &Daemon, s3: &S3, address: &str, name: &str) -> LogServer {
    let state = daemon.folder().join(format!("{name}.state"));
    let arguments = ["--state", state.to_str().unwrap(), "--timeout", "5"];
    LogServer::at(daemon, name, PathBuf::from(s3.url("log/2026")), s3.environment(address), &arguments)
}

async fn served(daemon: &Daemon, s3: &S3, address: &str, name: &str) -> LogServer {
    let mut log = server(daemon, s3, address, name);
    log.launch();
    log.ready().await;
    log
}

async fn post(log: &LogServer, request: &str) -> (u16, Value) {
    match log.caller().post(ENTRIES, request.as_bytes()).await {
        Ok(answer) => (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null)),
        Err(_) => (0, Value::Null),
    }
}

async fn post_new(log: &LogServer, artifact: &str) -> u16 {
    post(log, &Signatory::default().request(artifact.as_bytes()).to_string()).await.0
}

macro_rules! on {
    ($($name:ident: $make:expr,)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn a_log_lives_in_a_bucket_from_init_to_freeze() {
                super::from_init_to_freeze($make).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn two_servers_on_one_bucket_never_fork() {
                super::two_servers($make).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_happens_to_the_store_is_over_when_it_is_over() {
                super::bad_days($make).await;
            }
        }
    )*};
}

on! {
    minio: Make::Minio,
    versitygw: Make::Versitygw,
}

async fn from_init_to_freeze(make: Make) {
    let (s3, (_engine, daemon)) = (S3::start(make).await, daemon().await);
    let mut log = server(&daemon, &s3, s3.address(), "log");
    // Nothing is there yet.
    let missing = programs::output(log.command().args(["serve", "--storage"]).arg(log.storage()));
    assert_eq!(missing.status.code(), Some(1), "{}", programs::text(&missing));
    assert!(programs::text(&missing).contains("signer-log init"), "{}", programs::text(&missing));
    log.init("signature", "soft/log");
    let again = programs::output(
        log.command()
            .args(["init", "--kind", "signature", "--origin", "x", "--key", "soft/log", "--storage"])
            .arg(log.storage()),
    );
    assert!(programs::text(&again).contains("already"), "{}", programs::text(&again));
    log.launch();
    log.ready().await;
    let signatory = Signatory::default();
    let first = signatory.request(b"the first").to_string();
    assert_eq!(post(&log, &first).await.0, 201);
    let callers: Vec<_> = (0..8)
        .map(|at| {
            let mut caller = log.caller();
            tokio::spawn(async move {
                let signatory = Signatory::default();
                for i in 0..40 {
                    let request = signatory.request(format!("{at} {i}").as_bytes()).to_string();
                    assert_eq!(caller.post(ENTRIES, request.as_bytes()).await.unwrap().status, 201);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Over HTTP, from the bucket, and as a mirror: the same log.
    assert_eq!(log.check(), (vec![], 321));
    let key = daemon.folder().join("log.pub");
    let url = format!("http://{}/api/v2", log.address());
    programs::must(
        log.command()
            .args(["check", &url, "--kind", "signature", "--origin", "log.example", "--public-key"])
            .arg(&key),
    );
    programs::must(
        log.command().arg("mirror").arg(log.storage()).arg("--storage").arg(daemon.folder().join("copy")),
    );
    let proof =
        programs::must(log.command().arg("prove").arg(log.storage()).args(["300", "--output", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&proof).unwrap()["size"], 321);
    // The bucket as it is can be served: full tiles and no old partial ones.
    let full = eventually(PATIENCE, async || {
        let objects = s3.objects();
        objects.contains("tile/entries/000<") && !objects.contains("tile/entries/000.p/1<")
    });
    assert!(full.await, "{}", s3.objects());

    // All that is not in the bucket is lost.
    assert!(log.stop().success());
    std::fs::remove_dir_all(daemon.folder().join("log.state")).unwrap();
    log.launch();
    log.ready().await;
    let (status, answer) = post(&log, &first).await;
    assert_eq!(status, 409, "{answer}");
    assert!(log.stop().success());

    programs::must(log.command().args(["freeze", "--storage"]).arg(log.storage()));
    log.launch();
    log.ready().await;
    assert_eq!(post_new(&log, "too late").await, 405);
    assert_eq!(log.check(), (vec![], 321));
}

/// How often: a short form by default, `LOG_KILLS=200` for the long one.
fn kills() -> u32 {
    std::env::var("LOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

async fn two_servers(make: Make) {
    let (s3, (_engine, daemon)) = (S3::start(make).await, daemon().await);
    let first = server(&daemon, &s3, s3.address(), "one");
    first.init("signature", "soft/log");
    drop(first);
    let mut logs =
        [served(&daemon, &s3, s3.address(), "one").await, served(&daemon, &s3, s3.address(), "two").await];
    let acknowledged = Acknowledged::default();
    let callers: Vec<_> =
        (0..16).map(|at| tokio::spawn(acknowledged.clone().write(logs[at % 2].caller(), at))).collect();
    let mirror = daemon.folder().join("mirror");
    let mut seed = std::process::id();
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for _ in 0..kills() {
        tokio::time::sleep(Duration::from_millis(u64::from(100 + random(700)))).await;
        let killed = &mut logs[random(2) as usize];
        killed.kill();
        killed.launch();
        killed.ready().await;
        // Somebody who follows the log from outside sees it grow and never change.
        programs::must(logs[0].command().arg("mirror").arg(logs[0].storage()).arg("--storage").arg(&mirror));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    acknowledged.stop();
    let mut by = [0, 0];
    for (at, caller) in callers.into_iter().enumerate() {
        by[at % 2] += caller.await.unwrap();
    }
    assert!(by[0] > 20 && by[1] > 20, "one server never had a chance: {by:?}");
    for log in &mut logs {
        assert!(log.stop().success());
    }
    let (wrong, size) = logs[0].check();
    assert_eq!(wrong, Vec::<String>::new());
    programs::must(logs[0].command().arg("mirror").arg(logs[0].storage()).arg("--storage").arg(&mirror));
    let folder = Folder::new(&mirror);
    let mut there = Vec::new();
    for tile in 0..size.div_ceil(WIDTH) {
        let id = TileId::new(TileKind::Entries, tile, (size - tile * WIDTH).min(WIDTH)).unwrap();
        let bytes = read_entry_tile(&folder, Format::Entries, id).unwrap();
        there.extend(Format::Entries.split_all(&bytes).unwrap().iter().map(EntryRef::leaf_hash));
    }
    let acknowledged = acknowledged.entries();
    assert!(acknowledged.len() > 100, "only {} entries were acknowledged", acknowledged.len());
    for (index, hash) in &acknowledged {
        assert_eq!(
            there.get(*index as usize),
            Some(hash),
            "entry {index} was acknowledged and is another one"
        );
    }
    println!("{} acknowledged of {size}, by each {by:?}", acknowledged.len());
}

async fn bad_days(make: Make) {
    let (mut s3, (_engine, daemon)) = (S3::start(make).await, daemon().await);
    let proxy = Proxy::start(s3.address()).await;
    let log = server(&daemon, &s3, s3.address(), "log");
    log.init("signature", "soft/log");
    // Credentials that are none.
    let denied = programs::output(
        log.command().env("AWS_SECRET_ACCESS_KEY", "wrong").args(["serve", "--storage"]).arg(log.storage()),
    );
    assert_eq!(denied.status.code(), Some(4), "{}", programs::text(&denied));
    assert!(programs::text(&denied).contains("rights"), "{}", programs::text(&denied));
    // A bucket that is none.
    let nowhere = programs::output(log.command().args(["serve", "--storage", "s3://nowhere-at-all/log"]));
    assert!(programs::text(&nowhere).contains("such a bucket"), "{}", programs::text(&nowhere));
    let log = served(&daemon, &s3, &proxy.address(), "log").await;
    let mut acknowledged = 0;
    for i in 0..10 {
        assert_eq!(post_new(&log, &format!("before {i}")).await, 201);
        acknowledged += 1;
    }
    // A lost answer may have been of an entry that is in the log.
    let mut lost = 0;
    for (name, carry) in [
        ("slow down", Some(Carry::SlowDown)),
        ("access denied", Some(Carry::AccessDenied)),
        ("cut connections", Some(Carry::Halves)),
        ("the server is gone", None),
    ] {
        match carry {
            Some(carry) => proxy.carry(carry),
            None => s3.kill(),
        }
        proxy.cut();
        let began = Instant::now();
        let status = post_new(&log, &format!("during {name}")).await;
        assert!(matches!(status, 0 | 503), "{name}: {status}, {}", log.output());
        assert!(began.elapsed() < Duration::from_secs(15), "{name}: an answer took {:?}", began.elapsed());
        lost += 1;
        let health = eventually(PATIENCE, async || {
            log.caller().get("/healthz").await.is_ok_and(|h| h.status == 503 && !h.json()["why"].is_null())
        });
        assert!(health.await, "{name}: health does not say so");
        proxy.carry(Carry::Well);
        if carry.is_none() {
            s3.launch();
            s3.ready().await;
        }
        proxy.cut();
        // By itself, also when nobody asks for anything.
        let back =
            eventually(PATIENCE, async || log.caller().get("/healthz").await.is_ok_and(|h| h.status == 200));
        assert!(back.await, "{name}: it does not go on by itself: {}", log.output());
        let again = eventually(PATIENCE, async || post_new(&log, &format!("after {name}")).await == 201);
        assert!(again.await, "{name}: nothing is taken on any more: {}", log.output());
        acknowledged += 1;
    }
    let (wrong, size) = log.check();
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        (acknowledged..=acknowledged + lost).contains(&size),
        "{size} of {acknowledged} and perhaps {lost}"
    );
    let health = log.caller().get("/healthz").await.unwrap();
    assert_ne!(health.json(), json!(null));
}
