//! Each row of the table of errors, and each bad day, against the test engine over Microsoft's own client: TLS, the real
//! name of a vault, the challenge, and a client secret of the engine.

#![allow(clippy::unwrap_used)] // what the tests share unwraps as they do

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hwtests_kms_engine::{AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT, Engine, Fault, FaultKind};
use signer_azure_key_vault::{AzureConfig, AzureKeyVault, CredentialKind, SecretFrom};
use signer_core::{
    Backend, Error, ErrorKind, GenerateRequest, Input, KeyName, KeySelector, KeyType, SignRequest, Signer,
};
use tempfile::TempDir;

/// An engine with a backend and one key that was opened.
struct Bench {
    engine: Engine,
    folder: TempDir,
    backend: AzureKeyVault,
    signer: Arc<dyn Signer>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl Fn(&mut AzureConfig)) -> Self {
        let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
        let mut config = config(&engine, &folder);
        change(&mut config);
        let backend = AzureKeyVault::new("azure", config).unwrap();
        let made = generate(&backend, "release").await.unwrap();
        let signer = backend.open(&made.into()).await.unwrap();
        Self { engine, folder, backend, signer }
    }

    async fn sign(&self) -> Result<(), Error> {
        self.sign_until(None).await
    }

    async fn sign_until(&self, within: Option<Duration>) -> Result<(), Error> {
        let algorithm = self.signer.info().default_algorithm();
        let request = SignRequest::message(algorithm, "m").deadline(within.map(|d| Instant::now() + d));
        let signature = self.signer.sign(request).await?;
        let input = Input::Message("m".into());
        self.signer
            .info()
            .public_key
            .verify(algorithm, &input, signature.as_bytes())
            .expect("a signature that left");
        Ok(())
    }

    /// What signing ends with while a fault lasts, and how many requests it took.
    async fn during(&self, fault: Fault, within: Option<Duration>) -> (Result<(), Error>, u64) {
        let before = self.engine.seen("azure.sign");
        self.engine.fault(fault.on("azure.sign"));
        let result = self.sign_until(within).await;
        self.engine.heal();
        (result, self.engine.seen("azure.sign") - before)
    }

    fn version(&self) -> String {
        self.signer.info().name.version().unwrap().to_owned()
    }
}

fn config(engine: &Engine, folder: &TempDir) -> AzureConfig {
    let (ca, secret) = (folder.path().join("ca.pem"), folder.path().join("secret"));
    std::fs::write(&ca, engine.ca_pem()).unwrap();
    std::fs::write(&secret, format!("{AZURE_CLIENT_SECRET}\n")).unwrap();
    AzureConfig {
        address: Some(engine.tls_address().ip()),
        ca: Some(ca),
        credential: CredentialKind::ClientSecret,
        tenant: Some(AZURE_TENANT.into()),
        client_id: Some(AZURE_CLIENT_ID.into()),
        client_secret: Some(SecretFrom::File(secret)),
        authority: Some(engine.tls_url()),
        attempt_timeout: Some(1),
        timeout: Some(5),
        ..AzureConfig::new(format!("https://tests.vault.azure.net:{}", engine.tls_address().port()))
    }
}

async fn generate(backend: &AzureKeyVault, name: &str) -> Result<KeyName, Error> {
    let request = GenerateRequest::new(KeyName::label(name).unwrap(), KeyType::EcdsaP256);
    backend.generate().unwrap().generate(request).await.map(|info| info.name)
}

fn told(result: &Result<(), Error>) -> (&'static str, String) {
    match result {
        Ok(()) => ("OK", String::new()),
        Err(e) => (e.kind().name(), e.to_string()),
    }
}

#[tokio::test]
async fn every_row_of_the_table() {
    use FaultKind as F;
    let bench = Bench::new().await;
    // What goes wrong for ever; what the caller is told; a word of it; how many requests that took.
    for (kind, expected, word, requests) in [
        (F::BadRequest, "BAD_REQUEST", "BadParameter", 1),
        (F::Denied, "DENIED", "Microsoft.KeyVault/vaults/keys/sign/action is missing", 1),
        (F::Disabled, "DENIED", "is disabled", 1),
        (F::PendingDeletion, "NOT_FOUND", "waits to be purged", 1),
        (F::NotFound, "NOT_FOUND", "no such key", 1),
        (F::Conflict, "BUSY", "somebody else", 3),
        (F::Internal, "INTERNAL", "internal error", 3),
        (F::Unavailable, "DEVICE_GONE", "not available", 3),
        (F::Gateway, "DEVICE_GONE", "HTTP 502", 3),
        (F::Garbage, "DEVICE_GONE", "something else than Azure", 3),
        (F::NotJson, "DEVICE_GONE", "something else than Azure", 3),
        (F::Truncate, "DEVICE_GONE", "", 3),
        (F::Close, "DEVICE_GONE", "", 3),
        (F::WrongVersion, "INTERNAL", "another key has signed", 3),
        (F::WrongSignature, "INTERNAL", "does not verify", 3),
        (F::ChangedKey, "INTERNAL", "does not verify", 3),
    ] {
        let (result, seen) = bench.during(Fault::new(kind).for_ever(), None).await;
        let (name, text) = told(&result);
        assert_eq!(name, expected, "{kind:?}: {text}");
        assert!(
            text.contains(word) && text.contains("azure") && text.contains("release@"),
            "{kind:?}: {text}"
        );
        // A cut connection that was idle is tried again by the HTTP client, too.
        assert!(seen == requests || kind == F::Close && seen >= requests, "{kind:?}: {seen} requests");
    }
    let (result, _) = bench.during(Fault::new(F::Expired).for_ever(), None).await;
    let (name, text) = told(&result);
    assert!(name == "DENIED" && text.contains("does not accept the credentials"), "{text}");
    bench.sign().await.unwrap();
}

#[tokio::test]
async fn what_passes_is_not_noticed() {
    use FaultKind as F;
    let bench = Bench::new().await;
    for kind in [
        F::Throttle,
        F::Unavailable,
        F::Internal,
        F::Gateway,
        F::Garbage,
        F::NotJson,
        F::Truncate,
        F::Close,
        F::WrongVersion,
        F::WrongSignature,
        F::ChangedKey,
        F::Hang,
        F::Conflict,
        F::Expired,
    ] {
        let (result, _) = bench.during(Fault::new(kind), None).await;
        assert!(result.is_ok(), "{kind:?} once: {result:?}");
    }
}

#[tokio::test]
async fn throttling_is_waited_out_within_the_deadline() {
    let bench = Bench::new().await;
    let start = Instant::now();
    let (result, seen) = bench.during(Fault::new(FaultKind::Throttle).times(2).retry_after(1), None).await;
    assert!(result.is_ok() && seen == 3 && start.elapsed() >= Duration::from_secs(2), "{result:?} {seen}");
    let within = Some(Duration::from_millis(700));
    let start = Instant::now();
    let (result, seen) = bench.during(Fault::new(FaultKind::Throttle).for_ever(), within).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Throttled { .. } | ErrorKind::TimedOut), "{error:?}");
    assert!(seen >= 2 && start.elapsed() < Duration::from_secs(2));
    let start = Instant::now();
    let (result, seen) =
        bench.during(Fault::new(FaultKind::Throttle).for_ever().retry_after(60), within).await;
    let wait = result.unwrap_err().kind().retry_after();
    assert_eq!((wait, seen), (Some(Duration::from_mins(1)), 1));
    assert!(start.elapsed() < Duration::from_millis(500), "nobody waits for what comes too late");
}

#[tokio::test]
async fn silence_and_slowness_end() {
    let bench = Bench::new().await;
    for fault in [Fault::new(FaultKind::Hang), Fault::new(FaultKind::SlowBytes).ms(100)] {
        let start = Instant::now();
        let (result, _) = bench.during(fault.for_ever(), None).await;
        assert_eq!(told(&result).0, "DEVICE_GONE");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
    let start = Instant::now();
    let within = Some(Duration::from_millis(300));
    let (result, _) = bench.during(Fault::new(FaultKind::Hang).for_ever(), within).await;
    assert_eq!(told(&result).0, "TIMED_OUT");
    assert!(start.elapsed() < Duration::from_secs(1));
    let (result, _) = bench.during(Fault::new(FaultKind::SlowBytes).ms(1), None).await;
    assert_eq!(told(&result).0, "OK", "slow, but in time");
}

#[tokio::test]
async fn a_dead_vault_is_said_to_be_gone() {
    let mut bench = Bench::new().await;
    bench.engine.stop();
    let start = Instant::now();
    assert_eq!(told(&bench.sign().await).0, "DEVICE_GONE");
    assert_eq!(bench.backend.health().await.unwrap_err().kind(), ErrorKind::DeviceGone);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_expired_or_unknown_certificate_is_not_accepted() {
    let bench = Bench::new().await;
    bench.engine.expire_certificate();
    let key: KeySelector = "release".parse().unwrap();
    let expired = AzureKeyVault::new("azure", config(&bench.engine, &bench.folder)).unwrap();
    let error = expired.open(&key).await.err().unwrap();
    assert!(error.kind() == ErrorKind::DeviceGone && error.what().contains("certificate"), "{error}");
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    bench.engine.heal();
    let config = AzureConfig { ca: None, ..config(&bench.engine, &bench.folder) };
    let unknown = AzureKeyVault::new("azure", config).unwrap();
    let error = unknown.open(&key).await.err().unwrap();
    assert!(error.kind() == ErrorKind::DeviceGone && error.what().contains("certificate"), "{error}");
}

#[tokio::test]
async fn public_keys_are_checked_and_remembered() {
    use FaultKind as F;
    let bench = Bench::with(|config| config.public_key_lifetime = Some(1)).await;
    let key: KeySelector = format!("release@{}", bench.version()).parse().unwrap();
    let asked = bench.engine.seen("azure.getKey");
    for _ in 0..5 {
        bench.backend.open(&key).await.unwrap();
    }
    assert_eq!(bench.engine.seen("azure.getKey"), asked, "it was remembered");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (kind, word) in [(F::WrongVersion, "another key answers"), (F::ChangedKey, "another public key")] {
        bench.engine.fault(Fault::new(kind).for_ever().on("azure.getKey"));
        let error = bench.backend.open(&key).await.err().unwrap();
        assert!(error.kind() == ErrorKind::Internal && error.what().contains(word), "{kind:?}: {error}");
        assert_eq!(bench.signer.health().await.unwrap_err().kind(), ErrorKind::Internal);
        bench.engine.heal();
    }
    bench.backend.open(&key).await.unwrap();
    bench.signer.health().await.unwrap();
}

#[tokio::test]
async fn disabled_and_deleted_keys_are_told_apart() {
    let bench = Bench::new().await;
    let open = async |text: &str| bench.backend.open(&text.parse().unwrap()).await.map(drop);
    let version = format!("release@{}", bench.version());
    assert!(bench.engine.set_azure_enabled("release", None, false));
    for error in [
        bench.sign().await.unwrap_err(),
        bench.signer.health().await.unwrap_err(),
        open("release").await.unwrap_err(),
        open(&version).await.unwrap_err(),
    ] {
        assert!(error.kind() == ErrorKind::Denied && error.what().contains("disabled"), "{error:?}");
    }
    let taken = generate(&bench.backend, "release").await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "a disabled key still has its name");
    assert!(bench.engine.set_azure_enabled("release", None, true));
    bench.backend.delete().unwrap().delete(&"release".parse().unwrap()).await.unwrap();
    assert_eq!(open("release").await.unwrap_err().kind(), ErrorKind::NotFound);
    let taken = generate(&bench.backend, "release").await.unwrap_err();
    assert!(taken.kind() == ErrorKind::AlreadyExists && taken.to_string().contains("purge"), "{taken}");
}

#[tokio::test]
async fn credentials_are_renewed_and_health_says_when_they_cannot_be() {
    let bench = Bench::new().await;
    bench.backend.health().await.unwrap();
    // Every token is refused from now on: others are asked for.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bench.engine.revoke_tokens();
    bench.sign().await.unwrap();
    // The token in use is still good, but no other would be given.
    let backend = AzureKeyVault::new("azure", config(&bench.engine, &bench.folder)).unwrap();
    let signer = backend.open(&"release".parse().unwrap()).await.unwrap();
    bench.engine.fault(Fault::new(FaultKind::Expired).for_ever().on("azure.token"));
    let error = backend.health().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.what().contains("renewed"), "{error:?}");
    let request = SignRequest::message(signer.info().default_algorithm(), "m");
    signer.sign(request).await.expect("requests do not fail yet");
    bench.engine.heal();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    backend.health().await.unwrap();
}

#[tokio::test]
async fn bad_credentials_are_named_and_nothing_of_them_is_shown() {
    let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
    let good = config(&engine, &folder);
    std::fs::write(folder.path().join("wrong"), "very-secret").unwrap();
    let file = |name: &str| Some(SecretFrom::File(folder.path().join(name)));
    for (config, word) in [
        (AzureConfig { client_secret: file("wrong"), ..good.clone() }, "AADSTS7000215"),
        (AzureConfig { client_secret: file("missing"), ..good.clone() }, "cannot be read"),
        (AzureConfig { client_id: Some("another".into()), ..good.clone() }, "AADSTS700016"),
    ] {
        let backend = AzureKeyVault::new("azure", config).unwrap();
        for error in [
            backend.health().await.unwrap_err(),
            backend.open(&"release".parse().unwrap()).await.err().unwrap(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert!(
                error.to_string().contains(word) && !error.to_string().contains("very-secret"),
                "{word}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn who_may_only_sign_is_healthy() {
    let bench = Bench::new().await;
    bench.engine.fault(Fault::new(FaultKind::Denied).for_ever().on("azure.listKeys"));
    bench.backend.health().await.unwrap();
    let error = bench.backend.list(signer_core::ListRequest::default()).await.unwrap_err();
    assert!(error.what().contains("keys/read/action"), "{error}");
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_says_so() {
    let bench = Bench::new().await;
    bench.engine.fault(Fault::new(FaultKind::Hang).on("azure.createKey"));
    let error = generate(&bench.backend, "lost").await.unwrap_err();
    assert!(error.is_uncertain() && error.kind() == ErrorKind::DeviceGone, "{error:?}");
    bench.engine.fault(Fault::new(FaultKind::Throttle).on("azure.createKey"));
    generate(&bench.backend, "throttled").await.expect("nothing had happened yet");
}

#[tokio::test]
async fn a_vault_by_another_name_gets_no_token() {
    let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
    // The vault asks for a token for https://vault.azure.net: this name is none of its.
    let vault = format!("https://localhost:{}", engine.tls_address().port());
    let backend = AzureKeyVault::new("azure", AzureConfig { vault, ..config(&engine, &folder) }).unwrap();
    let error = backend.open(&"release".parse().unwrap()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert_eq!(engine.seen("azure.token"), 0);
}

#[tokio::test]
async fn one_client_serves_all() {
    let bench = Bench::new().await;
    let before = bench.engine.connections();
    let tokens = bench.engine.seen("azure.token");
    for _ in 0..50 {
        bench.sign().await.unwrap();
    }
    assert!(bench.engine.connections() - before <= 1, "a connection each is no connection pool");
    assert_eq!(bench.engine.seen("azure.token"), tokens);
}

#[tokio::test]
async fn a_page_token_leads_nowhere_else() {
    let bench = Bench::new().await;
    for token in ["https://evil.example/keys?$skiptoken=x", "release", "../x@1", ""] {
        let request = signer_core::ListRequest { page_size: 1, page_token: Some(token.into()) };
        assert_eq!(bench.backend.list(request).await.unwrap_err().kind(), ErrorKind::BadRequest, "{token}");
    }
}
