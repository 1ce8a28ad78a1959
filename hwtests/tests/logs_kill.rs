//! kill -9 at random moments, under load: no acknowledged entry lost, no fork, a start within a second.
#![allow(clippy::unwrap_used)] // tests

use std::time::Duration;

use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    log::{Acknowledged, LogServer},
    programs,
};
use signer_contract::PinSetup;
use signer_log_engine::{Folder, Format, TileKind, WIDTH};

/// How often: a short form by default, `LOG_KILLS=200` for the long one.
fn kills() -> u32 {
    std::env::var("LOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_killed_keeps_what_it_has_acknowledged() {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "log").await;
    let mut log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let acknowledged = Acknowledged::default();
    let callers: Vec<_> =
        (0..24).map(|at| tokio::spawn(acknowledged.clone().write(log.caller(), at))).collect();
    let mirror = daemon.folder().join("mirror");
    let mut slowest = Duration::ZERO;
    let mut seed = std::process::id();
    for _ in 0..kills() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        tokio::time::sleep(Duration::from_millis(u64::from(20 + (seed >> 16) % 400))).await;
        log.kill();
        log.launch();
        slowest = slowest.max(log.ready().await);
        // Somebody who follows the log from outside sees it grow and never change.
        programs::must(log.command().arg("mirror").arg(log.storage()).arg("--storage").arg(&mirror));
    }
    acknowledged.stop();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(log.stop().success());
    let (wrong, size) = log.check();
    assert_eq!(wrong, Vec::<String>::new());
    programs::must(log.command().arg("mirror").arg(log.storage()).arg("--storage").arg(&mirror));

    let acknowledged = acknowledged.entries();
    let folder = Folder::new(log.storage());
    let mut there = Vec::new();
    for tile in 0..size.div_ceil(WIDTH) {
        let id = signer_log_engine::TileId::new(TileKind::Entries, tile, (size - tile * WIDTH).min(WIDTH))
            .unwrap();
        let bytes = signer_log_engine::read_entry_tile(&folder, Format::Entries, id).unwrap();
        there.extend(
            Format::Entries.split_all(&bytes).unwrap().iter().map(signer_log_engine::EntryRef::leaf_hash),
        );
    }
    assert!(acknowledged.len() > 100, "only {} entries were acknowledged", acknowledged.len());
    for (index, hash) in &acknowledged {
        assert_eq!(
            there.get(*index as usize),
            Some(hash),
            "entry {index} was acknowledged and is another one"
        );
    }
    println!("{} acknowledged of {size}; the slowest start took {slowest:?}", acknowledged.len());
    assert!(
        slowest < Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 }),
        "a start took {slowest:?}"
    );
}
