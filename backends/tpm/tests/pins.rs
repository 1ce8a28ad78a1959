//! PINs: tried once, counted by the TPM, and never so often that it locks.
#![allow(clippy::unwrap_used)] // tests may panic

use hwtests::engines::{Engine, SwTpm};
use signer_contract::PinSetup;
use signer_core::{
    Backend, ErrorKind, GenerateRequest, KeyPolicy, KeyType, PinOutcome, PinPolicy, SignRequest,
};

mod support;
use support::*;

#[test]
fn a_pin_is_asked_for_once_or_always_or_never() {
    let tpm = SwTpm::with_options(&[]);
    let pins = TestPins::new(&tpm.pin());
    let backend = backend_with(&tpm, &pins);
    let made = generate(&backend, "never", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    assert_eq!(made.policy.pin, Some(PinPolicy::Never));
    sign(&*open(&backend, "never").unwrap(), ECDSA, b"x").unwrap();
    assert!(pins.seen().is_empty());

    generate(&backend, "once", KeyType::EcdsaP256, policy(PinPolicy::Once)).unwrap();
    generate(&backend, "always", KeyType::EcdsaP256, policy(PinPolicy::Always)).unwrap();
    drop(backend);
    let pins = TestPins::new(&tpm.pin());
    let backend = backend_with(&tpm, &pins);
    let once = open(&backend, "once").unwrap();
    assert_eq!(once.info().policy.pin, Some(PinPolicy::Once));
    for _ in 0..10 {
        sign(&*once, ECDSA, b"x").unwrap();
        now(backend.health()).unwrap();
    }
    assert_eq!(pins.seen().len(), 1);
    assert_eq!((pins.seen()[0].0.key.as_deref(), pins.seen()[0].0.tries_left), (None, Some(3)));
    let always = open(&backend, "always").unwrap();
    for round in 1..=3 {
        sign(&*always, ECDSA, b"x").unwrap();
        assert_eq!(pins.seen().len(), 1 + round);
        assert_eq!(pins.seen()[round].0.key.as_deref(), Some("always"));
    }
    assert!(pins.seen().iter().all(|(_, outcome)| *outcome == PinOutcome::Accepted));
}

#[test]
fn a_wrong_pin_is_tried_once_and_the_last_try_is_kept() {
    let tpm = SwTpm::start();
    let right = tpm.pin();
    let made = backend(&tpm);
    generate(&made, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    drop(made);

    let pins = TestPins::new("777999");
    let backend = backend_with(&tpm, &pins);
    let signer = open(&backend, "k").unwrap();
    let error = sign(&*signer, ECDSA, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(2) }, "{error}");
    assert!(error.to_string().contains("1000 seconds") && !error.to_string().contains("777999"), "{error}");
    for _ in 0..5 {
        assert_eq!(sign(&*signer, ECDSA, b"x").unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(now(backend.health()).unwrap_err().kind(), ErrorKind::Locked);
    }
    assert_eq!(pins.refused(), 1);
    // A new one may not be made with it either.
    assert!(generate(&backend, "new", KeyType::EcdsaP256, KeyPolicy::default()).is_err());

    // Somebody gives another wrong one: one try is left, and that is kept.
    let error = unlock(&backend, "wrong again", false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(1) }, "{error}");
    let error = unlock(&backend, &right, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(
        error.to_string().contains("--use-last-try") && error.to_string().contains("1000 seconds"),
        "{error}"
    );
    pins.set(&right, false);
    assert_eq!(sign(&*signer, ECDSA, b"x").unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(pins.seen().last().unwrap().1, PinOutcome::NotTried);
    unlock(&backend, &right, true).unwrap();
    // Open now: a wrong one is refused without a try.
    for _ in 0..5 {
        let error = unlock(&backend, "wrong", true).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }), "{error}");
    }
    unlock(&backend, &right, false).unwrap();
    sign(&*signer, ECDSA, b"x").unwrap();
}

#[test]
fn a_locked_tpm_says_when_it_recovers_and_is_not_made_worse() {
    let tpm = SwTpm::start();
    let right = tpm.pin();
    let made = backend(&tpm);
    generate(&made, "guarded", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    generate(&made, "free", KeyType::EcdsaP256, policy(PinPolicy::Never)).unwrap();
    drop(made);
    let pins = TestPins::none();
    let backend = backend_with(&tpm, &pins);
    for (left, pin) in [(2, "a"), (1, "b"), (0, "c")] {
        let error = unlock(&backend, pin, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: Some(left) }, "{error}");
    }
    pins.set(&right, true);
    let guarded = open(&backend, "guarded").unwrap();
    let error = sign(&*guarded, ECDSA, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("1000 seconds"), "{error}");
    assert!(pins.seen().is_empty(), "nobody is asked for a PIN that cannot be used");
    assert_eq!(unlock(&backend, &right, true).unwrap_err().kind(), ErrorKind::Locked);
    // A key without a PIN does not care.
    sign(&*open(&backend, "free").unwrap(), ECDSA, b"x").unwrap();
    drop(backend);
    hwtests::programs::must(tpm.tool("tpm2_dictionarylockout").arg("--clear-lockout"));
    let backend = backend_with(&tpm, &pins);
    sign(&*open(&backend, "guarded").unwrap(), ECDSA, b"x").unwrap();
    assert_eq!(pins.refused(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lockout_by_others_does_not_cost_the_pin() {
    let tpm = SwTpm::managed();
    let backend = tpm.direct(PinSetup::Right).await.unwrap();
    backend.generate().unwrap().generate(GenerateRequest::new(name("k"), KeyType::EcdsaP256)).await.unwrap();
    let signer = backend.open(&selector("k")).await.unwrap();
    let request = || SignRequest::message(ECDSA, "x");
    signer.sign(request()).await.unwrap();
    // Another program guesses.
    let tool = |name: &str, arguments: &[&str]| {
        hwtests::programs::output(tpm.tool(name).args(arguments)).status.success()
    };
    assert!(tool("tpm2_createprimary", &["-C", "o", "-c", "p.ctx", "-G", "ecc", "-p", "secret"]));
    for _ in 0..4 {
        assert!(!tool("tpm2_create", &["-C", "p.ctx", "-P", "guess", "-G", "ecc", "-u", "u", "-r", "r"]));
    }
    let error = signer.sign(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert!(error.to_string().contains("1000 seconds"), "{error}");
    assert!(tool("tpm2_dictionarylockout", &["--clear-lockout"]));
    signer.sign(request()).await.unwrap();
}

#[test]
fn pins_that_no_tpm_takes_and_policies_that_no_tpm_has() {
    let tpm = SwTpm::with_options(&[]);
    let pins = TestPins::new(&"9".repeat(33));
    let backend = backend_with(&tpm, &pins);
    let error = generate(&backend, "k", KeyType::EcdsaP256, policy(PinPolicy::Once)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
    let touch = KeyPolicy { touch: Some(signer_core::TouchPolicy::Always), ..KeyPolicy::default() };
    assert_eq!(
        generate(&backend, "k", KeyType::EcdsaP256, touch).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert!(names(&backend).is_empty());
}
