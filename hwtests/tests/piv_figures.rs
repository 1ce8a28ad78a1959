//! What the daemon costs before a card: the same signatures with the library called directly and through the daemon, by
//! turns, on a card that takes 50 ms for the private operation. The quickest real ones take about that long.
#![allow(clippy::unwrap_used)] // tests

use std::{process::Command, time::Duration};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv},
    load::Load,
    programs,
};
use hwtests_piv_card::{Fault, FaultKind};
use signer_contract::PinSetup;

/// Whole seconds of one measurement.
const TIME: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_up_with_the_library() {
    let card = Piv::start();
    let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Right)]).await;
    daemon.make_key("yubikey", "9a").await;
    let slow = FaultKind::Slow(Duration::from_millis(50));
    card.card().fault(Fault { kind: slow, count: u32::MAX, instruction: Some(0x87) });
    let mut ratios = Vec::new();
    for round in 0..3 {
        let mut direct = card.pcscd().command(programs::ours("examples/card_throughput"));
        direct.arg("9a").arg(card.pin_file(PinSetup::Right).unwrap()).arg(TIME.to_string());
        let said = tokio::task::spawn_blocking(move || run(&mut direct)).await.unwrap();
        let rate: f64 =
            said.split(" signatures/s").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        let load = Load::start(|| daemon.client(), "yubikey/9a", 16).await;
        tokio::time::sleep(Duration::from_secs(TIME)).await;
        let done = load.calls().len();
        let calls = load.stop().await;
        assert!(calls.iter().all(|c| c.outcome.is_ok()), "{:?}", calls.iter().find(|c| c.outcome.is_err()));
        let through = done as f64 / TIME as f64;
        eprintln!(
            "round {round}: {}; 16 clients of the daemon: {through:.1}/s, ratio {:.3}",
            said.trim(),
            through / rate
        );
        ratios.push(through / rate);
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[1] >= 0.95, "the daemon loses more than a twentieth: {ratios:?}");
}

fn run(command: &mut Command) -> String {
    programs::must(command)
}
