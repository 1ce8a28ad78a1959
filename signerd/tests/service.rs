//! The API, as callers meet it.

#![allow(clippy::unwrap_used)]

mod support;

use signer_core::{
    Backend, BackendName, Digest, Error, ErrorKind, GenerateRequest, HashAlgorithm, ImportRequest, Input,
    KeyType, ListRequest, PrivateKey, SignRequest, SignatureAlgorithm,
};
use signerd_api::{Client, pb};
use support::{Daemon, SOFT, all_for_me};

fn soft() -> BackendName {
    "soft".parse().unwrap()
}

async fn create(client: &Client, name: &str, key_type: KeyType) -> signer_core::KeyInfo {
    let request = GenerateRequest::new(name.parse().unwrap(), key_type);
    client.create(&soft(), request).await.unwrap()
}

fn message(text: &'static str) -> Input {
    Input::Message(text.into())
}

#[tokio::test]
async fn keys_of_every_kind_sign_with_all_their_algorithms() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for key_type in KeyType::ALL {
        // Making a long RSA key takes seconds, and says nothing about the daemon.
        if key_type == KeyType::Rsa4096 {
            continue;
        }
        let info = create(&client, key_type.name(), key_type).await;
        let reference = format!("soft/{}", info.name.clone().without_version());
        for algorithm in key_type.algorithms() {
            let request = SignRequest::message(*algorithm, "hello");
            for input in
                [Some(request.input().clone()), request.to_digest().map(Input::Digest)].into_iter().flatten()
            {
                let signed = client.sign(&reference, Some(*algorithm), input).await.unwrap();
                assert_eq!(signed.key, format!("soft/{}", info.name));
                let checked = SignRequest::message(*algorithm, "hello");
                info.public_key.verify(*algorithm, checked.input(), signed.signature.as_bytes()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_name_without_a_version_follows_rotation_and_a_deleted_key_is_gone() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "k", KeyType::EcdsaP256).await;
    let first = client.sign("soft/k", None, message("x")).await.unwrap();
    let (_, second) = client.rotate("soft/k").await.unwrap();
    let signed = client.sign("soft/k", None, message("x")).await.unwrap();
    assert_eq!(signed.key, format!("soft/{}", second.name));
    assert_ne!(signed.key, first.key);
    let old = client.sign(&first.key, None, message("x")).await.unwrap();
    assert_eq!(old.key, first.key);
    client.delete("soft/k").await.unwrap();
    for key in ["soft/k", &first.key, &signed.key] {
        let error = client.sign(key, None, message("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}: {error}");
    }
}

#[tokio::test]
async fn a_key_is_imported_and_its_secret_is_nowhere_in_the_log() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let output = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .output()
        .unwrap();
    let key = PrivateKey::read(&output.stdout, None).unwrap();
    let secret = key.pkcs8_der().to_vec();
    let request = ImportRequest::new("imported".parse().unwrap(), key);
    let info = client.import(&soft(), request).await.unwrap();
    let signed = client.sign("soft/imported", None, message("a very confidential message")).await.unwrap();
    let request = SignRequest::message(signed.algorithm, "a very confidential message");
    info.public_key.verify(signed.algorithm, request.input(), signed.signature.as_bytes()).unwrap();

    let passphrase = std::fs::read_to_string(daemon.file("state/soft.passphrase")).unwrap();
    let log = daemon.log();
    assert!(log.contains("import"), "the log is at its loudest: {log}");
    for secret in [passphrase.trim().to_owned(), format!("{:?}", &secret[30..60]).replace(['[', ']'], "")] {
        assert!(!log.contains(&secret));
    }
    assert!(!log.contains("confidential"), "{log}");
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap();
    let arguments = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    for bytes in [environment, arguments] {
        assert!(!String::from_utf8_lossy(&bytes).contains(passphrase.trim()));
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|w| *w == "0").count() == 2, "{core}");
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong_with_them() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "p256", KeyType::EcdsaP256).await;
    create(&client, "ed", KeyType::Ed25519).await;
    let mut raw = pb::signer_service_client::SignerServiceClient::new(channel(&daemon).await);
    let mut ask = async |key: &str, algorithm: &str, input: Option<pb::sign_request::Input>| -> Error {
        let request = pb::SignRequest { key: key.into(), algorithm: algorithm.into(), input };
        signerd_api::error_from_status(&raw.sign(request).await.unwrap_err())
    };
    let digest = |n: usize| Some(pb::sign_request::Input::Digest(vec![7; n]));
    for (key, algorithm, input, kind, part) in [
        ("soft/p256", "", None, ErrorKind::BadRequest, "nothing to sign"),
        ("soft/p256", "ecdsa-sha256", digest(0), ErrorKind::BadRequest, "32 bytes"),
        ("soft/p256", "ecdsa-sha256", digest(31), ErrorKind::BadRequest, "32 bytes"),
        ("soft/p256", "ecdsa-sha256", digest(33), ErrorKind::BadRequest, "32 bytes"),
        ("soft/p256", "ecdsa-sha384", digest(32), ErrorKind::BadRequest, "48 bytes"),
        ("soft/p256", "ed25519", digest(32), ErrorKind::BadRequest, "message itself"),
        ("soft/p256", "rsa-pss-sha256", digest(32), ErrorKind::Unsupported, "ecdsa-sha256"),
        ("soft/p256", "rot13", digest(32), ErrorKind::BadRequest, "rot13"),
        ("soft/ed", "", digest(32), ErrorKind::BadRequest, "message itself"),
        ("", "", digest(32), ErrorKind::BadRequest, "empty"),
        ("soft/", "", digest(32), ErrorKind::BadRequest, "name"),
        ("p256", "", digest(32), ErrorKind::NotFound, "[[key]]"),
        ("hsm/p256", "", digest(32), ErrorKind::NotFound, "no backend hsm"),
        ("soft/nothing", "", digest(32), ErrorKind::NotFound, "no such key"),
        ("pkcs11:object=p256", "", digest(32), ErrorKind::NotFound, "address"),
        ("pkcs11:object=p256?pin-value=1234", "", digest(32), ErrorKind::BadRequest, "PIN"),
    ] {
        let error = ask(key, algorithm, input).await;
        assert_eq!(error.kind(), kind, "{key} {algorithm}: {error}");
        assert!(error.to_string().contains(part), "{key} {algorithm}: {error}");
    }
    let bad = GenerateRequest::new("p256".parse().unwrap(), KeyType::EcdsaP256);
    assert_eq!(client.create(&soft(), bad).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let versioned = GenerateRequest::new("n@2".parse().unwrap(), KeyType::EcdsaP256);
    assert_eq!(client.create(&soft(), versioned).await.unwrap_err().kind(), ErrorKind::BadRequest);
    assert!(
        raw.import_key(pb::ImportKeyRequest {
            key: "soft/i".into(),
            pkcs8: vec![1; 40],
            id: None,
            policy: None
        })
        .await
        .is_err()
    );
}

#[tokio::test]
async fn lists_are_cut_into_pages() {
    let daemon = Daemon::with(&format!(
        "{SOFT}[[backend]]\nname = \"zweit\"\nkind = \"software\"\ndirectory = \"z\"\n{}",
        all_for_me()
    ))
    .await;
    let client = daemon.client();
    for n in 0..5 {
        create(&client, &format!("k{n}"), KeyType::EcdsaP256).await;
    }
    let zweit: BackendName = "zweit".parse().unwrap();
    let request = GenerateRequest::new("z".parse().unwrap(), KeyType::Ed25519);
    client.create(&zweit, request).await.unwrap();
    for size in 1..8 {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let page = client.keys(None, ListRequest { page_size: size, page_token: token }).await.unwrap();
            assert!(page.keys.len() <= size && page.unavailable.is_empty());
            found.extend(
                page.keys
                    .into_iter()
                    .map(|(backend, key)| format!("{backend}/{}", key.name.without_version())),
            );
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(
            found,
            ["soft/k0", "soft/k1", "soft/k2", "soft/k3", "soft/k4", "zweit/z"],
            "{size} a page"
        );
    }
    assert_eq!(client.keys(Some(&zweit), ListRequest::default()).await.unwrap().keys.len(), 1);
    let backends = client.backends().await.unwrap();
    assert_eq!(backends.len(), 2);
    assert!(
        backends.iter().all(|b| b.health.is_none() && b.info.kind == "software" && !b.abilities.is_empty())
    );
}

#[tokio::test]
async fn a_certificate_is_kept_beside_its_key() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let key = daemon.file("key.pem");
    let certificate = daemon.file("certificate.der");
    let status = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=t",
        ])
        .args(["-outform", "DER", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let key = PrivateKey::read(&std::fs::read(key).unwrap(), None).unwrap();
    let certificate = std::fs::read(certificate).unwrap();
    client.import(&soft(), ImportRequest::new("c".parse().unwrap(), key)).await.unwrap();
    client.sign("soft/c", None, message("x")).await.unwrap();
    assert_eq!(client.key_info("soft/c").await.unwrap().1.certificate, None);
    let (_, info) = client.store_certificate("soft/c", &certificate).await.unwrap();
    assert_eq!(info.certificate.as_ref(), Some(&certificate));
    assert_eq!(client.key_info("soft/c").await.unwrap().1.certificate, Some(certificate));
}

#[tokio::test]
async fn a_stream_answers_each_request_by_its_id_and_keeps_errors_to_their_requests() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let info = create(&client, "k", KeyType::EcdsaP256).await;
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    let stream = client.sign_stream("soft/k", algorithm, 100);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500_u32 {
        let stream = stream.clone();
        tasks.spawn(async move {
            let digest = Digest::of(HashAlgorithm::Sha256, &n.to_be_bytes());
            (digest, stream.sign(SignRequest::digest(algorithm, digest).unwrap()).await.unwrap())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (digest, signature) = done.unwrap();
        info.public_key.verify(algorithm, &Input::Digest(digest), signature.as_bytes()).unwrap();
    }

    let mut raw = pb::signer_service_client::SignerServiceClient::new(channel(&daemon).await);
    let request = |id, len| pb::SignStreamRequest {
        key: "soft/k".into(),
        algorithm: String::new(),
        id,
        input: Some(pb::sign_stream_request::Input::Digest(vec![1; len])),
    };
    let requests = [
        request(7, 32),
        request(8, 31),
        request(9, 32),
        pb::SignStreamRequest { id: 10, ..Default::default() },
    ];
    let mut answers = raw.sign_stream(futures_util::stream::iter(requests)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        seen.push((
            answer.id,
            matches!(answer.outcome, Some(pb::sign_stream_response::Outcome::Signature(_))),
        ));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(7, true), (8, false), (9, true), (10, false)]);

    let nothing = client.sign_stream("soft/nothing", algorithm, 4);
    let digest = Digest::of(HashAlgorithm::Sha256, b"x");
    let error = nothing.sign(SignRequest::digest(algorithm, digest).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_stream_follows_rotation() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let first = create(&client, "k", KeyType::EcdsaP256).await;
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    let stream = client.sign_stream("soft/k", algorithm, 4);
    let digest = Digest::of(HashAlgorithm::Sha256, b"x");
    let request = SignRequest::digest(algorithm, digest).unwrap();
    let signature = stream.sign(request.clone()).await.unwrap();
    first.public_key.verify(algorithm, request.input(), signature.as_bytes()).unwrap();
    let (_, second) = client.rotate("soft/k").await.unwrap();
    let signature = stream.sign(request.clone()).await.unwrap();
    second.public_key.verify(algorithm, request.input(), signature.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let mut daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "rsa", KeyType::Rsa2048).await;
    let hurried = daemon.client().timeout(std::time::Duration::from_millis(1));
    let begin = std::time::Instant::now();
    let request = GenerateRequest::new("late".parse().unwrap(), KeyType::Rsa4096);
    let error = hurried.create(&soft(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.is_uncertain(), "{error}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(2));
    assert!(daemon.stop().await.success());
    daemon.launch(&[]);
    daemon.ready().await;
    // The first signature decrypts the key, which takes longer than that.
    let error = hurried.sign("soft/rsa", None, message("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    client.sign("soft/rsa", None, message("x")).await.unwrap();
}

#[tokio::test]
async fn watchers_are_told_what_happens() {
    use signerd_api::Happening;
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let mut events = client.watch(None).await.unwrap();
    create(&client, "k", KeyType::EcdsaP256).await;
    client.rotate("soft/k").await.unwrap();
    client.delete("soft/k").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match events.next().await.unwrap().unwrap().happening {
            Happening::KeyCreated(key) | Happening::KeyRotated(key) | Happening::KeyDeleted(key) => {
                seen.push(key);
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["soft/k@1", "soft/k@2", "soft/k"]);
    daemon.reload(&format!("{SOFT}{}", all_for_me())).await;
    loop {
        if matches!(events.next().await.unwrap().unwrap().happening, Happening::ConfigurationReloaded) {
            break;
        }
    }
}

#[tokio::test]
async fn health_is_told_for_the_daemon_its_backends_and_keys() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let daemon =
        Daemon::with(&format!("{SOFT}[[key]]\nname = \"release\"\nmembers = [\"soft/k\"]\n{}", all_for_me()))
            .await;
    let client = daemon.client();
    create(&client, "k", KeyType::EcdsaP256).await;
    let mut health = HealthClient::new(channel(&daemon).await);
    let mut check = async |name: &str| {
        let request = HealthCheckRequest { service: name.into() };
        health.check(request).await.map(|a| a.into_inner().status())
    };
    for name in ["", "backend/soft", "key/soft/k", "key/release"] {
        assert_eq!(check(name).await.unwrap(), ServingStatus::Serving, "{name}");
    }
    for name in ["backend/hsm", "key/soft/nothing", "key/nothing", "nothing"] {
        assert_eq!(check(name).await.unwrap_err().code(), tonic::Code::NotFound, "{name}");
    }
    // The key files go away behind the daemon's back.
    std::fs::rename(daemon.file("state/keys"), daemon.file("away")).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while check("backend/soft").await.unwrap() == ServingStatus::Serving {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    let backends = client.backends().await.unwrap();
    assert!(backends[0].health.is_some());
    std::fs::rename(daemon.file("away"), daemon.file("state/keys")).unwrap();
    while check("key/soft/k").await.ok() != Some(ServingStatus::Serving) {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let daemon = Daemon::start().await;
    let mut client = ServerReflectionClient::new(channel(&daemon).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!()
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    for name in ["signerd.v1.SignerService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
}

/// A remote backend passes for a local one.
#[tokio::test]
async fn a_remote_key_is_a_signer() {
    let daemon = Daemon::start().await;
    create(&daemon.client(), "k", KeyType::Ed25519).await;
    let backend = daemon.client().backend(&soft()).await.unwrap();
    let signer = backend.open(&"k".parse().unwrap()).await.unwrap();
    signer.health().await.unwrap();
    signer.sign(SignRequest::message(SignatureAlgorithm::Ed25519, "x")).await.unwrap();
}

async fn channel(daemon: &Daemon) -> tonic::transport::Channel {
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("unix:{}", daemon.socket().display())).unwrap();
    endpoint.connect().await.unwrap()
}
