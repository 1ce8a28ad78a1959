//! Hot-plug and sleep: out and in under load, resets by others, a service that is started anew.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hwtests::{
    engines::{Engine, Piv},
    eventually, process, programs,
};
use hwtests_piv_card::{Fault, FaultKind};
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, Event, KeyType, Watch};

use crate::support::{generate, open, serve, sign};

/// A hundred times out and in while four sign: every answer is right or says that the card is away, the next one after
/// it is back comes within a second, and no try of the PIN was burnt.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_removals_under_load() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9c", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9c").await;
    sign(&*signer, "before").await.unwrap();
    let (stop, good, away) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|task| {
            let (signer, stop, good, away) = (signer.clone(), stop.clone(), good.clone(), away.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    match sign(&*signer, &format!("task {task} round {round}")).await {
                        Ok(_) => good.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert!(error.is_retryable(), "{error:?}");
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            away.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for round in 0..100_u64 {
        tokio::time::sleep(Duration::from_millis(10 + round % 7 * 5)).await;
        card.card().remove();
        tokio::time::sleep(Duration::from_millis(round % 11 * 10)).await;
        card.card().insert();
        // The reader looks every 400 ms; of a card that was back before it looked it notices nothing.
        card.card().wait_for_power(Duration::from_millis(500));
        let back = Instant::now();
        let before = good.load(Ordering::Relaxed);
        let served =
            eventually(Duration::from_secs(5), || async { good.load(Ordering::Relaxed) > before }).await;
        assert!(served, "round {round}: nothing is signed 5 s after the card is back");
        slowest = slowest.max(back.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let state = card.card().state();
    eprintln!(
        "{} signatures, {} answers that the card is away, served again after {slowest:?} at most",
        good.load(Ordering::Relaxed),
        away.load(Ordering::Relaxed)
    );
    assert!(away.load(Ordering::Relaxed) > 0, "no removal was met");
    assert!(slowest < Duration::from_secs(1), "served again only after {slowest:?}");
    assert_eq!((state.counters.failed_verifies, state.pin_tries), (0, 3));
    assert_eq!(backend.restarts(), 0, "the driver needed a restart");
}

/// The card comes back while somebody waits: nobody does anything, and its owner is told both times.
#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_is_told() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    Watch::watch(&*backend, Arc::new(move |event| heard.lock().unwrap().push(event)));
    backend.health().await.unwrap();
    let downs = |events: &[Event]| events.iter().filter(|e| matches!(e, Event::Down(_))).count();
    for round in 1..=3 {
        card.card().remove();
        let told =
            eventually(Duration::from_secs(2), || async { downs(&events.lock().unwrap()) == round }).await;
        assert!(told, "round {round}: {:?}", events.lock().unwrap());
        let error = backend.health().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert!(error.to_string().contains("serial number 12345678 is not there"), "{error}");
        card.card().insert();
        let told = eventually(Duration::from_secs(2), || async {
            matches!(events.lock().unwrap().last(), Some(Event::Up))
        })
        .await;
        assert!(told, "round {round}: {:?}", events.lock().unwrap());
        backend.health().await.unwrap();
    }
}

/// Another program resets the card, and signs with it in between: nobody notices, on either side.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_works_and_resets_in_between() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (signer, stop) = (signer.clone(), stop.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                sign(&*signer, "while others work").await.unwrap();
                count += 1;
            }
            count
        })
    };
    for _ in 0..10 {
        // It resets the card when it disconnects.
        let mut tool = card.tool();
        tool.args(["-a", "verify-pin", "-P", &card.pin()]);
        tokio::task::spawn_blocking(move || programs::must(&mut tool)).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

/// `pcscd` is started anew under our feet, and is away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_started_anew() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    sign(&*signer, "before").await.unwrap();
    // For good: it would be started again otherwise.
    let folder = card.pcscd().folder();
    std::fs::write(folder.join("stop"), "").unwrap();
    let service = std::fs::read_to_string(folder.join("pid")).unwrap().trim().parse().unwrap();
    process::signal(service, process::Signal::KILL);
    let error = eventually_fails(&*signer).await;
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error}");
    assert!(error.to_string().contains("pcscd.socket"), "{error}");
    let error = backend.health().await.unwrap_err();
    assert!(error.to_string().contains("pcscd"), "{error}");

    let _second = Service::start(&card);
    let start = Instant::now();
    let served =
        eventually(Duration::from_secs(10), || async { sign(&*signer, "after").await.is_ok() }).await;
    assert!(served, "{:?}", sign(&*signer, "after").await);
    eprintln!("served again {:?} after pcscd was started", start.elapsed());
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

async fn eventually_fails(signer: &dyn signer_core::Signer) -> signer_core::Error {
    for _ in 0..100 {
        if let Err(error) = sign(signer, "x").await {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it signs without a service");
}

/// Another `pcscd` in the place of the first.
struct Service(Child);

impl Service {
    fn start(card: &Piv) -> Self {
        let _ = std::fs::remove_file(card.pcscd().socket());
        let child = Command::new(programs::system("nsenter", "util-linux"))
            .args(["--target", &card.pcscd().pid().to_string(), "--mount", "--net"])
            .args(["setpriv", "--pdeathsig", "KILL", "pcscd", "--foreground", "--config"])
            .arg(card.pcscd().folder().join("readers"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers that are garbage, cut or late: never a wrong signature, never a dead driver, and all is well after.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_loses_its_mind() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    for kind in [FaultKind::Garbage, FaultKind::Short, FaultKind::Cut, FaultKind::Status(0x6f00)] {
        for instruction in [Some(0x87), Some(0xcb), Some(0xf7), Some(0xa4)] {
            card.card().fault(Fault { kind, count: 2, instruction });
            for _ in 0..3 {
                // An error is fine; `sign` fails the test for a signature that does not verify.
                let _ = sign(&*signer, "x").await;
                let _ = backend.list(signer_core::ListRequest::default()).await;
            }
            card.card().heal();
            let well =
                eventually(Duration::from_secs(3), || async { sign(&*signer, "x").await.is_ok() }).await;
            assert!(well, "{kind:?} of {instruction:x?}: {:?}", sign(&*signer, "x").await);
        }
    }
    card.card().fault(Fault {
        kind: FaultKind::Slow(Duration::from_secs(1)),
        count: 2,
        instruction: Some(0x87),
    });
    sign(&*signer, "slow").await.unwrap();
    assert_eq!(card.card().state().counters.failed_verifies, 0);
    assert_eq!(backend.restarts(), 0);
}

/// "agent blocks ykman", and the other way round: a program that does not let the card go costs an answer in words, not a
/// driver; when it is done, we go on.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_does_not_let_the_card_go() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    sign(&*signer, "before").await.unwrap();
    // It waits eight seconds for the answer to one command, with the card to itself.
    card.card().fault(Fault {
        kind: FaultKind::Slow(Duration::from_secs(8)),
        count: 1,
        instruction: Some(0xcb),
    });
    let mut tool = card.tool();
    tool.args(["-a", "read-object", "--id", "0x5fc102"]);
    let other = tokio::task::spawn_blocking(move || programs::output(&mut tool));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = Instant::now();
    let error = sign(&*signer, "meanwhile").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy { .. }), "{error:?}");
    assert!(error.to_string().contains("another program"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    other.await.unwrap();
    sign(&*signer, "after").await.unwrap();
    assert_eq!(backend.restarts(), 0);
}

/// Under load, too, others get their turn: a program that waits looks only every 100 ms whether the card is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_daemon_does_not_starve_others() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    // As slow as a real one.
    let slow = FaultKind::Slow(Duration::from_millis(60));
    card.card().fault(Fault { kind: slow, count: u32::MAX, instruction: Some(0x87) });
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|task| {
            let (signer, stop) = (signer.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    sign(&*signer, &format!("task {task}")).await.unwrap();
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let mut tool = card.tool();
    tool.args(["-a", "verify-pin", "-P", &card.pin()]);
    tokio::task::spawn_blocking(move || programs::must(&mut tool)).await.unwrap();
    let took = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    eprintln!("another program was done after {took:?}");
    assert!(took < Duration::from_secs(20), "another program waited {took:?}");
}
