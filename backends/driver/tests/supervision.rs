//! The daemon's side of a driver, with a real process at the other end.

#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use signer_core::{
    Backend, Digest, ErrorKind, HashAlgorithm, Input, KeySelector, Pin, SignRequest, SignatureAlgorithm,
    Signer,
};
use signer_driver::{DriverBackend, DriverConfig, PinLoader};

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

fn config(options: serde_json::Value) -> DriverConfig {
    let test = std::env::current_exe().expect("tests know where they are");
    let target = test.ancestors().nth(2).expect("target/debug");
    DriverConfig {
        backend: "memory".into(),
        program: target.join("examples/memory_driver"),
        arguments: Vec::new(),
        environment: Vec::new(),
        options,
        processes: 2,
        threads: 1,
        spin: true,
        queue: 1024,
        pin: None,
        pin_ttl: None,
    }
}

fn selector(name: &str) -> KeySelector {
    name.parse().unwrap()
}

async fn sign_and_verify(signer: &Arc<dyn Signer>, number: u64) {
    let digest = Digest::of(HashAlgorithm::Sha256, &number.to_le_bytes());
    let request = SignRequest::digest(ALGORITHM, digest).unwrap();
    let request = request.deadline(Some(Instant::now() + Duration::from_secs(10)));
    let signature = signer.sign(request).await.unwrap();
    signer.info().public_key.verify(ALGORITHM, &Input::Digest(digest), signature.as_bytes()).unwrap();
}

/// Signs from 16 tasks until `stop`, and says how many signatures that were.
async fn load(signer: &Arc<dyn Signer>, stop: Instant) -> u64 {
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let signer = signer.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while Instant::now() < stop {
                    sign_and_verify(&signer, task << 32 | count).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    sum
}

#[tokio::test]
async fn it_signs_and_says_what_it_cannot() {
    let backend = DriverBackend::start(config(json!({}))).await.unwrap();
    assert_eq!(backend.describe().await.unwrap().kind, "memory");
    assert!(backend.generate().is_none());
    let signer = backend.open(&selector("one")).await.unwrap();
    sign_and_verify(&signer, 1).await;
    signer.health().await.unwrap();
    let error = backend.open(&selector("three")).await.err().unwrap();
    assert_eq!((error.kind(), error.device_name()), (ErrorKind::NotFound, Some("memory")));
    let past = SignRequest::message(ALGORITHM, "x").deadline(Some(Instant::now() - Duration::from_secs(1)));
    assert_eq!(signer.sign(past).await.unwrap_err().kind(), ErrorKind::TimedOut);
    let other = SignRequest::message(SignatureAlgorithm::Ed25519, "x");
    assert_eq!(signer.sign(other).await.unwrap_err().kind(), ErrorKind::Unsupported);
    backend.stop().await;
    assert!(backend.processes().is_empty());
    let stopped = SignRequest::message(ALGORITHM, "x");
    assert_eq!(signer.sign(stopped).await.unwrap_err().kind(), ErrorKind::DeviceGone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_drivers_cost_nobody_a_signature() {
    let backend = DriverBackend::start(config(json!({}))).await.unwrap();
    let signer = backend.open(&selector("one")).await.unwrap();
    let stop = Instant::now() + Duration::from_millis(1500);
    let killer = {
        let backend = backend.clone();
        tokio::spawn(async move {
            while Instant::now() < stop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                for pid in backend.processes() {
                    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                }
            }
        })
    };
    let signatures = load(&signer, stop).await;
    killer.await.unwrap();
    assert!(
        signatures > 100 && backend.restarts() >= 3,
        "{signatures} signatures, {} restarts",
        backend.restarts()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_crashes_now_and_then_costs_nobody_a_signature() {
    let backend = DriverBackend::start(config(json!({ "crash_every": 2000 }))).await.unwrap();
    let signer = backend.open(&selector("one")).await.unwrap();
    let signatures = load(&signer, Instant::now() + Duration::from_secs(1)).await;
    assert!(
        signatures > 2000 && backend.restarts() > 0,
        "{signatures} signatures, {} restarts",
        backend.restarts()
    );
}

#[tokio::test]
async fn a_request_that_kills_every_driver_is_given_up() {
    let backend = DriverBackend::start(config(json!({ "crash_every": 1 }))).await.unwrap();
    let signer = backend.open(&selector("one")).await.unwrap();
    let error = signer.sign(SignRequest::message(ALGORITHM, "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("5 driver processes"), "{error}");
}

#[tokio::test]
async fn a_hanging_driver_does_not_hold_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let hang_once = folder.path().join("hangs");
    let backend = DriverBackend::start(config(json!({ "hang_once": hang_once }))).await.unwrap();
    let signer = backend.open(&selector("one")).await.unwrap();
    let start = Instant::now();
    let request = SignRequest::message(ALGORITHM, "x").deadline(Some(start + Duration::from_millis(300)));
    assert_eq!(signer.sign(request).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(1));
    // The other process is started for the next caller, who does not wait behind the one that hangs.
    for number in 0..20 {
        sign_and_verify(&signer, number).await;
    }
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once() {
    let loads = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = loads.clone();
    let loader: PinLoader = Arc::new(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Pin::new("0000".into()).map(Some)
    });
    let config = DriverConfig { pin: Some(loader), ..config(json!({ "expected_pin": "1234" })) };
    let backend = DriverBackend::start(config).await.unwrap();
    let name = selector("one");
    let first = backend.open(&name).await.err().unwrap();
    assert_eq!(first.kind(), ErrorKind::WrongPin { tries_left: Some(2) });
    for _ in 0..5 {
        let error = backend.open(&name).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.advice().unwrap().contains("unlock"), "{error}");
    }
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_said_at_once() {
    let config = DriverConfig { program: PathBuf::from("/nonexistent/driver"), ..config(json!({})) };
    let error = DriverBackend::start(config).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    let config = DriverConfig { program: PathBuf::from("/bin/true"), ..self::config(json!({})) };
    let start = Instant::now();
    assert!(DriverBackend::start(config).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn more_than_the_queue_holds_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let hang_once = folder.path().join("hangs");
    let config = DriverConfig { queue: 4, processes: 1, ..config(json!({ "hang_once": hang_once })) };
    let backend = DriverBackend::start(config).await.unwrap();
    let signer = backend.open(&selector("one")).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(500);
    let requests = (0..10).map(|_| {
        let signer = signer.clone();
        tokio::spawn(async move {
            signer.sign(SignRequest::message(ALGORITHM, "x").deadline(Some(deadline))).await
        })
    });
    let requests: Vec<_> = requests.collect();
    let mut busy = 0;
    for request in requests {
        match request.await.unwrap().unwrap_err().kind() {
            ErrorKind::Busy { retry_after } => {
                assert!(retry_after > Duration::ZERO);
                busy += 1;
            }
            kind => assert_eq!(kind, ErrorKind::TimedOut),
        }
    }
    assert_eq!(busy, 6);
    assert_eq!(backend.queued(), 0);
}
