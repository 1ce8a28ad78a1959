//! Touches: announced, and timed out in words.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hwtests::{engines::Piv, eventually};
use signer_contract::PinSetup;
use signer_core::{ErrorKind, KeyPolicy, KeyType, SignRequest, TouchListener, TouchPolicy, TouchPrompt};

use crate::support::{generate, generate_with, open, serve};

type Prompts = Arc<Mutex<Vec<TouchPrompt>>>;

fn listener() -> (TouchListener, Prompts) {
    let prompts = Prompts::default();
    let heard = prompts.clone();
    (TouchListener::new(move |prompt| heard.lock().unwrap().push(prompt.clone())), prompts)
}

fn policy(touch: TouchPolicy) -> KeyPolicy {
    KeyPolicy { touch: Some(touch), ..KeyPolicy::default() }
}

/// "not knowing a touch is awaited, or for what": it is told before the card waits, with card, key and time.
#[tokio::test(flavor = "multi_thread")]
async fn a_touch_is_asked_for_by_name() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let made = generate_with(&*backend, "9c", KeyType::EcdsaP256, policy(TouchPolicy::Always)).await.unwrap();
    assert_eq!(made.policy.touch, Some(TouchPolicy::Always));
    let signer = open(&*backend, "9c").await;
    let (listener, prompts) = listener();
    let request = SignRequest::message(made.default_algorithm(), "release").on_touch(listener);
    let signing = tokio::spawn({
        let signer = signer.clone();
        async move { signer.sign(request).await }
    });
    assert!(card.card().wait_for_touch_request(Duration::from_secs(5)));
    // The card still waits, for 15 s: whoever was told has time to find it.
    let is_told = || {
        let prompts = prompts.clone();
        async move { !prompts.lock().unwrap().is_empty() }
    };
    assert!(eventually(Duration::from_secs(2), is_told).await);
    let told = prompts.lock().unwrap().clone();
    let expected = TouchPrompt {
        device: "YubiKey 5.7.1 serial 12345678".into(),
        key: "9c".into(),
        timeout: Duration::from_secs(15),
    };
    assert_eq!(told, [expected]);
    assert!(card.card().touch());
    signing.await.unwrap().unwrap();
}

/// "tool says tap when policy is never": it does not.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_touch_for_nothing() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let made = generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let (listener, prompts) = listener();
    let request = SignRequest::message(made.default_algorithm(), "x").on_touch(listener);
    open(&*backend, "9a").await.sign(request).await.unwrap();
    assert!(prompts.lock().unwrap().is_empty());
    assert_eq!(card.card().state().counters.touches_asked, 0);
}

/// "20 touches in a row": one touch holds for fifteen seconds where the key's policy says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_touch_that_is_remembered_serves_several_signatures() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate_with(&*backend, "9a", KeyType::EcdsaP256, policy(TouchPolicy::Cached)).await.unwrap();
    let signer = open(&*backend, "9a").await;
    card.card().touch_by_itself(Some(Duration::from_millis(50)));
    for round in 0..5 {
        crate::support::sign(&*signer, &format!("round {round}")).await.unwrap();
    }
    assert_eq!(card.card().state().counters.touches_asked, 1);
}

/// Nobody comes: the caller hears what was missing, the driver is still alive, and the next touch is as good as any.
#[tokio::test(flavor = "multi_thread")]
async fn a_touch_that_does_not_come_is_an_answer() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate_with(&*backend, "9c", KeyType::EcdsaP256, policy(TouchPolicy::Always)).await.unwrap();
    let signer = open(&*backend, "9c").await;
    let driver = backend.processes();
    let start = Instant::now();
    // Two wait one after the other: longer than a driver may be silent.
    let request = || SignRequest::message(signer.info().default_algorithm(), "x").on_touch(listener().0);
    let (first, second) = tokio::join!(signer.sign(request()), signer.sign(request()));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::TouchTimedOut, "{error:?}");
        assert!(error.to_string().contains("touch it when it blinks"), "{error}");
    }
    assert!(start.elapsed() > Duration::from_secs(28), "{:?}", start.elapsed());
    assert_eq!(backend.processes(), driver, "the driver was killed while it waited for a finger");
    card.card().touch_by_itself(Some(Duration::from_millis(20)));
    crate::support::sign(&*signer, "now").await.unwrap();
}
