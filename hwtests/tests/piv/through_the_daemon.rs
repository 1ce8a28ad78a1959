//! Out and in under load, seen by the daemon's clients.

use std::time::{Duration, Instant};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv},
    eventually,
    load::{Load, failures},
};
use signer_contract::PinSetup;

/// How often: a short form by default, `PIV_REMOVALS=100` for the long one.
fn removals() -> u64 {
    std::env::var("PIV_REMOVALS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

/// Four clients sign while the card goes out and in: each answer is a right signature or one to try again, the card is
/// served again within a second of each return, and no try of the PIN was burnt.
#[tokio::test(flavor = "multi_thread")]
async fn clients_see_a_card_go_and_come() {
    let card = Piv::start();
    let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Right)]).await;
    daemon.backend("yubikey").await;
    daemon.make_key("yubikey", "9a").await;
    let load = Load::start(|| daemon.client(), "yubikey/9a", 4).await;
    let mut slowest = Duration::ZERO;
    for round in 0..removals() {
        tokio::time::sleep(Duration::from_millis(50 + round % 7 * 15)).await;
        card.card().remove();
        tokio::time::sleep(Duration::from_millis(round % 11 * 30)).await;
        card.card().insert();
        // The reader looks every 400 ms; of a card that was back before it looked it notices nothing.
        card.card().wait_for_power(Duration::from_millis(500));
        let back = Instant::now();
        let served = eventually(Duration::from_secs(5), async || load.has_signed_after(back));
        assert!(served.await, "round {round}: nothing is signed 5 s after the card is back");
        slowest = slowest.max(back.elapsed());
    }
    let calls = load.stop().await;
    let failed = failures(&calls);
    for call in &failed {
        let error = call.outcome.as_ref().unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.what().len() > 10 && error.device_name().is_some(), "it says nothing: {error:?}");
    }
    eprintln!(
        "{} calls, {} of them to try again, served again after {slowest:?} at most",
        calls.len(),
        failed.len()
    );
    assert!(!failed.is_empty(), "no removal was met");
    assert!(slowest < Duration::from_secs(1), "served again only after {slowest:?}");
    let state = card.card().state();
    assert_eq!((state.counters.failed_verifies, state.pin_tries), (0, 3));
}
