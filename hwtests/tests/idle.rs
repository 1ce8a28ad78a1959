//! What a daemon costs that does nothing: with everything configured, and with nothing.
#![allow(clippy::unwrap_used)] // tests

use std::time::Duration;

use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine as _, EveryKind, Software},
    eventually, process,
};
use signer_contract::PinSetup;
use signer_core::{Digest, HashAlgorithm, Input};

/// MiB of a process that are resident, and of these what is its own: not a page of the program's file.
fn memory(pid: u32) -> (f64, f64) {
    let mib = |field| process::memory_kib(pid, field) as f64 / 1024.0;
    (mib("VmRSS"), mib("RssAnon"))
}

/// Every kind of backend, each with its engine, healthy, and used once.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_every_kind_of_backend_is_small() {
    let engines = EveryKind::start();
    let daemon =
        Daemon::start_with(&format!("[log]\nlevel = \"info\"\n\n{}\n{GRANT_ALL}", engines.toml())).await;
    let client = daemon.client().timeout(Duration::from_mins(1));
    EveryKind::make_keys(&daemon).await;
    for (name, key) in EveryKind::KEYS {
        let digest = Digest::of(HashAlgorithm::Sha256, b"x");
        client.sign(&format!("{name}/{key}"), None, Input::Digest(digest)).await.unwrap();
    }
    let healthy = eventually(Duration::from_secs(20), async || {
        client.backends().await.unwrap().iter().all(|b| b.health.is_none())
    });
    assert!(healthy.await, "{:?}", client.backends().await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (resident, own) = memory(daemon.pid());
    let drivers: Vec<_> = daemon.drivers().into_iter().map(memory).collect();
    eprintln!("signerd: {resident:.1} MiB resident, {own:.1} of its own; drivers: {drivers:.1?}");
    // The program's file is several times as large without optimisation, and so is what of it is resident: the whole is
    // measured by `hwtests/bench --backends --only idle`.
    let limit = if cfg!(debug_assertions) { 80.0 } else { 40.0 };
    assert!(resident < limit, "{resident:.1} MiB resident");
    assert!(own < 25.0, "{own:.1} MiB of its own");
    // Not one process for what runs inside, and one family for each device.
    assert!((3..=4).contains(&drivers.len()), "{} driver processes", drivers.len());
}

/// What is not configured is not there: no process, no thread, no connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_configured_costs_nothing() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.backend("soft").await;
    daemon.make_key("soft", "k").await;
    assert_eq!(daemon.drivers(), [0; 0], "a driver runs for nothing");
    let linked = String::from_utf8_lossy(&process::read(daemon.pid(), "maps")).into_owned();
    for library in ["libpcsclite", "libtss2", "softhsm", "libssl", "libcrypto"] {
        assert!(!linked.contains(library), "{library} is loaded");
    }
    let sockets = String::from_utf8_lossy(&process::read(daemon.pid(), "net/tcp")).into_owned();
    let own: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let of_ours =
        |line: &&str| line.split_whitespace().nth(9).is_some_and(|inode| own.iter().any(|o| o == inode));
    let connections: Vec<_> = sockets.lines().skip(1).filter(of_ours).collect();
    assert!(connections.is_empty(), "connections for nothing: {connections:?}");
}
