//! Driver processes that are killed or hang, under load.
#![allow(clippy::unwrap_used)] // tests

use std::time::{Duration, Instant};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, SoftHsm},
    eventually,
    load::{Load, failures, first_success_after},
    process::{self, Signal},
};
use signer_contract::PinSetup;

/// A daemon with SoftHSM behind it and one key, `hsm/release`.
async fn daemon_with_a_key(hsm: &SoftHsm) -> Daemon {
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_costs_no_request() {
    let hsm = SoftHsm::start();
    let daemon = daemon_with_a_key(&hsm).await;
    let load = Load::start(|| daemon.client(), "hsm/release", 16).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut kills = Vec::new();
    for _ in 0..4 {
        let drivers = daemon.drivers();
        assert!(!drivers.is_empty(), "the daemon has no driver");
        let moment = Instant::now();
        for driver in &drivers {
            process::signal(*driver, Signal::KILL);
        }
        kills.push(moment);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(
            drivers.iter().all(|d| !process::exists(*d) || daemon.drivers().contains(d)),
            "a killed driver is left"
        );
    }

    let calls = load.stop().await;
    let failed = failures(&calls);
    assert!(failed.is_empty(), "{} of {} calls failed, first {:?}", failed.len(), calls.len(), failed[0]);
    for moment in kills {
        let back = first_success_after(&calls, moment).expect("nothing was signed after a driver was killed");
        assert!(back < Duration::from_secs(1), "back only after {back:?}");
    }
    let slowest = calls.iter().map(|c| c.took).max().unwrap();
    assert!(slowest < Duration::from_secs(1), "the slowest call took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_hangs_is_replaced() {
    let hsm = SoftHsm::start();
    let daemon = daemon_with_a_key(&hsm).await;
    let load = Load::start(|| daemon.client().timeout(Duration::from_mins(1)), "hsm/release", 4).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = daemon.drivers();
    let moment = Instant::now();
    for driver in &before {
        process::signal(*driver, Signal::STOP);
    }
    let replaced =
        eventually(Duration::from_secs(40), async || before.iter().all(|d| !process::exists(*d))).await;
    assert!(replaced, "a hung driver is still there after 40 s");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = load.stop().await;
    let failed = failures(&calls);
    assert!(failed.is_empty(), "{} of {} calls failed, first {:?}", failed.len(), calls.len(), failed[0]);
    assert!(
        first_success_after(&calls, moment + Duration::from_secs(5)).is_some(),
        "nothing was signed afterwards"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_die_with_their_daemon() {
    let hsm = SoftHsm::start();
    let daemon = daemon_with_a_key(&hsm).await;
    let drivers = daemon.drivers();
    assert!(!drivers.is_empty(), "the daemon has no driver");
    daemon.kill();
    let gone =
        eventually(Duration::from_secs(2), async || drivers.iter().all(|d| !process::exists(*d))).await;
    assert!(gone, "a driver outlives its daemon");
}
