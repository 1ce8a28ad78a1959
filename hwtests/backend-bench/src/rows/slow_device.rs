//! A card that waits 15 seconds for a finger, and what that does to the signatures of another device.

use hwtests::{
    engines::{Engine, Piv, SoftHsm},
    load::input,
};
use signer_contract::PinSetup;
use signer_core::{
    GenerateRequest, HashAlgorithm, KeyName, KeyPolicy, KeyType, SignatureAlgorithm, TouchPolicy,
};

use super::Bench;
use crate::{
    Result,
    report::{Goal, Limit, Line, Row},
};

/// Requests that wait for the card.
const WAITING: usize = 8;
/// Clients of the other device: enough to keep it busy, and few enough that its tail is not the scheduler's.
const CLIENTS: usize = 4;

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let (card, hsm) = (Piv::start(), SoftHsm::start());
    let tables = [card.toml("card", PinSetup::Right), hsm.toml("place", PinSetup::Right)];
    let daemon = bench.daemon(&tables.join("\n"));
    bench.wait(async {
        daemon.backend("card").await;
        daemon.backend("place").await;
        daemon.make_key("place", "bench").await;
        let policy = KeyPolicy { touch: Some(TouchPolicy::Always), ..KeyPolicy::default() };
        let request =
            GenerateRequest { policy, ..GenerateRequest::new(KeyName::label("9c")?, KeyType::EcdsaP256) };
        daemon.client().create(&"card".parse()?, request).await
    })?;
    let seconds = 4.0;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        alone.push(bench.drive(&daemon, "place/bench", CLIENTS, seconds)?);
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let client = daemon.client();
                bench.runtime.spawn(async move {
                    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
                    client.sign("card/9c", Some(algorithm), input(algorithm, "x")).await
                })
            })
            .collect();
        if !card.card().wait_for_touch_request(std::time::Duration::from_secs(10)) {
            return Err("the card asks for no finger".into());
        }
        beside.push(bench.drive(&daemon, "place/bench", CLIENTS, seconds)?);
        if waiting.iter().any(tokio::task::JoinHandle::is_finished) {
            return Err("the card did not wait all the time".into());
        }
        // Whoever waits gets what it came for.
        card.card().touch_by_itself(Some(std::time::Duration::from_millis(10)));
        for task in waiting {
            bench.wait(task)??;
        }
        card.card().touch_by_itself(None);
    }
    let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(b, a)| b.p99_ms / a.p99_ms).collect();
    Ok(vec![Row {
        name: "slow-device",
        title: "SoftHSM with 4 clients, beside a card that waits for a finger",
        lines: vec![Line::of_loads("alone", &alone), Line::of_loads("while 8 wait for the card", &beside)],
        goals: vec![Goal::new("p99, of that alone", " times", &ratios, Limit::AtMost(1.1))],
    }])
}
