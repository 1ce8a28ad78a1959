//! PINs: asked for once, never burnt, and of no use when they are the factory's.

use hwtests::{
    engines::{DEFAULT_PIN, Engine, Piv},
    programs,
};
use serde_json::json;
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, KeyPolicy, KeyType, Pin, PinPolicy, UnlockRequest};

use crate::support::{generate, generate_with, open, serve, serve_with, sign, sign_soon};

fn pin(text: &str) -> UnlockRequest {
    UnlockRequest { pin: Pin::new(text.into()).unwrap(), use_last_try: false }
}

/// "PIN asked every time", "cache lost when another tool touches the card": given once, it serves every kind of key, also
/// after other programs have logged in, logged out, and after the card was out of the reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_given_once() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Missing).await;
    for (name, policy) in [("9a", PinPolicy::Once), ("9c", PinPolicy::Always), ("9d", PinPolicy::Never)] {
        let policy = KeyPolicy { pin: Some(policy), ..KeyPolicy::default() };
        generate_with(&*backend, name, KeyType::EcdsaP256, policy).await.unwrap();
    }
    let once = open(&*backend, "9a").await;
    assert_eq!(sign(&*once, "x").await.unwrap_err().kind(), ErrorKind::PinRequired);
    sign(&*open(&*backend, "9d").await, "needs none").await.unwrap();
    backend.unlock().unwrap().unlock(pin(&card.pin())).await.unwrap();
    let always = open(&*backend, "9c").await;
    for round in 0..3 {
        sign_soon(&*once, "once").await;
        sign(&*always, "always").await.unwrap();
        // Another program with another application, then with this one.
        programs::must(card.tool().args(["-a", "status"]));
        programs::must(card.tool().args(["-a", "verify-pin", "-P", &card.pin()]));
        if round == 1 {
            card.card().reset();
            assert!(card.card().wait_for_power(std::time::Duration::from_secs(5)));
        }
    }
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

/// "a PIN that is kept by holding the card": between signatures nothing stays open, and another program without the PIN
/// signs nothing with what we have unlocked.
#[tokio::test(flavor = "multi_thread")]
async fn the_card_is_left_locked_for_everybody_else() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let made = generate(&*backend, "9a", KeyType::EcdsaP256).await;
    sign(&*open(&*backend, "9a").await, "ours").await.unwrap();
    let data = card.folder().join("data");
    std::fs::write(&data, "theirs").unwrap();
    let theirs = |with_pin: bool| {
        let mut tool = card.tool();
        tool.args(["-s", "9a", "-A", "ECCP256", "-H", "SHA256", "-a"]);
        if with_pin {
            tool.args(["verify-pin", "-P", &card.pin(), "-a"]);
        }
        tool.arg("test-signature").arg("-i").arg(card.folder().join("cert"));
        tool
    };
    let certificate = signer_contract::self_signed(&*open(&*backend, "9a").await, "x").await.unwrap();
    let key = signer_core::KeySelector::Name(made.name);
    backend.store_certificate().unwrap().store_certificate(&key, &certificate).await.unwrap();
    let pem = programs::must(card.tool().args(["-a", "read-certificate", "-s", "9a"]));
    std::fs::write(card.folder().join("cert"), pem).unwrap();
    sign(&*open(&*backend, "9a").await, "ours").await.unwrap();
    assert!(!programs::output(&mut theirs(false)).status.success(), "it signed without the PIN");
    programs::must(&mut theirs(true));
    // And the management key, which storing the certificate needed, is closed, too.
    let deleted =
        programs::output(card.tool().args(["-a", "delete-certificate", "-s", "9a", "-k", &"0".repeat(48)]));
    assert!(!deleted.status.success(), "it changed the card without the management key");
}

/// "wrong default PIN burned retries": a wrong PIN is tried once, however many ask and however often.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_costs_one_try_whatever_happens() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Missing).await;
    generate(&*backend, "9c", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9c").await;
    let error = backend.unlock().unwrap().unlock(pin("7777777")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(2) });
    assert!(error.to_string().contains("YubiKey 5.7.1 serial 12345678"), "{error}");
    for _ in 0..5 {
        let error = sign(&*signer, "x").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Locked), "{error:?}");
        assert!(backend.health().await.is_err());
        card.card().reset();
        card.pcscd().wait_for_cards(1).unwrap();
    }
    assert_eq!(card.card().state().pin_tries, 2);
    assert_eq!(card.card().state().counters.verifies, 1);
}

/// The last try is nobody's by accident.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_try_is_used_only_when_somebody_says_so() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    sign(&*signer, "x").await.unwrap();
    card.card().set_tries_left(Some(1), None);
    let error = sign(&*signer, "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("use-last-try"), "{error}");
    assert_eq!(card.card().state().pin_tries, 1);
    let sure = UnlockRequest { use_last_try: true, ..pin(&card.pin()) };
    backend.unlock().unwrap().unlock(sure).await.unwrap();
    assert_eq!(card.card().state().pin_tries, 3);
    sign(&*signer, "x").await.unwrap();

    card.card().set_tries_left(Some(0), None);
    let before = card.card().state().counters.verifies;
    let error = sign(&*signer, "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("PUK"), "{error}");
    assert_eq!(card.card().state().counters.verifies, before, "a blocked PIN is not tried");
}

/// A card with the factory's PIN or management key is not used as if it were safe, and costs no try.
#[tokio::test(flavor = "multi_thread")]
async fn the_factorys_secrets_are_refused() {
    let card = Piv::start();
    programs::must(card.tool().args(["-a", "change-pin", "-P", &card.pin(), "-N", DEFAULT_PIN]));
    let before = card.card().state().counters.verifies;
    let strict = json!({ "serial": card.serial(), "management_key_file": card.management_key_file() });
    let backend = serve_with(&card, strict, PinSetup::Missing).await;
    let error = generate_with(&*backend, "9a", KeyType::EcdsaP256, KeyPolicy::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("allow_defaults"), "{error}");
    let error = backend.unlock().unwrap().unlock(pin(DEFAULT_PIN)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("change-pin"), "{error}");
    assert_eq!(card.card().state().counters.verifies, before, "it was tried");

    let without_key = json!({ "serial": card.serial() });
    let backend = serve_with(&card, without_key, PinSetup::Missing).await;
    let error = generate_with(&*backend, "9a", KeyType::EcdsaP256, KeyPolicy::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("--protect"), "{error}");

    let backend = serve(&card, PinSetup::Missing).await; // allow_defaults = true
    backend.unlock().unwrap().unlock(pin(DEFAULT_PIN)).await.unwrap();
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    sign(&*open(&*backend, "9a").await, "a trial").await.unwrap();
}

/// What is no PIV PIN at all is never tried.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_pin_is_not_tried() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Missing).await;
    backend.describe().await.unwrap();
    let before = card.card().state().counters.verifies;
    for bad in ["99999", "999999999", "a passphrase that is long"] {
        let error = backend.unlock().unwrap().unlock(pin(bad)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }), "{error:?}");
        assert!(!error.to_string().contains(bad), "{error}");
    }
    assert_eq!(card.card().state().counters.verifies, before);
}

/// A card that goes away in the middle of VERIFY: was the PIN right? It is tried again only if no try is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_try_without_an_answer_is_not_repeated_blindly() {
    use hwtests_piv_card::{Fault, FaultKind};
    let verify_is_cut = || Fault { kind: FaultKind::RemoveAfter, count: 1, instruction: Some(0x20) };
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Wrong).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    // Faults apply to the question after the tries, too: let that one pass.
    card.card().fault(Fault {
        kind: FaultKind::Slow(std::time::Duration::ZERO),
        count: 1,
        instruction: Some(0x20),
    });
    card.card().fault(verify_is_cut());
    assert!(sign(&*signer, "x").await.is_err());
    card.card().insert();
    card.pcscd().wait_for_cards(1).unwrap();
    for _ in 0..3 {
        assert!(sign(&*signer, "x").await.is_err());
    }
    assert_eq!(card.card().state().pin_tries, 2, "the wrong PIN was tried twice");
}
