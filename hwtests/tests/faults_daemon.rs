//! The daemon killed, stopped, reloaded and started twice.
#![allow(clippy::unwrap_used)] // tests

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine, SoftHsm, Software},
    eventually,
    load::{Load, failures, first_success_after, input},
    process::{self, Signal},
    programs,
};
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, GenerateRequest, KeyName, KeyType, ListRequest, SignatureAlgorithm};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_ends_every_call_at_once() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    let load = Load::start(|| daemon.client(), "hsm/release", 16).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let killed = Instant::now();
    daemon.kill();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let started = Instant::now();
    daemon.start_again().await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let calls = load.stop().await;
    for call in failures(&calls) {
        let error = call.outcome.as_ref().unwrap_err();
        assert!(error.is_retryable(), "a call ended with {error:?}");
        assert!(call.began + call.took >= killed, "a call failed before the daemon was killed: {error:?}");
        assert!(call.took < Duration::from_secs(1), "a call hung for {:?}", call.took);
        assert!(call.began < started + Duration::from_secs(1), "a call failed after the restart: {error:?}");
    }
    for client in 0..16 {
        let in_flight = calls.iter().any(|c| c.client == client && c.began < killed && c.outcome.is_ok());
        let after = calls.iter().any(|c| c.client == client && c.began > started && c.outcome.is_ok());
        assert!(in_flight && after, "client {client} was not served before and after");
    }
    let back = first_success_after(&calls, started).unwrap();
    assert!(back < Duration::from_secs(1), "back only after {back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrying_client_waits_for_the_next_daemon() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "release").await;
    let client = daemon.client().retrying();
    let algorithm = SignatureAlgorithm::Ecdsa(signer_core::HashAlgorithm::Sha256);
    let sign = async || client.sign("soft/release", Some(algorithm), input(algorithm, "retried")).await;
    sign().await.unwrap();
    for _ in 0..3 {
        daemon.kill();
        let (signed, ()) = tokio::join!(sign(), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            daemon.start_again().await;
        });
        signed.unwrap();
    }

    // The command does the same.
    std::fs::write(daemon.folder().join("file"), "a file").unwrap();
    daemon.kill();
    let mut command = daemon.signer();
    command.args(["sign", "file", "--key", "soft/release"]);
    let signing = tokio::task::spawn_blocking(move || programs::output(&mut command));
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.start_again().await;
    let output = signing.await.unwrap();
    assert!(output.status.success(), "{}", programs::text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_lost_or_halved_when_the_daemon_is_killed() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    let mut made = Vec::new();
    for round in 0..5 {
        let backend = daemon.backend("soft").await;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let maker = tokio::spawn(async move {
            let mut made = Vec::new();
            for at in 0.. {
                let name = KeyName::label(format!("key {round} {at}")).unwrap();
                let request = GenerateRequest::new(name, KeyType::EcdsaP256);
                match backend.generate().unwrap().generate(request).await {
                    Ok(info) => made.push(info),
                    Err(e) => {
                        assert!(
                            e.is_uncertain() || e.kind() == ErrorKind::DeviceGone,
                            "a change ended with {e:?}"
                        );
                        return made;
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            made
        });
        let going = eventually(Duration::from_secs(20), async || count.load(Ordering::Relaxed) >= 2).await;
        assert!(going, "no keys are made; the daemon said:\n{}", daemon.log());
        // Anywhere in the making of the next one.
        tokio::time::sleep(Duration::from_millis(3 + 37 * round)).await;
        daemon.kill();
        made.extend(maker.await.unwrap());
        daemon.start_again().await;
    }
    assert!(made.len() >= 10, "only {} keys were made", made.len());
    let backend = daemon.backend("soft").await;
    let mut listed = Vec::new();
    let mut page_token = None;
    loop {
        let page = backend.list(ListRequest { page_size: 0, page_token }).await.unwrap();
        listed.extend(page.keys);
        page_token = page.next;
        if page_token.is_none() {
            break;
        }
    }
    for key in &made {
        let found =
            listed.iter().find(|k| k.name == key.name).unwrap_or_else(|| panic!("{} is lost", key.name));
        assert_eq!(found.public_key, key.public_key);
    }
    // Those that were not acknowledged are whole, or not there.
    for key in &listed {
        let client = daemon.client();
        let reference = format!("soft/{}", key.name);
        let algorithm = key.default_algorithm();
        let input = input(algorithm, "whole");
        let signed = client.sign(&reference, Some(algorithm), input.clone()).await.unwrap();
        key.public_key.verify(algorithm, &input, signed.signature.as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_refuses_to_start_and_names_the_first() {
    let soft = Software::start();
    let daemon = Daemon::start(&[soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "release").await;
    let mut second = Command::new(programs::ours("signerd"));
    second.arg("--config").arg(daemon.configuration());
    let output = tokio::task::spawn_blocking(move || programs::output(&mut second)).await.unwrap();
    assert!(!output.status.success(), "a second daemon started");
    let said = programs::text(&output);
    assert!(said.contains(&daemon.pid().to_string()), "it does not name process {}: {said}", daemon.pid());
    daemon.client().key_info("soft/release").await.expect("the first daemon goes on");

    // What a killed one leaves behind does not stop the next.
    daemon.kill();
    daemon.start_again().await;
    daemon.client().key_info("soft/release").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_drops_no_request() {
    let (hsm, soft) = (SoftHsm::start(), Software::start());
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    let load = Load::start(|| daemon.client(), "hsm/release", 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for round in 0..6 {
        let mut configuration = format!("{}\n{GRANT_ALL}", hsm.toml("hsm", PinSetup::Right));
        if round % 2 == 0 {
            configuration.push_str(&soft.toml("soft", PinSetup::Right));
        }
        daemon.configure(&configuration);
        process::signal(daemon.pid(), Signal::HUP);
        tokio::time::sleep(Duration::from_millis(400)).await;
        let there = daemon.client().backend(&"soft".parse().unwrap()).await.is_ok();
        assert_eq!(there, round % 2 == 0, "round {round}: the new configuration does not hold");
    }
    // A configuration that cannot be read changes nothing.
    daemon.configure("[[nonsense]]\n");
    process::signal(daemon.pid(), Signal::HUP);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let calls = load.stop().await;
    let failed = failures(&calls);
    assert!(failed.is_empty(), "{} of {} calls failed, first {:?}", failed.len(), calls.len(), failed[0]);
    assert!(daemon.log().contains("nonsense"), "the log does not say what is wrong with the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_daemon_answers_what_it_has_begun() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    let load = Load::start(|| daemon.client(), "hsm/release", 16).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, daemon) = tokio::task::spawn_blocking(move || (daemon.stop(), daemon)).await.unwrap();
    assert!(status.success(), "it ended with {status}: {}", daemon.log());
    let calls = load.stop().await;
    for call in failures(&calls) {
        let error = call.outcome.as_ref().unwrap_err();
        assert!(error.is_retryable(), "a call ended with {error:?}");
        assert!(call.took < Duration::from_secs(1), "a call hung for {:?}", call.took);
    }
    assert!(!daemon.socket().exists(), "a stopped daemon leaves its socket behind");
}
