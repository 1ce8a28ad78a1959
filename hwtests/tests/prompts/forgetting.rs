//! PINs that are forgotten in time.

use std::time::Duration;

use hwtests::{
    daemon::Daemon,
    engines::{Engine, Piv, SoftHsm, SwTpm},
    eventually, process,
};
use signer_contract::PinSetup;
use signer_core::{Error, ErrorKind, KeyPolicy, PinPolicy};

use crate::support::{Answerer, SOON, card_without_pin, make, name, pin, sign, signing};

/// The table, with a time limit.
fn limited(engine: &dyn Engine, backend: &str, ttl: &str) -> String {
    let table = engine.toml(backend, PinSetup::Missing);
    let with = table.replace("pin = \"prompt\"", &format!("pin = \"prompt\"\npin_ttl = \"{ttl}\""));
    assert_ne!(table, with);
    with
}

/// What the daemon says is wrong with its backend.
async fn trouble(daemon: &Daemon, backend: &str) -> Option<Error> {
    let backends = daemon.client().backends().await.unwrap();
    backends.into_iter().find(|b| b.name.as_str() == backend).unwrap().health
}

async fn is_locked(daemon: &Daemon, backend: &str) -> Error {
    let locked = eventually(SOON, || async {
        trouble(daemon, backend).await.is_some_and(|e| e.kind() == ErrorKind::PinRequired)
    });
    assert!(locked.await, "it is not locked: {:?}", trouble(daemon, backend).await);
    trouble(daemon, backend).await.unwrap()
}

/// "PIN timeout": used, it is kept; left alone, it is forgotten, health says since when, and the next one is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_cards_pin_is_forgotten_when_it_is_not_used() {
    let card = Piv::start();
    let daemon = Daemon::start(&[limited(&card, "yubikey", "2 s")]).await;
    make(&daemon, "9a", KeyPolicy { pin: Some(PinPolicy::Once), ..KeyPolicy::default() }).await;
    let client = daemon.client();
    client.unlock(&name("yubikey"), pin(&card.pin())).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        sign(&client, "yubikey/9a").await.unwrap();
    }
    assert!(trouble(&daemon, "yubikey").await.is_none());
    let error = is_locked(&daemon, "yubikey").await;
    assert!(error.what().contains("locked since 20"), "{error}");
    assert!(error.what().contains("2 s after its PIN had served last"), "{error}");
    let error = sign(&client, "yubikey/9a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRequired);
    let mut person = Answerer::listen(&daemon).await;
    let waits = signing(&client, "yubikey/9a");
    let request = person.request(1).await;
    person.answer(&request, &card.pin()).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(card.card().state().counters.failed_verifies, 0);
}

/// A token stays logged in by itself: it is logged out, and whoever comes next needs the PIN again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_logged_out_in_time() {
    let hsm = SoftHsm::spied();
    let daemon = Daemon::start(&[limited(&hsm, "hsm", "2 s")]).await;
    daemon.backend("hsm").await;
    let client = daemon.client();
    client.unlock(&name("hsm"), pin(&hsm.pin())).await.unwrap();
    daemon.make_key("hsm", "release").await;
    sign(&client, "hsm/release").await.unwrap();
    let drivers = daemon.drivers();
    let error = is_locked(&daemon, "hsm").await;
    assert!(error.what().contains("locked since"), "{error}");
    assert_eq!(sign(&client, "hsm/release").await.unwrap_err().kind(), ErrorKind::PinRequired);
    assert_eq!(daemon.drivers(), drivers, "the driver knows how to log out");
    let before = hsm.logins().unwrap();
    client.unlock(&name("hsm"), pin(&hsm.pin())).await.unwrap();
    sign(&client, "hsm/release").await.unwrap();
    assert!(hsm.logins().unwrap() > before, "it was still logged in");
}

/// A TPM's keys are open as long as they are loaded: they are not any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_tpms_keys_are_closed_in_time() {
    let tpm = SwTpm::start();
    let daemon = Daemon::start(&[limited(&tpm, "tpm", "2 s")]).await;
    daemon.backend("tpm").await;
    let client = daemon.client();
    let mut person = Answerer::listen(&daemon).await;
    let making = {
        let client = client.clone();
        tokio::spawn(async move {
            let key = signer_core::KeyName::label("release").unwrap();
            let policy = KeyPolicy { pin: Some(PinPolicy::Once), ..KeyPolicy::default() };
            let request = signer_core::GenerateRequest {
                policy,
                ..signer_core::GenerateRequest::new(key, signer_core::KeyType::EcdsaP256)
            };
            client.create(&name("tpm"), request).await
        })
    };
    let request = person.request(1).await;
    person.client.answer_pin(&name("tpm"), request.number, pin(&tpm.pin())).await.unwrap();
    making.await.unwrap().unwrap();
    drop(person);
    sign(&client, "tpm/release").await.unwrap();
    is_locked(&daemon, "tpm").await;
    assert_eq!(sign(&client, "tpm/release").await.unwrap_err().kind(), ErrorKind::PinRequired);
    client.unlock(&name("tpm"), pin(&tpm.pin())).await.unwrap();
    sign(&client, "tpm/release").await.unwrap();
}

/// By hand, too; and a configured PIN has no limit, as it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_forgotten_when_somebody_says_so() {
    let (card, daemon) = card_without_pin().await;
    let client = daemon.client();
    client.unlock(&name("yubikey"), pin(&card.pin())).await.unwrap();
    sign(&client, "yubikey/9a").await.unwrap();
    let locked = daemon.signer().args(["keys", "lock", "yubikey"]).output().unwrap();
    assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
    let error = sign(&client, "yubikey/9a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRequired);
    assert!(error.what().contains("as somebody has asked for"), "{error}");
    is_locked(&daemon, "yubikey").await;

    let configured = Daemon::start(&[card.toml("yubikey", PinSetup::Right)]).await;
    configured.backend("yubikey").await;
    let client = configured.client();
    sign(&client, "yubikey/9a").await.unwrap();
    client.lock(&name("yubikey")).await.unwrap();
    sign(&client, "yubikey/9a").await.unwrap();
}

/// What was kept of a forgotten PIN is overwritten, in the daemon and in the driver.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_pin_is_wiped() {
    let card = Piv::start();
    // Its PIN is like no other text that a process could hold.
    let secret = format!("zq{}", &card.pin()[..5]);
    hwtests::programs::must(card.tool().args(["-a", "change-pin", "-P", &card.pin(), "-N", &secret]));
    let daemon = Daemon::start(&[card.toml("yubikey", PinSetup::Missing)]).await;
    make(&daemon, "9a", KeyPolicy { pin: Some(PinPolicy::Once), ..KeyPolicy::default() }).await;
    let client = daemon.client();
    client.unlock(&name("yubikey"), pin(&secret)).await.unwrap();
    sign(&client, "yubikey/9a").await.unwrap();
    let driver = daemon.drivers()[0];
    let held = process::memory_holds(daemon.pid(), secret.as_bytes());
    assert!(held > 0, "it is not looked for in the right place");
    client.lock(&name("yubikey")).await.unwrap();
    is_locked(&daemon, "yubikey").await;
    // What is left, if anything, is in a buffer of the connection that it came over.
    let left = process::memory_holds(daemon.pid(), secret.as_bytes());
    assert!(left < held && left <= 1, "the daemon's memory holds it {left} times, after {held} times");
    assert_eq!(process::memory_holds(driver, secret.as_bytes()), 0, "the driver has kept it");
}
