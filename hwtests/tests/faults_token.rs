//! The token itself: gone and back, and its PIN changed behind our back.
#![allow(clippy::unwrap_used)] // tests

use std::time::{Duration, Instant};

use hwtests::{
    daemon::Daemon,
    engines::{Engine, SoftHsm, Software},
    eventually,
    load::{Load, failures, first_success_after, input},
};
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, KeyType, SignatureAlgorithm};
use signerd_api::Client;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// What the standard health service says of a backend or key.
async fn serving(client: &Client, service: &str) -> ServingStatus {
    let mut health = client.service(HealthClient::with_origin);
    let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
    answer.unwrap_or_else(|e| panic!("health of {service}: {e}")).into_inner().status()
}

/// What the list of backends says is wrong with one.
async fn trouble(client: &Client, backend: &str) -> Option<ErrorKind> {
    let backends = client.backends().await.unwrap();
    let status = backends.into_iter().find(|b| b.name.as_str() == backend).unwrap();
    status.health.map(|e| e.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_goes_and_comes_back() {
    let (hsm, soft) = (SoftHsm::start(), Software::start());
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right), soft.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    daemon.make_key("soft", "release").await;
    let client = daemon.client();
    assert_eq!(serving(&client, "backend/hsm").await, ServingStatus::Serving);
    assert_eq!(serving(&client, "backend/soft").await, ServingStatus::Serving);

    for _ in 0..3 {
        let hsm_load = Load::start(|| daemon.client(), "hsm/release", 8).await;
        let soft_load = Load::start(|| daemon.client(), "soft/release", 8).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let away = hsm.folder().join("away");
        std::fs::rename(hsm.tokens(), &away).unwrap();
        let gone = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            serving(&client, "backend/soft").await,
            ServingStatus::Serving,
            "another backend's health is red, too"
        );
        assert_eq!(
            serving(&client, "backend/hsm").await,
            ServingStatus::NotServing,
            "health does not see that it is gone"
        );
        assert_eq!(
            serving(&client, "key/hsm/release").await,
            ServingStatus::NotServing,
            "the key's health stays green"
        );
        assert_eq!(serving(&client, "key/soft/release").await, ServingStatus::Serving);
        assert_eq!(trouble(&client, "hsm").await, Some(ErrorKind::DeviceGone));
        assert_eq!(trouble(&client, "soft").await, None);
        tokio::time::sleep((gone + Duration::from_millis(1500)).saturating_duration_since(Instant::now()))
            .await;
        let back = Instant::now();
        std::fs::rename(&away, hsm.tokens()).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;

        let calls = hsm_load.stop().await;
        let failed = failures(&calls);
        assert!(!failed.is_empty(), "no call failed although the token was gone");
        for call in &failed {
            let error = call.outcome.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceGone, "a call ended with {error:?}");
            assert!(call.began + call.took >= gone, "a call failed before the token was gone: {error:?}");
            assert!(
                call.began < back + Duration::from_secs(1),
                "a call failed a second after its return: {error:?}"
            );
        }
        let served = first_success_after(&calls, back).expect("nothing was signed after the token's return");
        assert!(served < Duration::from_secs(1), "signatures came only {served:?} after the token's return");
        let others = soft_load.stop().await;
        let failed = failures(&others);
        assert!(failed.is_empty(), "calls to another backend failed, first {:?}", failed[0]);
        let green = eventually(Duration::from_secs(2), async || {
            serving(&client, "backend/hsm").await == ServingStatus::Serving
                && serving(&client, "key/hsm/release").await == ServingStatus::Serving
                && trouble(&client, "hsm").await.is_none()
        });
        assert!(green.await, "health stays red although the token is back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_starts_without_its_token() {
    let (hsm, soft) = (SoftHsm::start(), Software::start());
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    daemon.kill();
    let away = hsm.folder().join("away");
    std::fs::rename(hsm.tokens(), &away).unwrap();
    let configuration = [
        hsm.toml("hsm", PinSetup::Right),
        soft.toml("soft", PinSetup::Right),
        hwtests::daemon::GRANT_ALL.to_owned(),
    ];
    daemon.configure(&configuration.join("\n"));
    daemon.start_again().await;
    daemon.make_key("soft", "release").await;
    let client = daemon.client();
    let sign = async |key: &str| {
        let algorithm = SignatureAlgorithm::Ecdsa(signer_core::HashAlgorithm::Sha256);
        client.sign(key, Some(algorithm), input(algorithm, "x")).await
    };
    sign("soft/release").await.unwrap();
    assert_eq!(sign("hsm/release").await.unwrap_err().kind(), ErrorKind::DeviceGone);
    std::fs::rename(&away, hsm.tokens()).unwrap();
    let served = eventually(Duration::from_secs(2), async || sign("hsm/release").await.is_ok()).await;
    assert!(served, "it does not find the token that came later: {:?}", sign("hsm/release").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_changed_behind_our_back_is_tried_once() {
    let hsm = SoftHsm::spied();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    let new_pin = hwtests::random_secret();
    hsm.change_pin(&new_pin);
    // The login that stands goes on; the next one is refused.
    daemon.kill();
    daemon.start_again().await;
    let before = hsm.logins().unwrap();
    let load = Load::start_blindly(|| daemon.client(), "hsm/release", KeyType::EcdsaP256, 8);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = load.stop().await;
    assert_eq!(failures(&calls).len(), calls.len(), "something was signed with a wrong PIN");
    for call in &calls {
        let error = call.outcome.as_ref().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::WrongPin { .. } | ErrorKind::Locked),
            "a call ended with {error:?}"
        );
        assert!(error.advice().is_some_and(|a| a.contains("unlock")), "it does not say what to do: {error}");
    }
    let backend = daemon.backend("hsm").await;
    assert!(backend.health().await.is_err(), "health is green with a wrong PIN");
    assert_eq!(hsm.logins().unwrap() - before, 1, "the wrong PIN was tried more than once:\n{}", hsm.calls());

    // A person gives the new one.
    let pin = signer_core::Pin::new(new_pin).unwrap();
    let unlock = signer_core::UnlockRequest { pin, use_last_try: false };
    backend.unlock().unwrap().unlock(unlock).await.unwrap();
    let algorithm = SignatureAlgorithm::Ecdsa(signer_core::HashAlgorithm::Sha256);
    daemon.client().sign("hsm/release", Some(algorithm), input(algorithm, "x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_changed_while_serving_is_tried_once() {
    let hsm = SoftHsm::spied();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Right)]).await;
    daemon.make_key("hsm", "release").await;
    let load = Load::start(|| daemon.client(), "hsm/release", 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    hsm.change_pin(&hwtests::random_secret());
    let before = hsm.logins().unwrap();
    // Every driver must log in anew.
    for driver in daemon.drivers() {
        hwtests::process::signal(driver, hwtests::process::Signal::KILL);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = load.stop().await;
    for call in failures(&calls) {
        let error = call.outcome.as_ref().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::WrongPin { .. } | ErrorKind::Locked),
            "a call ended with {error:?}"
        );
    }
    assert!(calls.last().unwrap().outcome.is_err(), "something was signed with a wrong PIN");
    assert_eq!(hsm.logins().unwrap() - before, 1, "the wrong PIN was tried more than once");
}
