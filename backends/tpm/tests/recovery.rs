//! Bad days: the TPM goes away and comes back, hangs, or was left full by a process that died.
#![allow(clippy::unwrap_used)] // tests may panic

use std::time::{Duration, Instant};

use hwtests::{
    engines::{Engine, SwTpm},
    process::{self, Signal},
};
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, KeyPolicy, KeyType, PinPolicy, SignRequest};

mod support;
use support::*;

#[test]
fn a_tpm_that_is_killed_and_started_again() {
    let tpm = SwTpm::with_options(&[]);
    // A power cut counts as a wrong PIN: more of them are allowed than the three that swtpm has by itself.
    let more =
        ["--setup-parameters", "--max-tries=32", "--recovery-time=1000", "--lockout-recovery-time=1000"];
    hwtests::programs::must(tpm.tool("tpm2_dictionarylockout").args(more));
    let pins = TestPins::new(&tpm.pin());
    let backend = backend_with(&tpm, &pins);
    for pin in [PinPolicy::Never, PinPolicy::Once] {
        generate(&backend, pin.name(), KeyType::EcdsaP256, policy(pin)).unwrap();
    }
    let signers = ["never", "once"].map(|label| open(&backend, label).unwrap());
    for round in 0..3 {
        for signer in &signers {
            sign(&**signer, ECDSA, b"before").unwrap();
        }
        tpm.kill();
        for (what, error) in [
            ("sign", sign(&*signers[0], ECDSA, b"x").unwrap_err()),
            ("health", now(backend.health()).unwrap_err()),
            ("the key's health", now(signers[0].health()).unwrap_err()),
            ("describe", now(backend.describe()).unwrap_err()),
            ("generate", generate(&backend, "new", KeyType::EcdsaP256, KeyPolicy::default()).unwrap_err()),
        ] {
            assert_eq!(error.kind(), ErrorKind::DeviceGone, "{what}: {error:?}");
        }
        tpm.start_again();
        let back = Instant::now();
        while let Err(e) = sign(&*signers[0], ECDSA, b"after") {
            assert_eq!(e.kind(), ErrorKind::DeviceGone);
            assert!(back.elapsed() < Duration::from_secs(1), "it does not sign again: {e}");
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("round {round}: signs again after {:?}", back.elapsed());
        sign(&*signers[1], ECDSA, b"after").unwrap();
        now(backend.health()).unwrap();
        now(signers[1].health()).unwrap();
    }
    assert_eq!(pins.refused(), 0);
}

#[test]
fn the_tpm_comes_after_the_backend() {
    let tpm = SwTpm::with_options(&[]);
    tpm.kill();
    let backend = backend(&tpm);
    assert_eq!(now(backend.describe()).unwrap_err().kind(), ErrorKind::DeviceGone);
    tpm.start_again();
    now(backend.describe()).unwrap();
    now(backend.health()).unwrap();
    generate(&backend, "k", KeyType::EcdsaP256, KeyPolicy::default()).unwrap();
    // A device that is not there says what may be wrong.
    let mut options = tpm.options();
    options["tcti"] = "device:/dev/no-tpm".into();
    let config = signer_tpm::TpmConfig::from_json(options).unwrap();
    let nowhere = signer_tpm::TpmBackend::new(config, "nowhere", TestPins::none()).unwrap();
    let error = now(nowhere.describe()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    assert!(error.to_string().contains("there is no /dev/no-tpm"), "{error}");
}

/// Three slots on a bare TPM; a resource manager hides how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_tpm_holds() {
    for tpm in [SwTpm::with_options(&[]), SwTpm::managed()] {
        let backend = tpm.direct(PinSetup::Right).await.unwrap();
        let mut signers = Vec::new();
        for at in 0..8 {
            let request = signer_core::GenerateRequest::new(name(&format!("key {at}")), KeyType::EcdsaP256);
            let info = backend.generate().unwrap().generate(request).await.unwrap();
            signers.push(backend.open(&info.name.into()).await.unwrap());
        }
        for round in 0..5 {
            for signer in &signers {
                let request = SignRequest::message(ECDSA, format!("round {round}"));
                let input = request.input().clone();
                let signature = signer.sign(request).await.unwrap();
                signer.info().public_key.verify(ECDSA, &input, signature.as_bytes()).unwrap();
            }
        }
        tpm.end_driver().await;
    }
}

/// A bare TPM keeps what a killed process had open, and has three slots of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn drivers_that_are_killed_leave_nothing_behind() {
    let tpm = SwTpm::with_options(&[("parameter_encryption", true.into())]);
    let backend = tpm.direct(PinSetup::Right).await.unwrap();
    let generate = backend.generate().unwrap();
    for label in ["a", "b", "c"] {
        generate.generate(signer_core::GenerateRequest::new(name(label), KeyType::EcdsaP256)).await.unwrap();
    }
    for round in 0..6 {
        for label in ["a", "b", "c"] {
            let signer = backend.open(&selector(label)).await.unwrap();
            signer.sign(SignRequest::message(ECDSA, format!("round {round}"))).await.unwrap();
        }
        for pid in tpm.driver().unwrap().processes() {
            process::signal(pid, Signal::KILL);
        }
    }
    // One that ends by itself leaves nothing at all.
    tpm.end_driver().await;
    let own = support::backend(&tpm);
    now_in_thread(move || {
        sign(&*open(&own, "a").unwrap(), ECDSA, b"x").unwrap();
    });
    for kind in ["handles-transient", "handles-loaded-session"] {
        let left = hwtests::programs::must(tpm.tool("tpm2_getcap").arg(kind));
        assert!(left.trim().is_empty(), "{kind}: {left}");
    }
}

/// Blocking work in an asynchronous test.
fn now_in_thread(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

/// The TSS waits for ever; the driver's watchdog does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_hangs() {
    let tpm = SwTpm::with_options(&[]);
    let backend = tpm.direct(PinSetup::Right).await.unwrap();
    let request = signer_core::GenerateRequest::new(name("k"), KeyType::EcdsaP256);
    backend.generate().unwrap().generate(request).await.unwrap();
    let signer = backend.open(&selector("k")).await.unwrap();
    signer.sign(SignRequest::message(ECDSA, "before")).await.unwrap();
    tpm.freeze();
    let start = Instant::now();
    let soon = SignRequest::message(ECDSA, "hangs").deadline(Some(start + Duration::from_secs(1)));
    let error = signer.sign(soon).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::DeviceGone), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // Long enough for the watchdog to end the driver.
    tokio::time::sleep(Duration::from_secs(22)).await;
    tpm.thaw();
    let back = Instant::now();
    while let Err(e) = signer.sign(SignRequest::message(ECDSA, "after")).await {
        assert!(back.elapsed() < Duration::from_secs(8), "it does not sign again: {e}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("signs again after {:?}, {} driver restarts", back.elapsed(), tpm.driver().unwrap().restarts());
    assert!(tpm.driver().unwrap().restarts() >= 1);
}
