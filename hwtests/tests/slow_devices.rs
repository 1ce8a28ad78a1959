//! One slow device does not slow the others down.
#![allow(clippy::unwrap_used)] // tests

use std::time::Duration;

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv, SoftHsm},
    load::{Call, Load, failures, input},
};
use signer_contract::PinSetup;
use signer_core::{
    GenerateRequest, HashAlgorithm, KeyName, KeyPolicy, KeyType, SignatureAlgorithm, TouchPolicy,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A card waits for a finger, with sixteen requests behind each other; a token goes on as if nothing were. The benchmark
/// measures it exactly (`hwtests/bench --backends --only slow-device`); here other tests run beside it, so that the bound
/// is wide: a token that waited for the card even once in a hundred requests would be a thousand times over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_waits_for_a_finger_holds_nobody_up() {
    let (card, hsm) = (Piv::start(), SoftHsm::start());
    let daemon = Daemon::start(&[card.toml("card", PinSetup::Right), hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.backend("card").await;
    daemon.make_key("hsm", "release").await;
    let policy = KeyPolicy { touch: Some(TouchPolicy::Always), ..KeyPolicy::default() };
    let request =
        GenerateRequest { policy, ..GenerateRequest::new(KeyName::label("9c").unwrap(), KeyType::EcdsaP256) };
    daemon.client().create(&"card".parse().unwrap(), request).await.unwrap();

    let measure = async || {
        let load = Load::start(|| daemon.client(), "hsm/release", 4).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let calls = load.stop().await;
        assert!(failures(&calls).is_empty(), "{:?}", failures(&calls)[0]);
        p99(&calls)
    };
    measure().await;
    let alone = measure().await;
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let client = daemon.client().timeout(Duration::from_mins(1));
            tokio::spawn(async move { client.sign("card/9c", Some(P256), input(P256, "x")).await })
        })
        .collect();
    assert!(card.card().wait_for_touch_request(Duration::from_secs(10)), "the card asks for no finger");
    let beside = measure().await;
    assert!(waiting.iter().all(|task| !task.is_finished()), "the card did not wait all the time");
    eprintln!("p99 alone {alone:?}, while a card waits {beside:?}");
    assert!(
        beside < alone * 2 + Duration::from_millis(5),
        "p99 is {beside:?} while a card waits, and {alone:?} alone"
    );
    // Who waits is served when somebody comes.
    card.card().touch_by_itself(Some(Duration::from_millis(10)));
    for task in waiting {
        task.await.unwrap().unwrap();
    }
}

fn p99(calls: &[Call]) -> Duration {
    let mut took: Vec<_> = calls.iter().map(|c| c.took).collect();
    took.sort_unstable();
    took[(took.len() - 1) * 99 / 100]
}
