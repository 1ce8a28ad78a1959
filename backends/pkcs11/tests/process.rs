//! The program `signerd-pkcs11`: as a driver of the daemon's side, and on the command line.
#![allow(clippy::unwrap_used)] // tests may panic

use std::{process::Command, sync::Arc, time::Duration};

use signer_core::{
    Ability, Backend, ErrorKind, GenerateRequest, HashAlgorithm, Input, KeyType, ListRequest, SignRequest,
    SignatureAlgorithm, Signer, UnlockRequest,
};
use signer_driver::{DriverBackend, DriverConfig, PinLoader};

mod support;
use support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_signerd-pkcs11");
const ECDSA: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

fn driver(bench: &Bench, pin: impl Into<Option<PinLoader>>) -> DriverConfig {
    let file = |name| bench.folder.join(name).to_str().unwrap().to_owned();
    DriverConfig {
        backend: "hsm".into(),
        program: PROGRAM.into(),
        arguments: Vec::new(),
        environment: vec![
            ("SOFTHSM2_CONF".into(), file("softhsm2.conf")),
            ("KRYOPTIC_CONF".into(), file("kryoptic.conf")),
        ],
        options: serde_json::json!({ "module": bench.module, "token": TOKEN }),
        processes: 2,
        threads: 1,
        spin: false,
        queue: 64,
        pin: pin.into(),
        pin_ttl: None,
    }
}

fn right_pin() -> PinLoader {
    Arc::new(|| Ok(Some(pin_of(PIN))))
}

async fn generate_p256(backend: &dyn Backend, name: &str) -> signer_core::Result<Arc<dyn Signer>> {
    let name: signer_core::KeyName = name.parse().unwrap();
    let request = GenerateRequest::new(name.clone(), KeyType::EcdsaP256);
    backend.generate().unwrap().generate(request).await?;
    backend.open(&name.into()).await
}

async fn sign_once(signer: &dyn Signer) -> signer_core::Result<()> {
    let signature = signer.sign(SignRequest::message(ECDSA, "x")).await?;
    signer.info().public_key.verify(ECDSA, &Input::Message("x".into()), signature.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_a_token() {
    for engine in [Engine::SoftHsm, Engine::Kryoptic] {
        let (_folder, bench) = Bench::for_a_driver(engine);
        let backend = DriverBackend::start(driver(&bench, right_pin())).await.unwrap();
        assert!(backend.abilities().contains(&Ability::StoreCertificate));
        assert!(!backend.abilities().contains(&Ability::Rotate));
        assert_eq!(backend.describe().await.unwrap().device, TOKEN);
        let signer = generate_p256(&*backend, "k/1").await.unwrap();
        for _ in 0..50 {
            sign_once(&*signer).await.unwrap();
        }
        signer.health().await.unwrap();
        assert_eq!(backend.list(ListRequest::default()).await.unwrap().keys, [signer.info().clone()]);
        backend.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_pin_and_for_a_token() {
    let (_folder, bench) = Bench::for_a_driver(Engine::SoftHsm);
    let backend = DriverBackend::start(driver(&bench, None)).await.unwrap();
    assert_eq!(backend.health().await.unwrap_err().kind(), ErrorKind::PinRequired);
    let unlock =
        |pin: &str| backend.unlock().unwrap().unlock(UnlockRequest { pin: pin_of(pin), use_last_try: false });
    assert!(matches!(unlock("999999").await.unwrap_err().kind(), ErrorKind::WrongPin { .. }));
    unlock(PIN).await.unwrap();
    let signer = generate_p256(&*backend, "k").await.unwrap();
    std::fs::rename(bench.folder.join("tokens"), bench.folder.join("away")).unwrap();
    assert_eq!(sign_once(&*signer).await.unwrap_err().kind(), ErrorKind::DeviceGone);
    assert_eq!(backend.health().await.unwrap_err().kind(), ErrorKind::DeviceGone);
    std::fs::rename(bench.folder.join("away"), bench.folder.join("tokens")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    sign_once(&*signer).await.unwrap();
    backend.health().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_said_at_once() {
    let (_folder, bench) = Bench::for_a_driver(Engine::SoftHsm);
    for (options, names) in [
        (serde_json::json!({ "module": "/nowhere.so", "token": "t" }), "/nowhere.so"),
        (serde_json::json!({ "module": bench.module }), "serial"),
        (serde_json::json!({ "module": bench.module, "token": "t", "slot": 1 }), "slot"),
    ] {
        let config = DriverConfig { options, ..driver(&bench, right_pin()) };
        let error = DriverBackend::start(config).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
        assert!(error.to_string().contains(names), "{error}");
    }
}

#[test]
fn it_lists_tokens_for_people() {
    let (_folder, bench) = Bench::for_a_driver(Engine::SoftHsm);
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .env("SOFTHSM2_CONF", bench.folder.join("softhsm2.conf"))
            .args(arguments)
            .output()
            .unwrap();
        let told = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), told(output.stdout), told(output.stderr))
    };
    let module = bench.module.to_str().unwrap();
    let (code, text, _) = run(&["list-tokens", module]);
    assert!(code == 0 && text.contains(TOKEN) && text.contains("LOGIN_REQUIRED"), "{text}");
    let (code, json, _) = run(&["list-tokens", module, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["tokens"][0]["label"].as_str()), (0, Some(TOKEN)));
    assert!(json["tokens"][0]["flags"].as_array().unwrap().contains(&"USER_PIN_INITIALIZED".into()));
    let (code, _, error) = run(&["list-tokens", "/nowhere.so"]);
    assert!(code == 1 && error.contains("/nowhere.so"), "{error}");
    assert_eq!(run(&["--version"]).0, 0);
    assert!(run(&["--help"]).1.contains("signerd starts it"));
    assert_eq!(run(&["--frobnicate"]).0, 2);
}

/// SoftHSM answers CKR_GENERAL_ERROR to processes that start on one token at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn many_processes_start_on_one_token() {
    let (_folder, bench) = Bench::for_a_driver(Engine::SoftHsm);
    let first = DriverBackend::start(driver(&bench, right_pin())).await.unwrap();
    generate_p256(&*first, "k").await.unwrap();
    for _ in 0..3 {
        let starts = (0..8).map(|_| {
            let config = driver(&bench, right_pin());
            tokio::spawn(async move {
                let backend = DriverBackend::start(config).await.unwrap();
                let signer = backend.open(&"k".parse().unwrap()).await.unwrap();
                sign_once(&*signer).await.unwrap();
                backend.stop().await;
            })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap();
        }
    }
}

/// Each process keeps what it knows of the token to itself: what another one changes must still be found.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_makes_another_one_finds() {
    for engine in [Engine::SoftHsm, Engine::Kryoptic] {
        let (_folder, bench) = Bench::for_a_driver(engine);
        let one = DriverBackend::start(driver(&bench, right_pin())).await.unwrap();
        let other = DriverBackend::start(driver(&bench, right_pin())).await.unwrap();
        generate_p256(&*one, "busy").await.unwrap();
        let busy = other.open(&"busy".parse().unwrap()).await.unwrap();
        let load = tokio::spawn(async move {
            loop {
                sign_once(&*busy).await.unwrap();
            }
        });
        for i in 0..30 {
            let name = format!("k{i}");
            let made = generate_p256(&*one, &name).await.unwrap();
            let found = other.open(&name.parse().unwrap()).await.unwrap();
            assert_eq!(found.info(), made.info());
            sign_once(&*found).await.unwrap();
            if i % 2 == 0 {
                one.delete().unwrap().delete(&name.parse().unwrap()).await.unwrap();
                assert_eq!(sign_once(&*found).await.unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
        assert!(!load.is_finished(), "a signature failed meanwhile");
        load.abort();
        assert_eq!(other.list(ListRequest::default()).await.unwrap().keys.len(), 16);
    }
}

/// When initialising the module again and again does not help, another process is the last resort.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_stays_broken_gets_another_process() {
    let (_folder, bench) = Bench::for_a_driver(Engine::SoftHsm);
    let conf = bench.folder.join("softhsm2.conf");
    let away = bench.folder.join("away.conf");
    std::fs::rename(&conf, &away).unwrap();
    let backend = DriverBackend::start(driver(&bench, right_pin())).await.unwrap();
    let start = std::time::Instant::now();
    while backend.restarts() == 0 {
        assert_eq!(backend.health().await.unwrap_err().kind(), ErrorKind::DeviceGone);
        assert!(start.elapsed() < Duration::from_mins(1), "the process is never given up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(20), "it is given up too early: {:?}", start.elapsed());
    std::fs::rename(&away, &conf).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    backend.health().await.unwrap();
}
