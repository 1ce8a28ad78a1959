//! The classification table: what a server says, and what it means. Each answer stands for ever.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::scripted::{Reply, Scripted};
use serde_json::{Value, json};
use signer_core::{Backend, Error, ErrorKind, KeyName, KeyType};

use crate::support::{Config, backend, make, open, sign, to};

/// A server that describes one key as Vault does, and answers signatures with `reply`.
async fn signing(reply: Reply) -> (Scripted, Arc<AtomicUsize>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    let server = Scripted::start(move |_, asked| match asked.path.as_str() {
        "/v1/auth/token/lookup-self" => Reply::new(200, r#"{"data":{"ttl":0,"renewable":false}}"#),
        "/v1/transit/keys/release" => Reply::new(200, describe(&[1; 32])),
        "/v1/transit/sign/release" => {
            counter.fetch_add(1, Ordering::SeqCst);
            reply.clone()
        }
        other => panic!("{other}"),
    })
    .await;
    (server, tries)
}

/// A key as `GET keys/NAME` describes it, of an Ed25519 seed.
fn describe(seed: &[u8; 32]) -> String {
    let key = ed25519(seed);
    let public = STANDARD.encode(aws_lc_rs::signature::KeyPair::public_key(&key).as_ref());
    json!({ "data": {
        "type": "ed25519", "latest_version": 1, "min_encryption_version": 0, "min_available_version": 0, "derived": false,
        "exportable": false, "keys": { "1": { "public_key": public, "creation_time": "2026-01-01T00:00:00.5Z" } },
    }})
    .to_string()
}

fn ed25519(seed: &[u8; 32]) -> aws_lc_rs::signature::Ed25519KeyPair {
    aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(seed).unwrap()
}

fn signature(seed: &[u8; 32], version: u64) -> String {
    let signature = ed25519(seed).sign(b"a message");
    json!({ "data": { "signature": format!("vault:v{version}:{}", STANDARD.encode(signature.as_ref())) } })
        .to_string()
}

/// What signing ends with, and how often the server was asked.
async fn fails(reply: Reply) -> (Error, usize) {
    let (server, tries) = signing(reply).await;
    let place = backend(Config { timeout: Some(2), ..to(&server) });
    let error = sign(&*open(&place, "release").await.unwrap()).await.unwrap_err();
    assert_eq!(error.key_name(), Some("release@1"), "{error:?}");
    (error, tries.load(Ordering::SeqCst))
}

fn errors(status: u16, text: &str) -> Reply {
    Reply::new(status, json!({ "errors": [text] }).to_string())
}

#[tokio::test]
async fn the_scripted_server_is_understood_when_all_is_well() {
    let (server, _) = signing(Reply::new(200, signature(&[1; 32], 1))).await;
    let config = Config { namespace: Some("team/a".into()), ..to(&server) };
    let signer = open(&backend(config), "release").await.unwrap();
    sign(&*signer).await.unwrap();
    let seen = server.seen();
    assert!(seen.iter().all(|a| a.header("x-vault-namespace") == Some("team/a")));
    assert!(seen.iter().all(|a| a.header("x-vault-token") == Some("t")));
}

#[tokio::test]
async fn status_400() {
    let (error, asked) = fails(errors(400, "unable to decode input")).await;
    assert_eq!((error.kind(), asked), (ErrorKind::BadRequest, 1), "{error:?}");
    let (error, _) = fails(errors(400, "signing key not found")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let (error, _) = fails(errors(400, "key type aes256-gcm96 does not support signing")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}

#[tokio::test]
async fn status_403() {
    let (error, asked) = fails(errors(403, "1 error occurred:\n\t* permission denied\n\n")).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Denied, 1), "{error:?}");
    let (error, asked) =
        fails(errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Denied, 1), "{error:?}");
    assert!(error.what().contains("token"), "{error:?}");
}

#[tokio::test]
async fn status_404() {
    let (error, asked) = fails(Reply::new(404, r#"{"errors":[]}"#)).await;
    assert_eq!((error.kind(), asked), (ErrorKind::NotFound, 1), "{error:?}");
    let (error, _) =
        fails(errors(404, "no handler for route \"transit/sign/release\". route entry not found.")).await;
    assert!(error.what().contains("serves nothing"), "{error:?}");
}

#[tokio::test]
async fn status_409() {
    let (error, asked) = fails(errors(409, "conflict")).await;
    assert!(matches!(error.kind(), ErrorKind::Busy { .. }), "{error:?}");
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn status_429() {
    let start = Instant::now();
    let (error, asked) = fails(errors(429, "request path \"transit\": rate limit quota exceeded")).await;
    assert!(matches!(error.kind(), ErrorKind::Throttled { .. }) && asked > 2, "{asked}: {error:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let (error, asked) = fails(errors(429, "slow down").header("Retry-After", "60")).await;
    assert_eq!(error.kind(), ErrorKind::Throttled { retry_after: Duration::from_mins(1) }, "{error:?}");
    assert_eq!(asked, 1, "there is no point in asking again");
}

#[tokio::test]
async fn status_500() {
    let (error, asked) = fails(errors(500, "internal error")).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Internal, 3), "{error:?}");
    let (error, asked) =
        fails(errors(500, "requested version for signing is less than the minimum encryption key version"))
            .await;
    assert_eq!((error.kind(), asked), (ErrorKind::NotFound, 1), "{error:?}");
}

#[tokio::test]
async fn status_503_and_gateways() {
    let (error, _) = fails(errors(503, "Vault is sealed")).await;
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(error.advice().unwrap().contains("unseal"), "{error:?}");
    for status in [502, 503, 504] {
        let (error, asked) = fails(Reply::new(status, "<html>gateway</html>")).await;
        assert_eq!((error.kind(), asked), (ErrorKind::DeviceGone, 3), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_cut_connection() {
    let (error, asked) = fails(Reply::Cut).await;
    assert_eq!((error.kind(), asked), (ErrorKind::DeviceGone, 3), "{error:?}");
}

#[tokio::test]
async fn silence_and_a_byte_at_a_time() {
    for reply in
        [Reply::Silence, Reply::Slowly(200, signature(&[1; 32], 1).into(), Duration::from_millis(100))]
    {
        let (error, asked) = fails(reply).await;
        assert_eq!((error.kind(), asked), (ErrorKind::DeviceGone, 1), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json() {
    for body in
        ["<html>welcome</html>", "", "{\"data\":{\"signature\":", "{\"data\":{\"signature\":7}}", "[]"]
    {
        let (error, asked) = fails(Reply::new(200, body)).await;
        assert_eq!((error.kind(), asked), (ErrorKind::Internal, 1), "{body}: {error:?}");
    }
    for text in ["", "v1:AA==", "vault:v1:", "vault:v1:!!", "vault:v1:AA==:x", "vault:vx:AA=="] {
        let (error, _) = fails(Reply::new(200, json!({ "data": { "signature": text } }).to_string())).await;
        assert_eq!(error.kind(), ErrorKind::Internal, "{text}: {error:?}");
    }
}

#[tokio::test]
async fn a_signature_that_does_not_verify_or_is_another_versions() {
    let (error, _) = fails(Reply::new(200, signature(&[2; 32], 1))).await;
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(error.what().contains("does not verify"), "{error:?}");
    let (error, _) = fails(Reply::new(200, signature(&[1; 32], 2))).await;
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(error.what().contains("version"), "{error:?}");
}

#[tokio::test]
async fn a_changed_public_key() {
    let seed = Arc::new(Mutex::new([1; 32]));
    let now = seed.clone();
    let server = Scripted::start(move |_, asked| {
        let seed = *now.lock().unwrap();
        Reply::new(
            200,
            match asked.path.as_str() {
                "/v1/auth/token/lookup-self" => r#"{"data":{"ttl":0}}"#.to_owned(),
                "/v1/transit/sign/release" => signature(&seed, 1),
                _ => describe(&seed),
            },
        )
    })
    .await;
    let place = backend(to(&server));
    let signer = open(&place, "release").await.unwrap();
    sign(&*signer).await.unwrap();
    *seed.lock().unwrap() = [2; 32];
    let error = sign(&*signer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    sign(&*open(&place, "release").await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_redirect_does_not_lead_astray() {
    let other = Scripted::start(|_, _| Reply::new(200, r#"{"data":{"type":"transit"}}"#)).await;
    let address = other.address();
    let server = Scripted::start(move |_, asked| match asked.path.as_str() {
        "/v1/auth/token/lookup-self" => Reply::new(200, r#"{"data":{"ttl":0}}"#),
        path => Reply::new(307, "").header("Location", &format!("http://{address}{path}")),
    })
    .await;
    // A standby node names the active one.
    backend(to(&server)).health().await.unwrap();
    assert_eq!(other.seen().len(), 1);
    // One that names itself is given up.
    let loops = Scripted::start(move |_, asked| match asked.path.as_str() {
        "/v1/auth/token/lookup-self" => Reply::new(200, r#"{"data":{"ttl":0}}"#),
        path => Reply::new(307, "").header("Location", path),
    })
    .await;
    let error = backend(to(&loops)).health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
}

#[tokio::test]
async fn ml_dsa_is_served_where_the_server_has_it() {
    let pair =
        aws_lc_rs::signature::PqdsaKeyPair::generate(&aws_lc_rs::signature::ML_DSA_65_SIGNING).unwrap();
    let public = STANDARD.encode(aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref());
    let server = Scripted::start(move |_, asked| {
        let body = match asked.path.as_str() {
            "/v1/auth/token/lookup-self" => json!({ "data": { "ttl": 0 } }),
            path if path.starts_with("/v1/sys/health") => {
                json!({ "version": "1.21.4+ent", "enterprise": true, "cluster_id": "c" })
            }
            "/v1/transit/sign/pq" => {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                let message = STANDARD.decode(body["input"].as_str().unwrap()).unwrap();
                let mut signature = vec![0; 3309];
                pair.sign(&message, &mut signature).unwrap();
                json!({ "data": { "signature": format!("vault:v1:{}", STANDARD.encode(signature)) } })
            }
            _ => json!({ "data": {
                "type": "ml-dsa", "parameter_set": "65", "latest_version": 1, "keys": { "1": { "public_key": public } },
            }}),
        };
        Reply::new(200, body.to_string())
    })
    .await;
    let place = backend(to(&server));
    assert!(place.describe().await.unwrap().generates.contains(&KeyType::MlDsa65));
    let signer = open(&place, "pq").await.unwrap();
    assert_eq!(signer.info().public_key.key_type(), KeyType::MlDsa65);
    sign(&*signer).await.unwrap();
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_made_once_and_called_uncertain() {
    for reply in [Reply::Cut, Reply::Silence, errors(500, "storage"), Reply::new(504, "gateway")] {
        let what = format!("{reply:?}");
        let server = Scripted::start(move |_, asked| match (asked.method.as_str(), asked.path.as_str()) {
            (_, "/v1/auth/token/lookup-self") => Reply::new(200, r#"{"data":{"ttl":0}}"#),
            ("GET", "/v1/transit/keys/new") => Reply::new(404, r#"{"errors":[]}"#),
            ("GET", "/v1/transit/keys/release") => Reply::new(200, describe(&[1; 32])),
            _ => reply.clone(),
        })
        .await;
        let place = backend(to(&server));
        let rotated = place.rotate().unwrap().rotate(&KeyName::label("release").unwrap()).await;
        let error = rotated.unwrap_err();
        assert!(error.is_uncertain() && !error.is_retryable(), "{what}: {error:?}");
        let error = make(&place, "new", KeyType::Ed25519).await.unwrap_err();
        assert!(error.is_uncertain(), "{what}: {error:?}");
        let changes = server.seen().iter().filter(|a| a.method == "POST").count();
        assert_eq!(changes, 2, "{what}");
    }
}
