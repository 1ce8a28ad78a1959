//! What the cloud backends cost: signatures a second through a backend, beside the same maker's client called directly,
//! against the test engine on this machine: at once, where every microsecond of both sides shows, and 10 ms away, as a
//! service in the same region is. `cargo run --release -p hwtests --example cloud_overhead [SECONDS]`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use azure_core::{
    credentials::Secret,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_security_keyvault_keys::{
    KeyClient, KeyClientOptions,
    models::{KeyClientSignOptions, SignParameters, SignatureAlgorithm as AzureAlgorithm},
};
use google_cloud_kms_v1::{client::KeyManagementService, model::Digest as GoogleDigest};
use hwtests::engines::{Azure, Engine, Google};
use hwtests_kms_engine::{
    AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT, Engine as KmsEngine, Fault, FaultKind,
};
use signer_contract::PinSetup;
use signer_core::{
    Ability, Backend, Digest, GenerateRequest, HashAlgorithm, KeyName, KeySelector, KeyType, SignRequest,
    Signer,
};

/// What is measured: a signature, or a reason.
type Failed = Box<dyn std::error::Error + Send + Sync>;

// As in the daemon: one thread does everything.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    println!(
        "{:<8} {:>3} {:>8} {:>18} {:>24} {:>24} {:>7}",
        "service", "n", "away", "what", "signatures/s", "p50 / p99 ms", "ratio"
    );
    google(seconds).await?;
    azure(seconds).await
}

async fn open(backend: &dyn Backend) -> Result<Arc<dyn Signer>, Failed> {
    let request = GenerateRequest::new(KeyName::label("bench")?, KeyType::EcdsaP256);
    let made = Ability::Generate.require(backend.generate(), "bench")?.generate(request).await?;
    Ok(backend.open(&KeySelector::Name(made.name)).await?)
}

async fn google(seconds: u64) -> Result<(), Failed> {
    let engine = Google::start();
    let backend = engine.direct(PinSetup::Right).await?;
    let signer = open(&*backend).await?;
    let credentials = serde_json::from_str(&engine.kms().google_service_account())?;
    let credentials = google_cloud_auth::credentials::service_account::Builder::new(credentials).build()?;
    let client = KeyManagementService::builder()
        .with_endpoint(engine.kms().url())
        .with_credentials(credentials)
        .build()
        .await?;
    let address = signer.info().address.as_ref().map(ToString::to_string).unwrap_or_default();
    let name = address.trim_start_matches("gcpkms://").replace("/versions/", "/cryptoKeyVersions/");
    let digest = Digest::of(HashAlgorithm::Sha256, b"m");
    let direct = || {
        let (client, name) = (client.clone(), name.clone());
        async move {
            let bytes = bytes::Bytes::copy_from_slice(digest.as_bytes());
            let crc = i64::from(crc32c::crc32c(&bytes));
            let call =
                client.asymmetric_sign().set_name(name).set_digest(GoogleDigest::new().set_sha256(bytes));
            call.set_digest_crc32c(crc).send().await?;
            Ok(())
        }
    };
    compare("google", engine.kms(), seconds, direct, signer).await
}

async fn azure(seconds: u64) -> Result<(), Failed> {
    let engine = Azure::start();
    let backend = engine.direct(PinSetup::Right).await?;
    let signer = open(&*backend).await?;
    let config = engine.config();
    let certificates = reqwest::Certificate::from_pem_bundle(engine.kms().ca_pem().as_bytes())?;
    let http = reqwest::Client::builder()
        .tls_certs_merge(certificates)
        .resolve("tests.vault.azure.net", (engine.kms().tls_address().ip(), 0).into())
        .build()?;
    let transport = Some(Transport::new(Arc::new(http)));
    let mut custom = azure_core::cloud::CustomConfiguration::default();
    custom.authority_host = engine.kms().tls_url();
    let options = ClientOptions {
        transport: transport.clone(),
        cloud: Some(Arc::new(custom.into())),
        ..Default::default()
    };
    let credential = ClientSecretCredential::new(
        AZURE_TENANT,
        AZURE_CLIENT_ID.into(),
        Secret::new(AZURE_CLIENT_SECRET),
        Some(ClientSecretCredentialOptions { client_options: options }),
    )?;
    let options = ClientOptions { transport, retry: RetryOptions::none(), ..Default::default() };
    let options = KeyClientOptions { client_options: options, ..Default::default() };
    let client = Arc::new(KeyClient::new(&config.vault, credential, Some(options))?);
    let version = signer.info().name.version().map(str::to_owned);
    let digest = Digest::of(HashAlgorithm::Sha256, b"m");
    let direct = || {
        let (client, version) = (client.clone(), version.clone());
        async move {
            let parameters = SignParameters {
                algorithm: Some(AzureAlgorithm::Es256),
                value: Some(digest.as_bytes().to_vec()),
            };
            let options = KeyClientSignOptions { key_version: version, ..Default::default() };
            client.sign("bench", parameters.try_into()?, Some(options)).await?.into_model()?;
            Ok(())
        }
    };
    compare("azure", engine.kms(), seconds, direct, signer).await
}

async fn compare<F: Future<Output = Result<(), Failed>> + Send + 'static>(
    service: &str,
    engine: &KmsEngine,
    seconds: u64,
    direct: impl Fn() -> F,
    signer: Arc<dyn Signer>,
) -> Result<(), Failed> {
    let through = || {
        let signer = signer.clone();
        async move {
            let algorithm = signer.info().default_algorithm();
            let request = SignRequest::digest(algorithm, Digest::of(HashAlgorithm::Sha256, b"m"))?;
            signer.sign(request).await?;
            Ok(())
        }
    };
    for (tasks, away) in [(1, 0), (16, 0), (1, 10), (16, 10)] {
        if away > 0 {
            engine.fault(Fault::new(FaultKind::Slow).ms(away).for_ever());
        }
        run(tasks, 1, &direct).await?;
        run(tasks, 1, &through).await?;
        // Twice each, one after the other, so that a slow moment of the machine hits both.
        let mut rates = [0.0; 2];
        let mut last = [(0.0, 0.0, 0.0); 2];
        for _ in 0..2 {
            for (at, figures) in [run(tasks, seconds, &direct).await?, run(tasks, seconds, &through).await?]
                .into_iter()
                .enumerate()
            {
                rates[at] += figures.0 / 2.0;
                last[at] = figures;
            }
        }
        for (at, what) in ["the maker's client", "the backend"].into_iter().enumerate() {
            let (_, p50, p99) = last[at];
            println!(
                "{service:<8} {tasks:>3} {away:>5} ms {what:>18} {:>24.0} {p50:>15.2} / {p99:>6.2} {:>7.2}",
                rates[at],
                rates[at] / rates[0]
            );
        }
    }
    Ok(())
}

/// Signatures a second, and the 50th and 99th percentile in milliseconds.
async fn run<F: Future<Output = Result<(), Failed>> + Send + 'static>(
    tasks: usize,
    seconds: u64,
    sign: &impl Fn() -> F,
) -> Result<(f64, f64, f64), Failed> {
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let mut times = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    let timed = |future: F| async move {
        let start = Instant::now();
        future.await.map(|()| start.elapsed())
    };
    for _ in 0..tasks {
        running.spawn(timed(sign()));
    }
    while let Some(done) = running.join_next().await {
        times.push(done??);
        if Instant::now() < until {
            running.spawn(timed(sign()));
        }
    }
    times.sort_unstable();
    let at =
        |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    Ok((times.len() as f64 / start.elapsed().as_secs_f64(), at(0.5), at(0.99)))
}
