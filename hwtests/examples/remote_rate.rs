//! How fast the remote backends sign beside the same request without them: `cargo run --release -p hwtests --example
//! remote_rate`. Sixteen callers on one thread, as the daemon has one; the two take turns, and the middle of the rounds counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use hwtests::engines::{AwsFace, Engine, MiniStack, Vault};
use serde_json::{Value, json};
use signer_contract::PinSetup;
use signer_core::{BoxFuture, Digest, GenerateRequest, HashAlgorithm, KeyName, KeyType, SignRequest};

const CALLERS: usize = 16;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

type Call = Arc<dyn Fn() -> BoxFuture<'static, ()>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:<34} {:>9} {:>8} {:>8}   {:>9} {:>8} {:>8}   ratio",
        "", "direct/s", "p50 ms", "p99", "backend/s", "p50 ms", "p99"
    );
    let vault = Vault::start();
    for key_type in [KeyType::EcdsaP256, KeyType::Rsa2048] {
        let direct = vault_direct(&vault, key_type.name());
        compare(&format!("Vault 1.21.4, {key_type}"), &vault, key_type, direct).await;
    }
    let face = AwsFace::start();
    let direct = aws_direct(face.config().endpoint.expect("it has one"));
    compare("AWS face of the test engine, P-256", &face, KeyType::EcdsaP256, direct).await;
    let stack = MiniStack::start();
    let direct = aws_direct(stack.config().endpoint.expect("it has one"));
    compare("ministack 1.5.33, P-256", &stack, KeyType::EcdsaP256, direct).await;
}

fn digest() -> Digest {
    Digest::of(HashAlgorithm::Sha256, b"what is signed")
}

async fn compare(what: &str, engine: &dyn Engine, key_type: KeyType, direct: Call) {
    let backend = engine.direct(PinSetup::Right).await.expect("the backend starts");
    let name = KeyName::label(key_type.name()).expect("a name");
    let made =
        backend.generate().expect("it makes keys").generate(GenerateRequest::new(name.clone(), key_type));
    let algorithm = made.await.expect("a key").default_algorithm();
    let signer = backend.open(&name.into()).await.expect("the key");
    let ours: Call = Arc::new(move || {
        let signer = signer.clone();
        Box::pin(async move {
            let request = SignRequest::digest(algorithm, digest()).expect("a digest that fits");
            signer.sign(request).await.expect("a signature");
        })
    });
    let (mut theirs, mut our) = (Vec::new(), Vec::new());
    round(&direct).await;
    round(&ours).await;
    for _ in 0..ROUNDS {
        theirs.push(round(&direct).await);
        our.push(round(&ours).await);
    }
    let (d, o) = (middle(theirs), middle(our));
    println!(
        "{what:<34} {:>9.0} {:>8.2} {:>8.2}   {:>9.0} {:>8.2} {:>8.2}   {:.3}",
        d.0,
        d.1,
        d.2,
        o.0,
        o.1,
        o.2,
        o.0 / d.0
    );
}

/// Rate, p50 and p99 in milliseconds.
async fn round(call: &Call) -> (f64, f64, f64) {
    let start = Instant::now();
    let callers = (0..CALLERS).map(|_| async {
        let mut took = Vec::new();
        while start.elapsed() < ROUND {
            let began = Instant::now();
            call().await;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took
    });
    let mut took = join_all(callers).await.concat();
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    (rate, took[took.len() / 2], took[took.len() * 99 / 100])
}

fn middle(mut rounds: Vec<(f64, f64, f64)>) -> (f64, f64, f64) {
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    rounds[rounds.len() / 2]
}

/// The request that signs, as a program without signerd sends it.
fn vault_direct(vault: &Vault, key: &str) -> Call {
    let http = reqwest::Client::new();
    let url = format!("http://{}/v1/transit/sign/{key}", vault.address());
    let mut body = json!({ "input": STANDARD.encode(digest().as_bytes()), "prehashed": true, "hash_algorithm": "sha2-256" });
    if key.starts_with("rsa") {
        body["signature_algorithm"] = json!("pkcs1v15");
    }
    let (token, body) = (vault.root().to_owned(), body.to_string());
    Arc::new(move || {
        let request = http.post(&url).header("X-Vault-Token", &token).body(body.clone());
        Box::pin(async move {
            let answer = request.send().await.expect("an answer").text().await.expect("an answer");
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert!(answer["data"]["signature"].is_string(), "{answer}");
        })
    })
}

/// The SDK's own call.
fn aws_direct(endpoint: String) -> Call {
    use aws_sdk_kms::{
        config::{Credentials, Region},
        primitives::Blob,
        types::{MessageType, SigningAlgorithmSpec},
    };
    let credentials = Credentials::new(
        hwtests_kms_engine::AWS_ACCESS_KEY_ID,
        hwtests_kms_engine::AWS_SECRET_ACCESS_KEY,
        None,
        None,
        "bench",
    );
    let config = aws_sdk_kms::Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
        .build();
    let sdk = aws_sdk_kms::Client::from_conf(config);
    Arc::new(move || {
        let request = sdk
            .sign()
            .key_id("alias/ecdsa-p256")
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .message(Blob::new(digest().as_bytes()));
        Box::pin(async move {
            request.send().await.expect("a signature");
        })
    })
}
