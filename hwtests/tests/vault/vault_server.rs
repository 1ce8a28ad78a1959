//! What the server itself says, and what other programs say of its signatures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::{
    engines::{Engine, Vault, secret, token},
    openssl::openssl_verifies,
    programs,
};
use serde_json::{Value, json};
use signer_core::{Backend, ErrorKind, KeyName, KeyType, ListRequest, SignRequest, Signer};

use crate::support::{Config, backend, delete, make, open, request, sign};

#[tokio::test]
async fn a_missing_permission_is_named_with_its_path_and_capability() {
    let vault = Vault::start();
    let admin = backend(vault.config());
    make(&admin, "release", KeyType::EcdsaP256).await.unwrap();
    make(&admin, "other", KeyType::EcdsaP256).await.unwrap();
    vault.policy("narrow", "path \"transit/keys/*\" { capabilities = [\"read\"] }\npath \"transit/sign/release\" { capabilities = [\"update\"] }").await;
    let made = vault.token(json!({ "policies": ["narrow"] })).await;
    let narrow = backend(Config { login: token(secret(&made)), ..vault.config() });
    sign(&*open(&narrow, "release").await.unwrap()).await.unwrap();
    narrow.health().await.unwrap();
    let error = sign(&*open(&narrow, "other").await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    for word in ["transit/sign/other", "update"] {
        assert!(error.what().contains(word) && error.advice().unwrap().contains(word), "{error:?}");
    }
    let error = make(&narrow, "new", KeyType::EcdsaP256).await.unwrap_err();
    assert!(error.what().contains("update on transit/keys/new"), "{error:?}");
    let error = narrow.list(ListRequest::default()).await.unwrap_err();
    assert!(error.what().contains("list on transit/keys"), "{error:?}");
}

#[tokio::test]
async fn the_policy_in_the_manual_is_enough() {
    let manual = std::fs::read_to_string(programs::source("docs/backends/vault-transit.md")).unwrap();
    let mut blocks = manual.split("```hcl\n").skip(1).map(|b| b.split("```").next().unwrap());
    let (signing, managing) = (blocks.next().unwrap(), blocks.next().unwrap());
    let vault = Vault::start();
    make(&backend(vault.config()), "release", KeyType::EcdsaP256).await.unwrap();
    vault.policy("signing", signing).await;
    vault.policy("managing", managing).await;
    let made = vault.token(json!({ "policies": ["signing"] })).await;
    let signer = backend(Config { login: token(secret(&made)), ..vault.config() });
    let key = open(&signer, "release").await.unwrap();
    sign(&*key).await.unwrap();
    key.health().await.unwrap();
    signer.health().await.unwrap();
    assert_eq!(make(&signer, "new", KeyType::EcdsaP256).await.unwrap_err().kind(), ErrorKind::Denied);

    let made = vault.token(json!({ "policies": ["signing", "managing"] })).await;
    let manager = backend(Config { login: token(secret(&made)), ..vault.config() });
    make(&manager, "new", KeyType::EcdsaP256).await.unwrap();
    manager.rotate().unwrap().rotate(&KeyName::label("new").unwrap()).await.unwrap();
    sign(&*open(&manager, "new@1").await.unwrap()).await.unwrap();
    delete(&manager, "new@1").await.unwrap();
    assert_eq!(manager.list(ListRequest::default()).await.unwrap().keys.len(), 2);
    delete(&manager, "new").await.unwrap();
}

#[tokio::test]
async fn a_protected_key_is_deleted_only_where_that_is_configured() {
    let vault = Vault::start();
    let careful = backend(Config { allow_deletion: false, ..vault.config() });
    make(&careful, "release", KeyType::EcdsaP256).await.unwrap();
    let error = delete(&careful, "release").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let advice = error.advice().unwrap();
    assert!(advice.contains("vault write transit/keys/release/config deletion_allowed=true"), "{error:?}");
    assert!(advice.contains("allow_deletion"), "{error:?}");
    careful.rotate().unwrap().rotate(&KeyName::label("release").unwrap()).await.unwrap();
    assert_eq!(delete(&careful, "release@1").await.unwrap_err().kind(), ErrorKind::Denied);
    // What the advice says.
    vault.must("POST", "transit/keys/release/config", json!({ "deletion_allowed": true })).await;
    delete(&careful, "release").await.unwrap();
    assert_eq!(delete(&careful, "release").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_version_goes_only_from_the_oldest_on() {
    let vault = Vault::start();
    let place = backend(vault.config());
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    for _ in 0..2 {
        place.rotate().unwrap().rotate(&KeyName::label("release").unwrap()).await.unwrap();
    }
    let error = delete(&place, "release@2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    // Below the least version for signing, a version is no key here any more.
    vault.must("POST", "transit/keys/release/config", json!({ "min_encryption_version": 2 })).await;
    let error = open(&place, "release@1").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(place.list(ListRequest::default()).await.unwrap().keys.len(), 2);
}

#[tokio::test]
async fn what_others_do_to_a_key_is_noticed() {
    let vault = Vault::start();
    let place = backend(vault.config());
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    let (newest, first) = (open(&place, "release").await.unwrap(), open(&place, "release@1").await.unwrap());
    vault.must("POST", "transit/keys/release/rotate", json!({})).await;
    // The daemon asks for the health of a key in use, and opens it again when it is not found.
    assert_eq!(newest.health().await.unwrap_err().kind(), ErrorKind::NotFound);
    first.health().await.unwrap();
    sign(&*first).await.unwrap();
    assert_eq!(open(&place, "release").await.unwrap().info().name.to_string(), "release@2");

    // Another key by the same name and version: its signature is not given out as the old one's.
    vault.must("POST", "transit/keys/release/config", json!({ "deletion_allowed": true })).await;
    vault.must("DELETE", "transit/keys/release", Value::Null).await;
    vault.must("POST", "transit/keys/release", json!({ "type": "ecdsa-p256" })).await;
    let error = sign(&*first).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.what().contains("another public key"), "{error:?}");

    // Even a signature that fits is not trusted for ever.
    let wary = backend(Config { public_key_lifetime: Some(0), ..vault.config() });
    let signer = open(&wary, "release").await.unwrap();
    sign(&*signer).await.unwrap();
    vault.must("POST", "transit/keys/release/rotate", json!({})).await;
    assert_eq!(sign(&*signer).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn keys_that_do_not_sign_are_not_there() {
    let vault = Vault::start();
    let place = backend(vault.config());
    vault.must("POST", "transit/keys/secrets", json!({ "type": "aes256-gcm96" })).await;
    vault.must("POST", "transit/keys/derived", json!({ "type": "ed25519", "derived": true })).await;
    vault.must("POST", "transit/keys/exportable", json!({ "type": "ecdsa-p256", "exportable": true })).await;
    for name in ["secrets", "derived"] {
        let error = open(&place, name).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert_eq!(
            make(&place, name, KeyType::EcdsaP256).await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
    }
    let listed = place.list(ListRequest::default()).await.unwrap().keys;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].extractable, Some(true));
}

#[tokio::test]
async fn a_quota_is_waited_out_within_the_deadline() {
    let vault = Vault::start();
    let place = backend(vault.config());
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&place, "release").await.unwrap();
    vault
        .must(
            "POST",
            "sys/quotas/rate-limit/tight",
            json!({ "rate": 4, "interval": "1s", "path": "transit" }),
        )
        .await;
    let start = Instant::now();
    for _ in 0..10 {
        sign(&*signer).await.unwrap();
    }
    assert!(start.elapsed() > Duration::from_secs(1), "the quota does not hold: {:?}", start.elapsed());
    let soon = |signer: &Arc<dyn Signer>| {
        request(&**signer).deadline(Some(Instant::now() + Duration::from_millis(100)))
    };
    let mut errors = Vec::new();
    for _ in 0..10 {
        errors.extend(signer.sign(soon(&signer)).await.err());
    }
    assert!(!errors.is_empty());
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::Throttled { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_sealed_server_is_gone_and_comes_back() {
    let vault = Vault::start();
    let place = backend(vault.config());
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&place, "release").await.unwrap();
    vault.seal().await;
    for error in [
        sign(&*signer).await.unwrap_err(),
        place.health().await.unwrap_err(),
        place.describe().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
        assert!(error.what().contains("sealed"), "{error:?}");
    }
    vault.unseal().await;
    let back = hwtests::eventually(Duration::from_secs(5), || async { sign(&*signer).await.is_ok() }).await;
    assert!(back, "{:?}", sign(&*signer).await);
}

#[tokio::test]
async fn a_wrong_mount_is_named() {
    let vault = Vault::start();
    let place = backend(Config { mount: Some("transit2".into()), ..vault.config() });
    let error = place.health().await.unwrap_err();
    assert!(error.what().contains("transit2"), "{error:?}");
    let error = make(&place, "release", KeyType::EcdsaP256).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.advice().unwrap().contains("mount"), "{error:?}");
    // Mounted elsewhere it serves.
    vault.must("POST", "sys/mounts/keys/signing", json!({ "type": "transit" })).await;
    let place = backend(Config { mount: Some("keys/signing".into()), ..vault.config() });
    place.health().await.unwrap();
    make(&place, "release", KeyType::EcdsaP256).await.unwrap();
    sign(&*open(&place, "release").await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn vault_itself_and_openssl_accept_every_signature() {
    let vault = Vault::start();
    let place = backend(vault.config());
    let folder = tempfile::tempdir().unwrap();
    let message = b"what openssl reads";
    std::fs::write(folder.path().join("message"), message).unwrap();
    let mut verified = 0;
    for key_type in vault.profile().generates {
        let key = make(&place, key_type.name(), key_type).await.unwrap();
        let signer = open(&place, key_type.name()).await.unwrap();
        for algorithm in key.algorithms.iter().copied() {
            let signature = signer.sign(SignRequest::message(algorithm, &message[..])).await.unwrap();
            assert_eq!(
                openssl_verifies(folder.path(), &key, algorithm, signature.as_bytes()),
                Some(true),
                "{algorithm}"
            );
            let mut body = json!({
                "input": STANDARD.encode(message),
                "signature": format!("vault:v1:{}", STANDARD.encode(signature.as_bytes())),
            });
            if let Some(hash) = algorithm.prehash() {
                body["hash_algorithm"] = json!(hash.name().replace("sha", "sha2-"));
                let scheme = algorithm.name();
                if scheme.starts_with("rsa") {
                    body["signature_algorithm"] =
                        json!(if scheme.contains("pss") { "pss" } else { "pkcs1v15" });
                    body["salt_length"] = json!("hash");
                }
            }
            let answer = vault.must("POST", &format!("transit/verify/{key_type}"), body).await;
            assert_eq!(answer["data"]["valid"], true, "{algorithm}: {answer}");
            verified += 1;
        }
    }
    assert_eq!(verified, 9 + 18 + 1);
}
