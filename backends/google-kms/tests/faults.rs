//! Each row of the table of errors, and each bad day, against the test engine over Google's own client.

#![allow(clippy::unwrap_used)] // what the tests share unwraps as they do

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hwtests_kms_engine::{Engine, Fault, FaultKind};
use signer_core::{
    Backend, Error, ErrorKind, EvidenceFormat, GenerateRequest, Input, KeyName, KeySelector, KeyType,
    SignRequest, Signer,
};
use signer_google_kms::{GoogleConfig, GoogleKms, ProtectionLevel, RsaPadding};
use tempfile::TempDir;

const RING: &str = "projects/p/locations/global/keyRings/r";

/// An engine with a backend and one key that was opened.
struct Bench {
    engine: Engine,
    folder: TempDir,
    backend: GoogleKms,
    signer: Arc<dyn Signer>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl Fn(&mut GoogleConfig)) -> Self {
        let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
        engine.add_google_key_ring(RING);
        std::fs::write(folder.path().join("google.json"), engine.google_authorized_user()).unwrap();
        let mut config = config(&engine, &folder);
        change(&mut config);
        let backend = GoogleKms::new("google", config).unwrap();
        let made = generate(&backend, "release", KeyType::EcdsaP256).await.unwrap();
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
        let before = self.engine.seen("google.asymmetricSign");
        self.engine.fault(fault.on("google.asymmetricSign"));
        let result = self.sign_until(within).await;
        self.engine.heal();
        (result, self.engine.seen("google.asymmetricSign") - before)
    }
}

fn config(engine: &Engine, folder: &TempDir) -> GoogleConfig {
    GoogleConfig {
        key_ring: Some(RING.into()),
        endpoint: Some(engine.url()),
        credentials: Some(folder.path().join("google.json")),
        attempt_timeout: Some(1),
        timeout: Some(5),
        ..GoogleConfig::default()
    }
}

async fn generate(backend: &GoogleKms, name: &str, key_type: KeyType) -> Result<KeyName, Error> {
    let request = GenerateRequest::new(KeyName::label(name).unwrap(), key_type);
    backend.generate().unwrap().generate(request).await.map(|info| info.name)
}

/// What an error is for whoever reads the table.
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
        (F::BadRequest, "BAD_REQUEST", "INVALID_ARGUMENT", 1),
        (F::Denied, "DENIED", "cloudkms.cryptoKeyVersions.useToSign is missing", 1),
        (F::Disabled, "DENIED", "is disabled", 1),
        (F::PendingDeletion, "NOT_FOUND", "waits for its destruction", 1),
        (F::NotFound, "NOT_FOUND", "no such key", 1),
        (F::Expired, "DENIED", "does not accept the credentials", 3),
        (F::Conflict, "BUSY", "somebody else", 3),
        (F::Internal, "INTERNAL", "internal error", 3),
        (F::Unavailable, "DEVICE_GONE", "not available", 3),
        (F::Gateway, "DEVICE_GONE", "HTTP 502", 3),
        (F::Garbage, "DEVICE_GONE", "something else than Google", 3),
        (F::NotJson, "DEVICE_GONE", "something else than Google", 3),
        (F::Truncate, "DEVICE_GONE", "", 3),
        (F::Close, "DEVICE_GONE", "", 3),
        (F::Badcrc, "INTERNAL", "checksum of a signature", 3),
        (F::WrongVersion, "INTERNAL", "another version", 3),
        (F::WrongSignature, "INTERNAL", "does not verify", 3),
        (F::ChangedKey, "INTERNAL", "does not verify", 3),
    ] {
        let (result, seen) = bench.during(Fault::new(kind).for_ever(), None).await;
        let (name, text) = told(&result);
        assert_eq!(name, expected, "{kind:?}: {text}");
        assert!(
            text.contains(word) && text.contains("google") && text.contains("release@1"),
            "{kind:?}: {text}"
        );
        // A cut connection that was idle is tried again by the HTTP client, too.
        assert!(seen == requests || kind == F::Close && seen >= requests, "{kind:?}: {seen} requests");
    }
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
        F::Badcrc,
        F::WrongVersion,
        F::WrongSignature,
        F::ChangedKey,
        F::Hang,
        F::Conflict,
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
    let start = Instant::now();
    let within = Some(Duration::from_millis(700));
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
    let start = Instant::now();
    let (result, _) = bench.during(Fault::new(FaultKind::Hang).for_ever(), None).await;
    assert_eq!(told(&result).0, "DEVICE_GONE");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let start = Instant::now();
    let (result, _) = bench.during(Fault::new(FaultKind::SlowBytes).ms(100).for_ever(), None).await;
    assert_eq!(told(&result).0, "DEVICE_GONE");
    assert!(start.elapsed() < Duration::from_secs(6));
    let start = Instant::now();
    let within = Some(Duration::from_millis(300));
    let (result, _) = bench.during(Fault::new(FaultKind::Hang).for_ever(), within).await;
    assert_eq!(told(&result).0, "TIMED_OUT");
    assert!(start.elapsed() < Duration::from_secs(1));
    let (result, _) = bench.during(Fault::new(FaultKind::SlowBytes).ms(1), None).await;
    assert_eq!(told(&result).0, "OK", "slow, but in time");
}

#[tokio::test]
async fn a_dead_service_is_said_to_be_gone_and_served_when_it_is_back() {
    let mut bench = Bench::new().await;
    bench.engine.stop();
    let start = Instant::now();
    assert_eq!(told(&bench.sign().await).0, "DEVICE_GONE");
    assert_eq!(bench.backend.health().await.unwrap_err().kind(), ErrorKind::DeviceGone);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("google.json"), engine.google_service_account()).unwrap();
    let config = GoogleConfig { endpoint: Some(engine.tls_url()), ..config(&engine, &folder) };
    let backend = GoogleKms::new("google", config).unwrap();
    let key = "release".parse::<KeySelector>().unwrap();
    let error = backend.open(&key).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    assert!(error.what().contains("certificate"), "{error}");
}

#[tokio::test]
async fn public_keys_are_checked_and_remembered() {
    use FaultKind as F;
    let bench = Bench::with(|config| config.public_key_lifetime = Some(1)).await;
    let key: KeySelector = "release@1".parse().unwrap();
    let asked = bench.engine.seen("google.getPublicKey");
    for _ in 0..5 {
        bench.backend.open(&key).await.unwrap();
    }
    assert_eq!(bench.engine.seen("google.getPublicKey"), asked, "it was remembered");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (kind, word) in
        [(F::Badcrc, "checksum"), (F::WrongVersion, "another version"), (F::ChangedKey, "another public key")]
    {
        bench.engine.fault(Fault::new(kind).for_ever().on("google.getPublicKey"));
        let error = bench.backend.open(&key).await.err().unwrap();
        assert!(error.kind() == ErrorKind::Internal && error.what().contains(word), "{kind:?}: {error}");
        if kind == F::ChangedKey {
            assert_eq!(bench.signer.health().await.unwrap_err().kind(), ErrorKind::Internal);
        }
        bench.engine.heal();
    }
    bench.backend.open(&key).await.unwrap();
    bench.signer.health().await.unwrap();
}

#[tokio::test]
async fn states_of_versions_are_told_apart() {
    let bench = Bench::new().await;
    let version = format!("{RING}/cryptoKeys/release/cryptoKeyVersions/1");
    let open = async |text: &str| bench.backend.open(&text.parse().unwrap()).await.map(drop);
    for (state, kind, word) in [
        ("DISABLED", ErrorKind::Denied, "disabled"),
        ("DESTROY_SCHEDULED", ErrorKind::NotFound, "waits for its destruction"),
        ("DESTROYED", ErrorKind::NotFound, "is destroyed"),
    ] {
        assert!(bench.engine.set_google_state(&version, state));
        for error in [
            bench.sign().await.unwrap_err(),
            bench.signer.health().await.unwrap_err(),
            open("release").await.unwrap_err(),
            open("release@1").await.unwrap_err(),
        ] {
            assert!(error.kind() == kind && error.what().contains(word), "{state}: {error:?}");
        }
    }
    // The newest that is enabled is what the plain name means.
    assert!(bench.engine.set_google_state(&version, "ENABLED"));
    let second = bench.backend.rotate().unwrap().rotate(&"release".parse().unwrap()).await.unwrap().name;
    assert_eq!(second.to_string(), "release@2");
    assert!(bench.engine.set_google_state(&version.replace("/1", "/2"), "DISABLED"));
    let newest = bench.backend.open(&"release".parse().unwrap()).await.unwrap();
    assert_eq!(newest.info().name.to_string(), "release@1");
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
    let backend = GoogleKms::new("google", config(&bench.engine, &bench.folder)).unwrap();
    let signer = backend.open(&"release".parse().unwrap()).await.unwrap();
    bench.engine.fault(Fault::new(FaultKind::Denied).for_ever().on("google.token"));
    let error = backend.health().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.what().contains("renewed"), "{error:?}");
    let request = SignRequest::message(signer.info().default_algorithm(), "m");
    signer.sign(request).await.expect("requests do not fail yet");
    bench.engine.heal();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    backend.health().await.unwrap();
}

#[tokio::test]
async fn missing_credentials_are_named_and_nothing_of_them_is_shown() {
    let (engine, folder) = (Engine::start(), tempfile::tempdir().unwrap());
    let path = folder.path().join("google.json");
    for content in [
        "",
        "not json but secret",
        r#"{"type":"service_account","private_key":"very-secret"}"#,
        r#"{"type":"x"}"#,
    ] {
        std::fs::write(&path, content).unwrap();
        let backend = GoogleKms::new("google", config(&engine, &folder)).unwrap();
        let error = backend.health().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(
            error.to_string().contains("google.json") && !error.to_string().contains("secret"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn who_may_only_sign_is_healthy_and_signs() {
    let bench = Bench::new().await;
    // Neither list nor get: the permissions of roles/cloudkms.signer and publicKeyViewer are enough.
    bench.engine.fault(Fault::new(FaultKind::Denied).for_ever().on("google.listCryptoKeys"));
    bench.backend.health().await.unwrap();
    let backend = GoogleKms::new("google", config(&bench.engine, &bench.folder)).unwrap();
    bench.engine.fault(Fault::new(FaultKind::Denied).for_ever().on("google.getCryptoKeyVersion"));
    let signer = backend.open(&"release@1".parse().unwrap()).await.unwrap();
    signer.sign(SignRequest::message(signer.info().default_algorithm(), "m")).await.unwrap();
    bench.engine.fault(Fault::new(FaultKind::Denied).for_ever().on("google.listCryptoKeyVersions"));
    let error = backend.open(&"release".parse().unwrap()).await.err().unwrap();
    assert!(error.what().contains("cloudkms.cryptoKeyVersions.list"), "{error}");
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_says_so() {
    let bench = Bench::new().await;
    bench.engine.fault(Fault::new(FaultKind::Hang).on("google.createCryptoKey"));
    let error = generate(&bench.backend, "lost", KeyType::EcdsaP256).await.unwrap_err();
    assert!(error.is_uncertain() && error.kind() == ErrorKind::DeviceGone, "{error:?}");
    bench.engine.fault(Fault::new(FaultKind::Throttle).on("google.createCryptoKey"));
    generate(&bench.backend, "throttled", KeyType::EcdsaP256).await.expect("nothing had happened yet");
}

#[tokio::test]
async fn keys_in_hardware_are_attested() {
    let bench = Bench::with(|config| config.protection_level = ProtectionLevel::Hsm).await;
    let attest = bench.backend.attest().unwrap();
    let evidence = attest.attest(&"release".parse().unwrap()).await.unwrap();
    assert_eq!((evidence.format, evidence.parts.len()), (EvidenceFormat::GoogleHsm, 4));
    assert!(evidence.parts[0].starts_with(&[0x1f, 0x8b]), "the statement is gzip");
    for chain in &evidence.parts[1..] {
        assert!(chain.starts_with(b"-----BEGIN CERTIFICATE-----"));
    }
    let soft = Bench::new().await;
    let error = soft.backend.attest().unwrap().attest(&"release".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = generate(&bench.backend, "quantum", KeyType::MlDsa65).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "modules do no ML-DSA");
}

#[tokio::test]
async fn rsa_keys_pad_as_configured() {
    let bench = Bench::with(|config| config.rsa_padding = RsaPadding::Pss).await;
    let name = generate(&bench.backend, "pss", KeyType::Rsa2048).await.unwrap();
    let signer = bench.backend.open(&name.into()).await.unwrap();
    assert_eq!(signer.info().default_algorithm().name(), "rsa-pss-sha256");
    signer.sign(SignRequest::message(signer.info().default_algorithm(), "m")).await.unwrap();
}

#[tokio::test]
async fn one_client_serves_all() {
    let bench = Bench::new().await;
    let before = bench.engine.connections();
    for _ in 0..50 {
        bench.sign().await.unwrap();
    }
    assert!(bench.engine.connections() - before <= 1, "a connection each is no connection pool");
}

#[test]
fn the_configuration_is_checked() {
    let whole: GoogleConfig = serde_json::from_str(
        r#"{"project":"p","location":"l","key_ring":"r","protection_level":"hsm","rsa_padding":"pss"}"#,
    )
    .unwrap();
    assert!(GoogleKms::new("g", whole).is_ok());
    assert!(serde_json::from_str::<GoogleConfig>(r#"{"colour":"red"}"#).is_err());
    let half: GoogleConfig = serde_json::from_str(r#"{"project":"p"}"#).unwrap();
    assert!(GoogleKms::new("g", half).err().unwrap().what().contains("one is missing"));
}
