//! One key in several places: served by whichever is there, and only where it is the same key.
#![allow(clippy::unwrap_used)] // tests

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine, Piv, SoftHsm, Software, Vault},
    eventually,
    load::{Load, failures, input},
    process::{self, Signal},
    programs,
};
use serde_json::json;
use signer_contract::{Material, PinSetup, make_private_key};
use signer_core::{
    ErrorKind, HashAlgorithm, ImportRequest, KeyName, KeyPolicy, KeyType, PinPolicy, PrivateKey,
    SignatureAlgorithm, TouchPolicy,
};
use signerd_api::Client;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A P-256 key as a file holds it.
fn new_key() -> Vec<u8> {
    make_private_key(KeyType::EcdsaP256).unwrap().file(Material::Pkcs8Der).unwrap()
}

/// Brings a key into a backend, as `NAME/release`.
async fn import(daemon: &Daemon, backend: &str, key: &[u8]) {
    import_as(daemon, backend, "release", key, KeyPolicy::default()).await;
}

async fn import_as(daemon: &Daemon, backend: &str, label: &str, key: &[u8], policy: KeyPolicy) {
    let key = PrivateKey::read(key, None).unwrap();
    let request = ImportRequest { policy, ..ImportRequest::new(KeyName::label(label).unwrap(), key) };
    let made =
        daemon.client().timeout(Duration::from_mins(1)).import(&backend.parse().unwrap(), request).await;
    made.unwrap_or_else(|e| panic!("import into {backend}: {e:?}; the daemon said:\n{}", daemon.log()));
}

/// The `[[key]]` table.
fn release(members: &[&str], order: &str) -> String {
    format!("[[key]]\nname = \"release\"\nmembers = {members:?}\norder = {order:?}\n")
}

/// Two tokens with the same key, and a daemon that serves them as `release`, with its metrics on a port.
struct Pair {
    a: SoftHsm,
    b: SoftHsm,
    daemon: Daemon,
    port: u16,
}

impl Pair {
    async fn start(order: &str) -> Self {
        let key = new_key();
        Self::with(order, &key, &key).await
    }

    async fn with(order: &str, in_a: &[u8], in_b: &[u8]) -> Self {
        let this = Self::prepare(in_a, in_b).await;
        this.daemon.configure(&this.configuration(order));
        this.daemon.start_again().await;
        let members = eventually(Duration::from_secs(10), async || {
            this.states().await.values().all(|state| state == "ok")
        });
        assert!(members.await, "{:?}", this.states().await);
        this
    }

    /// The keys are in their tokens, and nothing runs.
    async fn prepare(in_a: &[u8], in_b: &[u8]) -> Self {
        let (a, b) = (SoftHsm::start(), SoftHsm::start());
        let daemon =
            Daemon::start(&[a.toml("hsm-a", PinSetup::Right), b.toml("hsm-b", PinSetup::Right)]).await;
        import(&daemon, "hsm-a", in_a).await;
        import(&daemon, "hsm-b", in_b).await;
        daemon.kill();
        Self { a, b, daemon, port: free_port() }
    }

    fn configuration(&self, order: &str) -> String {
        [
            self.a.toml("hsm-a", PinSetup::Right),
            self.b.toml("hsm-b", PinSetup::Right),
            release(&["hsm-a/release", "hsm-b/release"], order),
            format!("[metrics]\nlisten = \"127.0.0.1:{}\"\nkey_labels = true\n", self.port),
            GRANT_ALL.to_owned(),
        ]
        .join("\n")
    }

    /// How each member is.
    async fn states(&self) -> BTreeMap<String, String> {
        let keys = self.daemon.client().named_keys().await.unwrap();
        let members = keys.into_iter().flat_map(|key| key.members);
        members.map(|m| (m.reference, m.state)).collect()
    }

    /// How many signatures a backend has made.
    async fn signed(&self, backend: &str) -> u64 {
        let wanted =
            format!("signerd_requests_total{{backend=\"{backend}\",operation=\"sign\",outcome=\"OK\"}} ");
        metric(self.port, &wanted).await
    }

    /// The driver processes of one token. Their environment says which it is.
    fn drivers(&self, token: &SoftHsm) -> Vec<u32> {
        let wanted = token.configuration().display().to_string();
        let of_token = |pid: &u32| String::from_utf8_lossy(&process::read(*pid, "environ")).contains(&wanted);
        self.daemon.drivers().into_iter().filter(of_token).collect()
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The figure of a line of the metrics that begins like this; 0 when there is none.
async fn metric(port: u16, line: &str) -> u64 {
    let text = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text().await.unwrap();
    let figure = text.lines().find_map(|l| l.strip_prefix(line));
    figure.map_or(0, |f| f.trim().parse().unwrap())
}

async fn serving(client: &Client, service: &str) -> ServingStatus {
    let mut health = client.service(HealthClient::with_origin);
    let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
    answer.unwrap_or_else(|e| panic!("health of {service}: {e}")).into_inner().status()
}

/// Moves a token's files away.
fn take_away(token: &SoftHsm) {
    std::fs::rename(token.tokens(), token.folder().join("away")).unwrap();
}

fn bring_back(token: &SoftHsm) {
    std::fs::rename(token.folder().join("away"), token.tokens()).unwrap();
}

fn signal_all(processes: &[u32], signal: Signal) {
    for pid in processes {
        process::signal(*pid, signal);
    }
}

fn assert_no_failures(calls: &[hwtests::load::Call]) {
    let failed = failures(calls);
    assert!(failed.is_empty(), "{} of {} calls failed, first {:?}", failed.len(), calls.len(), failed[0]);
}

/// The first token goes and comes back under load, twice: nobody notices but the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_goes_away_costs_no_request() {
    let pair = Pair::start("first").await;
    let client = pair.daemon.client();
    let load = Load::start(|| pair.daemon.client(), "release", 16).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pair.signed("hsm-b").await, 0, "the second was asked although the first is well");
    for _ in 0..2 {
        take_away(&pair.a);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = pair.signed("hsm-b").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(pair.signed("hsm-b").await > before, "the second token does not sign");
        assert_eq!(serving(&client, "backend/hsm-a").await, ServingStatus::NotServing);
        assert_eq!(serving(&client, "key/release").await, ServingStatus::Serving);
        assert_eq!(pair.states().await["hsm-b/release"], "ok");
        assert_ne!(pair.states().await["hsm-a/release"], "ok");
        bring_back(&pair.a);
        let used = eventually(Duration::from_secs(3), async || pair.states().await["hsm-a/release"] == "ok");
        assert!(used.await, "the first token is not used again: {:?}", pair.states().await);
        let before = pair.signed("hsm-a").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(pair.signed("hsm-a").await > before + 10, "the first token does not sign again");
    }
    let calls = load.stop().await;
    assert_no_failures(&calls);
    let slowest = calls.iter().map(|c| c.took).max().unwrap();
    assert!(slowest < Duration::from_secs(3), "the slowest call took {slowest:?}");
    assert!(metric(pair.port, "signerd_failovers_total{backend=\"hsm-a\"} ").await > 0);
    let up = metric(pair.port, "signerd_key_member_up{key=\"release\",member=\"hsm-a/release\"} ").await;
    assert_eq!((up, metric(pair.port, "signerd_keys_degraded ").await), (1, 0));
}

/// Drivers are killed under load, those of one token and of the other in turns.
#[tokio::test(flavor = "multi_thread")]
async fn killed_drivers_cost_no_request() {
    let pair = Pair::start("round-robin").await;
    let load = Load::start(|| pair.daemon.client(), "release", 16).await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let token = if round % 2 == 0 { &pair.a } else { &pair.b };
        let drivers = pair.drivers(token);
        assert!(!drivers.is_empty(), "round {round}: there is no driver");
        signal_all(&drivers, Signal::KILL);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = load.stop().await;
    assert_no_failures(&calls);
}

/// A driver that hangs keeps nobody waiting for its watchdog: another member is asked as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_overtaken() {
    let pair = Pair::start("first").await;
    let load = Load::start(|| pair.daemon.client(), "release", 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let drivers = pair.drivers(&pair.a);
    signal_all(&drivers, Signal::STOP);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let calls = load.stop().await;
    signal_all(&drivers, Signal::CONT);
    assert_no_failures(&calls);
    let slowest = calls.iter().map(|c| c.took).max().unwrap();
    assert!(slowest < Duration::from_secs(4), "the slowest call took {slowest:?}");
    // The hang cost each client one wait, not every request one.
    let waited = calls.iter().filter(|c| c.took > Duration::from_secs(1)).count();
    assert!(waited <= 2 * 16, "{waited} calls waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_in_turn_spreads() {
    let pair = Pair::start("round-robin").await;
    let load = Load::start(|| pair.daemon.client(), "release", 16).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_no_failures(&load.stop().await);
    let (a, b) = (pair.signed("hsm-a").await, pair.signed("hsm-b").await);
    assert!(a + b > 100, "only {} signatures", a + b);
    assert!(a.abs_diff(b) < (a + b) / 10, "{a} in one, {b} in the other");
}

/// Both away: one sentence that names both, and an end that says "try again".
#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_can_sign_the_answer_names_everybody() {
    let pair = Pair::start("first").await;
    let client = pair.daemon.client();
    let sign = async || client.sign("release", Some(P256), input(P256, "x")).await;
    sign().await.unwrap();
    take_away(&pair.a);
    take_away(&pair.b);
    let refused = eventually(Duration::from_secs(3), async || sign().await.is_err()).await;
    assert!(refused, "something signs without a token");
    let error = sign().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert_eq!(error.key_name(), Some("release"));
    for member in ["hsm-a/release", "hsm-b/release"] {
        assert!(error.what().contains(member), "{member} is not named: {error}");
    }
    let red = eventually(Duration::from_secs(3), async || {
        serving(&client, "key/release").await == ServingStatus::NotServing
    });
    assert!(red.await, "health stays green");
    let output = programs::output(pair.daemon.signer().arg("status"));
    assert_eq!(output.status.code(), Some(1), "{}", programs::text(&output));
    bring_back(&pair.b);
    let served = eventually(Duration::from_secs(3), async || sign().await.is_ok()).await;
    assert!(served, "{:?}", sign().await);
    let green = eventually(Duration::from_secs(3), async || {
        serving(&client, "key/release").await == ServingStatus::Serving
    });
    assert!(green.await, "health stays red");
}

/// Two keys of one name: the daemon does not start on them, does not take them over, and says which is which.
#[tokio::test(flavor = "multi_thread")]
async fn another_key_of_the_same_name_is_refused() {
    let pair = Pair::prepare(&new_key(), &new_key()).await;
    pair.daemon.configure(&pair.configuration("first"));
    pair.daemon.launch();
    let status = pair.daemon.ended(Duration::from_secs(20)).await.expect("it runs on two different keys");
    assert_eq!(status.code(), Some(2), "{}", pair.daemon.log());
    let log = pair.daemon.log();
    let said = log.lines().last().unwrap();
    for part in ["[[key]] release", "hsm-b/release is another key", "its public key is"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    // The same before it runs, for who asks for it.
    let check = |devices: bool| {
        let mut command = Command::new(programs::ours("signerd"));
        command.arg("check-config").arg(pair.daemon.configuration());
        command.args(devices.then_some("--devices"));
        programs::output(&mut command)
    };
    let output = check(true);
    assert_eq!(output.status.code(), Some(2), "{}", programs::text(&output));
    let text = programs::text(&output);
    assert!(text.contains("release in hsm-a/release: the right key"), "{text}");
    assert!(text.contains("hsm-b/release is another key"), "{text}");
    let output = check(false);
    assert_eq!(output.status.code(), Some(0), "{}", programs::text(&output));

    // A reload changes nothing.
    let without =
        pair.configuration("first").replace(&release(&["hsm-a/release", "hsm-b/release"], "first"), "");
    pair.daemon.configure(&without);
    pair.daemon.start_again().await;
    pair.daemon.configure(&pair.configuration("first"));
    process::signal(pair.daemon.pid(), Signal::HUP);
    let refused = eventually(Duration::from_secs(10), async || {
        pair.daemon.log().contains("the configuration is not taken over")
    });
    assert!(refused.await, "{}", pair.daemon.log());
    let client = pair.daemon.client();
    assert_eq!(
        client.sign("release", Some(P256), input(P256, "x")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    client.sign("hsm-b/release", Some(P256), input(P256, "x")).await.unwrap();
}

/// A token that was away at the start holds another key: it is never used, not even when nothing else is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_later_is_compared_before_it_is_used() {
    let pair = Pair::prepare(&new_key(), &new_key()).await;
    take_away(&pair.b);
    pair.daemon.configure(&pair.configuration("round-robin"));
    pair.daemon.start_again().await;
    let ready = eventually(Duration::from_secs(5), async || pair.states().await["hsm-a/release"] == "ok");
    assert!(ready.await, "{:?}", pair.states().await);
    assert_ne!(pair.states().await["hsm-b/release"], "ok");
    let load = Load::start(|| pair.daemon.client(), "release", 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bring_back(&pair.b);
    let seen =
        eventually(Duration::from_secs(5), async || pair.states().await["hsm-b/release"] == "different");
    assert!(seen.await, "{:?}", pair.states().await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Each signature is verified with the first token's public key.
    assert_no_failures(&load.stop().await);
    assert_eq!(pair.signed("hsm-b").await, 0, "the other key has signed");
    take_away(&pair.a);
    let client = pair.daemon.client();
    let sign = async || client.sign("release", Some(P256), input(P256, "x")).await;
    let refused = eventually(Duration::from_secs(3), async || sign().await.is_err()).await;
    assert!(refused, "the other key signs");
    let error = sign().await.unwrap_err();
    assert!(error.what().contains("hsm-b/release is another key"), "{error}");
    assert_eq!(pair.signed("hsm-b").await, 0, "the other key has signed");
}

/// A public key in the configuration is what counts, whoever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_configured_public_key_decides() {
    let (one, two) = (new_key(), new_key());
    let pair = Pair::prepare(&one, &two).await;
    let right = PrivateKey::read(&two, None).unwrap().public_key().clone();
    std::fs::write(pair.daemon.folder().join("release.pem"), right.to_pem()).unwrap();
    take_away(&pair.b);
    let pinned = pair.configuration("first").replace("order = \"first\"\n", "public_key = \"release.pem\"\n");
    pair.daemon.configure(&pinned);
    pair.daemon.launch();
    let status = pair.daemon.ended(Duration::from_secs(20)).await.expect("it runs on the wrong key");
    assert_eq!(status.code(), Some(2), "{}", pair.daemon.log());
    assert!(pair.daemon.log().contains("hsm-a/release is another key"), "{}", pair.daemon.log());
    take_away(&pair.a);
    bring_back(&pair.b);
    pair.daemon.start_again().await;
    let signed = eventually(Duration::from_secs(5), async || {
        let signed = pair.daemon.client().sign("release", Some(P256), input(P256, "x")).await;
        signed.is_ok_and(|s| right.verify(P256, &input(P256, "x"), s.signature.as_bytes()).is_ok())
    });
    assert!(signed.await, "{:?}", pair.states().await);
}

/// What would part the places is refused, with a sentence; each can be changed by its own name.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_refused() {
    let pair = Pair::start("first").await;
    let client = pair.daemon.client();
    let certificate = client.store_certificate("release", &[0x30, 0]).await.map(drop);
    let outcomes = [
        ("delete", client.delete("release").await),
        ("rotate", client.rotate("release").await.map(drop)),
        ("certificate", certificate),
        ("attest", client.attest("release").await.map(drop)),
    ];
    for (what, outcome) in outcomes {
        let error = outcome.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error:?}");
        let advice = error.advice().unwrap_or_default();
        assert!(advice.contains("hsm-a/release") && advice.contains("hsm-b/release"), "{what}: {error}");
    }
    client.sign("release", Some(P256), input(P256, "x")).await.unwrap();
    // What people see.
    let text = |output: &std::process::Output| {
        let text = programs::text(output);
        assert!(output.status.success(), "{text}");
        text
    };
    let status = text(&programs::output(pair.daemon.signer().arg("status")));
    assert!(status.contains("KEY      ORDER  MEMBER         STATE"), "{status}");
    let shown = text(&programs::output(pair.daemon.signer().args(["keys", "show", "release"])));
    assert!(shown.contains("hsm-b/release  ok"), "{shown}");
    let output = programs::output(pair.daemon.signer().args(["keys", "show", "release", "--output", "json"]));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["reference"], "release");
    assert_eq!(shown["members"][1]["state"], "ok");
    // One place by itself.
    client.delete("hsm-a/release").await.unwrap();
    let gone = eventually(Duration::from_secs(10), async || pair.states().await["hsm-a/release"] != "ok");
    assert!(gone.await, "{:?}", pair.states().await);
    let before = pair.signed("hsm-b").await;
    client.sign("release", Some(P256), input(P256, "x")).await.unwrap();
    assert_eq!(pair.signed("hsm-b").await, before + 1);
}

/// A file is signed and verified through the command while a token is away.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_signs_with_whichever_is_there() {
    let pair = Pair::start("first").await;
    std::fs::write(pair.daemon.folder().join("app"), "a release").unwrap();
    take_away(&pair.a);
    let signer = |arguments: &[&str]| programs::must(pair.daemon.signer().args(arguments));
    signer(&["sign", "app", "--key", "release"]);
    signer(&["verify", "app", "--key", "release"]);
    signer(&["verify", "app", "--key", "hsm-b/release"]);
}

/// A token, Vault and a key file: three kinds of places, and one key in all of them, brought there as the manual says.
#[tokio::test(flavor = "multi_thread")]
async fn places_of_different_kinds() {
    let (hsm, vault, soft) = (SoftHsm::start(), Vault::start(), Software::start());
    let tables = [
        hsm.toml("hsm", PinSetup::Right),
        vault.toml("vault", PinSetup::Right),
        soft.toml("soft", PinSetup::Right),
    ];
    let daemon = Daemon::start(&tables).await;
    let key = new_key();
    import(&daemon, "hsm", &key).await;
    import(&daemon, "soft", &key).await;
    import_into_vault(&vault, daemon.folder(), &key).await;
    daemon.kill();
    let key_table = release(&["hsm/release", "hashivault://release", "soft/release"], "first");
    daemon.configure(&format!("{}\n{key_table}\n{GRANT_ALL}", tables.join("\n")));
    daemon.start_again().await;
    let client = daemon.client();
    let states = async || -> Vec<String> {
        let key = client.named_keys().await.unwrap().remove(0);
        key.members.into_iter().map(|m| m.state).collect()
    };
    let ready = eventually(Duration::from_secs(10), async || states().await == ["ok", "ok", "ok"]).await;
    assert!(ready, "{:?}", client.named_keys().await);
    let load = Load::start(|| daemon.client(), "release", 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    take_away(&hsm);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(states().await[1], "ok");
    vault.seal().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    bring_back(&hsm);
    tokio::time::sleep(Duration::from_millis(700)).await;
    vault.unseal().await;
    let ready = eventually(Duration::from_secs(10), async || states().await == ["ok", "ok", "ok"]).await;
    assert_no_failures(&load.stop().await);
    assert!(ready, "{:?}", client.named_keys().await);
}

/// As docs/operations/failover.md shows it, with openssl.
async fn import_into_vault(vault: &Vault, folder: &Path, key: &[u8]) {
    let wrapping = vault.must("GET", "transit/wrapping_key", serde_json::Value::Null).await;
    std::fs::write(folder.join("wrapping.pem"), wrapping["data"]["public_key"].as_str().unwrap()).unwrap();
    std::fs::write(folder.join("release.der"), key).unwrap();
    let script = r#"
        set -eu
        openssl rand 32 >aes
        openssl enc -id-aes256-wrap-pad -K "$(od -An -tx1 aes | tr -d ' \n')" -iv A65959A6 -in release.der -out wrapped
        openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -in aes -out aes.wrapped \
            -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
        cat aes.wrapped wrapped >import
    "#;
    programs::must(Command::new("sh").args(["-c", script]).current_dir(folder));
    let ciphertext = STANDARD.encode(std::fs::read(folder.join("import")).unwrap());
    let body = json!({ "type": "ecdsa-p256", "ciphertext": ciphertext, "hash_function": "SHA256" });
    vault.must("POST", "transit/keys/release/import", body).await;
}

/// Two cards with one key: a card that is out is passed over; a finger that does not come is not asked for twice.
#[tokio::test(flavor = "multi_thread")]
async fn two_cards_ask_for_one_finger() {
    let (a, b) = (Piv::start(), Piv::start());
    let tables = [a.toml("card-a", PinSetup::Right), b.toml("card-b", PinSetup::Right)];
    let daemon = Daemon::start(&tables).await;
    let key = new_key();
    let policy =
        KeyPolicy { pin: Some(PinPolicy::Once), touch: Some(TouchPolicy::Always), ..KeyPolicy::default() };
    import_as(&daemon, "card-a", "9c", &key, policy.clone()).await;
    import_as(&daemon, "card-b", "9c", &key, policy).await;
    daemon.kill();
    let key_table = release(&["card-a/9c", "card-b/9c"], "first");
    daemon.configure(&format!("{}\n{key_table}\n{GRANT_ALL}", tables.join("\n")));
    daemon.start_again().await;
    let client = daemon.client().timeout(Duration::from_mins(1));
    let ready = eventually(Duration::from_secs(10), async || {
        client.named_keys().await.unwrap()[0].members.iter().all(|m| m.state == "ok")
    });
    assert!(ready.await, "{:?}", client.named_keys().await);

    let start = Instant::now();
    let error = client.sign("release", Some(P256), input(P256, "nobody comes")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TouchTimedOut, "{error:?}");
    assert!(start.elapsed() > Duration::from_secs(10), "it did not wait: {:?}", start.elapsed());
    assert_eq!(a.card().state().counters.touches_asked, 1);
    assert_eq!(b.card().state().counters.touches_asked, 0, "a second finger was asked for");

    a.card().remove();
    b.card().touch_by_itself(Some(Duration::from_millis(50)));
    let signed = client.sign("release", Some(P256), input(P256, "the other one")).await.unwrap();
    let public_key = client.key_info("card-b/9c").await.unwrap().1.public_key;
    public_key.verify(P256, &input(P256, "the other one"), signed.signature.as_bytes()).unwrap();
    assert_eq!(b.card().state().counters.touches_asked, 1);
    for card in [&a, &b] {
        assert_eq!(card.card().state().counters.failed_verifies, 0);
    }
}
