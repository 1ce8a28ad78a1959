//! How tokens are come by, kept and replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::Engine as _;
use hwtests::{
    engines::{Vault, private_file, secret, secret_file, token},
    scripted::{Reply, Scripted},
};
use serde_json::{Value, json};
use signer_core::{Backend, ErrorKind, KeyType};
use signer_vault_transit::{Login, SecretLoader};

use crate::support::{Config, backend, make, open, sign, to};

async fn role(vault: &Vault, role: Value) -> (String, String) {
    vault.policy("signer", "path \"transit/*\" { capabilities = [\"read\", \"update\", \"list\"] }").await;
    vault.must("POST", "sys/auth/approle", json!({ "type": "approle" })).await;
    vault.must("POST", "auth/approle/role/signerd", role).await;
    let id = vault.must("GET", "auth/approle/role/signerd/role-id", Value::Null).await;
    let secret = vault.must("POST", "auth/approle/role/signerd/secret-id", json!({})).await;
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    (text(&id["data"]["role_id"]), text(&secret["data"]["secret_id"]))
}

fn approle(role_id: &str, secret_id: SecretLoader) -> Login<SecretLoader> {
    Login::Approle { mount: None, role_id: role_id.into(), secret_id: Some(secret_id) }
}

#[tokio::test]
async fn an_approle_signs_on_through_renewals_and_the_end_of_its_tokens() {
    let vault = Vault::start();
    make(&backend(vault.config()), "release", KeyType::EcdsaP256).await.unwrap();
    let (id, secret_id) =
        role(&vault, json!({ "token_policies": "signer", "token_ttl": "2s", "token_max_ttl": "5s" })).await;
    let place = backend(Config { login: Some(approle(&id, secret(&secret_id))), ..vault.config() });
    let signer = open(&place, "release").await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(9) {
        sign(&*signer).await.unwrap();
        place.health().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A token that somebody revokes is replaced in the middle of a request.
    vault.must("POST", "sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    sign(&*signer).await.unwrap();
}

#[tokio::test]
async fn a_login_that_stops_working_is_told_before_a_request_fails() {
    let vault = Vault::start();
    make(&backend(vault.config()), "release", KeyType::EcdsaP256).await.unwrap();
    let (id, secret_id) =
        role(&vault, json!({ "token_policies": "signer", "token_ttl": "4s", "token_max_ttl": "4s" })).await;
    let place = backend(Config { login: Some(approle(&id, secret(&secret_id))), ..vault.config() });
    let signer = open(&place, "release").await.unwrap();
    vault
        .must("POST", "auth/approle/role/signerd/secret-id/destroy", json!({ "secret_id": secret_id }))
        .await;
    let start = Instant::now();
    let error = loop {
        // As long as health is good, so are signatures.
        if let Err(error) = place.health().await {
            break error;
        }
        sign(&*signer).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(6), "health never tells");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("ends in"), "{error:?}");
    sign(&*signer).await.unwrap();
}

#[tokio::test]
async fn a_given_token_is_renewed_and_its_end_is_told() {
    let vault = Vault::start();
    make(&backend(vault.config()), "release", KeyType::EcdsaP256).await.unwrap();
    vault.policy("signer", "path \"transit/*\" { capabilities = [\"read\", \"update\", \"list\"] }").await;
    let renewable = vault
        .token(json!({ "policies": ["signer"], "ttl": "2s", "renewable": true, "explicit_max_ttl": "6s" }))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    private_file(&file, &renewable);
    let place = backend(Config { login: token(secret_file(file.clone())), ..vault.config() });
    let signer = open(&place, "release").await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3500) {
        sign(&*signer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its last lease: health tells, signatures go on.
    let told = hwtests::eventually(Duration::from_secs(3), || async { place.health().await.is_err() }).await;
    assert!(told, "health never tells");
    sign(&*signer).await.unwrap();
    // Somebody, as Vault's agent does, puts a new one there.
    let next = vault.token(json!({ "policies": ["signer"], "ttl": "1h" })).await;
    private_file(&file, &next);
    let healthy =
        hwtests::eventually(Duration::from_secs(5), || async { place.health().await.is_ok() }).await;
    assert!(healthy, "{:?}", place.health().await);
    sign(&*signer).await.unwrap();
    vault.must("POST", "auth/token/revoke", json!({ "token": next })).await;
    let error = sign(&*signer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("token"), "{error:?}");
    private_file(&file, vault.root());
    sign(&*signer).await.unwrap();
}

#[tokio::test]
async fn userpass_and_kubernetes_log_in() {
    let vault = Vault::start();
    make(&backend(vault.config()), "release", KeyType::EcdsaP256).await.unwrap();
    vault.policy("signer", "path \"transit/*\" { capabilities = [\"read\", \"update\", \"list\"] }").await;
    vault.must("POST", "sys/auth/people", json!({ "type": "userpass" })).await;
    vault
        .must(
            "POST",
            "auth/people/users/alice",
            json!({ "password": "pa\"ss\\word", "token_policies": "signer" }),
        )
        .await;
    let login = |password: &str| {
        Some(Login::Userpass {
            mount: Some("people".into()),
            username: "alice".into(),
            password: secret(password),
        })
    };
    let place = backend(Config { login: login("pa\"ss\\word"), ..vault.config() });
    sign(&*open(&place, "release").await.unwrap()).await.unwrap();
    let error = backend(Config { login: login("hunter2"), ..vault.config() }).health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("login") && !error.to_string().contains("hunter2"), "{error:?}");

    // The part of Kubernetes that Vault asks whether a service account's token is good.
    let cluster = Scripted::start(|_, asked| {
        let good = String::from_utf8_lossy(&asked.body).contains(&jwt());
        let status = if good {
            json!({ "authenticated": true, "user": { "username": "system:serviceaccount:signing:signerd", "uid": "u" } })
        } else {
            json!({ "authenticated": false, "error": "no" })
        };
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status });
        Reply::new(201, review.to_string())
    })
    .await;
    vault.must("POST", "sys/auth/kubernetes", json!({ "type": "kubernetes" })).await;
    let config = json!({ "kubernetes_host": format!("http://{}", cluster.address()), "token_reviewer_jwt": jwt(), "disable_local_ca_jwt": true });
    vault.must("POST", "auth/kubernetes/config", config).await;
    vault
        .must(
            "POST",
            "auth/kubernetes/role/signerd",
            json!({
                "bound_service_account_names": "signerd", "bound_service_account_namespaces": "signing",
                "token_policies": "signer", "alias_name_source": "serviceaccount_name",
            }),
        )
        .await;
    let file = vault.folder().join("jwt");
    private_file(&file, &jwt());
    let login = Login::Kubernetes { mount: None, role: "signerd".into(), token_file: Some(file) };
    let place = backend(Config { login: Some(login), ..vault.config() });
    sign(&*open(&place, "release").await.unwrap()).await.unwrap();
    assert!(!cluster.seen().is_empty(), "nobody asked Kubernetes");
}

/// A service account's token, as far as Vault looks at it; Kubernetes says whether it is good.
fn jwt() -> String {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:signing:signerd",
        "kubernetes.io/serviceaccount/namespace": "signing", "kubernetes.io/serviceaccount/service-account.name": "signerd",
        "kubernetes.io/serviceaccount/service-account.uid": "u", "kubernetes.io/serviceaccount/secret.name": "s",
    });
    let part = |v: Value| URL.encode(v.to_string());
    format!("{}.{}.{}", part(json!({ "alg": "RS256" })), part(claims), URL.encode([7; 256]))
}

#[tokio::test]
async fn a_refused_login_is_not_tried_again_until_its_secret_changes() {
    let good = Arc::new(AtomicBool::new(false));
    let accepts = good.clone();
    let server = Scripted::start(move |_, asked| match asked.path.as_str() {
        "/v1/auth/userpass/login/alice" if accepts.load(Ordering::SeqCst) => {
            Reply::new(200, r#"{"auth":{"client_token":"t","lease_duration":3600,"renewable":true}}"#)
        }
        "/v1/auth/userpass/login/alice" => Reply::new(400, r#"{"errors":["invalid username or password"]}"#),
        _ => Reply::new(200, r#"{"data":{"type":"transit"}}"#),
    })
    .await;
    let logins = || server.seen().iter().filter(|a| a.path.contains("login")).count();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    private_file(&file, "wrong");
    let login =
        Login::Userpass { mount: None, username: "alice".into(), password: secret_file(file.clone()) };
    let config = Config { login: Some(login), ..to(&server) };
    let place = Arc::new(backend(config));
    let tries = (0..8).map(|_| {
        let place = place.clone();
        tokio::spawn(async move { place.health().await.unwrap_err() })
    });
    for task in tries.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().kind(), ErrorKind::Denied);
    }
    assert_eq!(logins(), 1, "a wrong password locks its user out");
    good.store(true, Ordering::SeqCst);
    private_file(&file, "right");
    place.health().await.unwrap();
    assert_eq!(logins(), 2);
}
