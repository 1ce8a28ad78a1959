//! The signature log as its callers see it.
#![allow(clippy::unwrap_used)] // tests

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    log::{ENTRIES, LogServer, Signatory},
    programs,
};
use serde_json::{Value, json};
use signer_contract::PinSetup;
use signer_core::{KeyType, PublicKey};
use signer_log_engine::{Checkpoint, Hash, NoteKey, leaf_hash, verify_inclusion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Setup {
    daemon: Daemon,
    log: LogServer,
    key: NoteKey,
    _engine: Software,
}

async fn setup(key_type: KeyType, arguments: &[&str]) -> Setup {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    let info = daemon.make_key_of("soft", "log", key_type).await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", arguments).await;
    let key = NoteKey::of_log("log.example", info.public_key).unwrap();
    Setup { daemon, log, key, _engine: engine }
}

fn hash(value: &Value) -> Hash {
    STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_comes_back_with_its_proof() {
    for key_type in [KeyType::Ed25519, KeyType::EcdsaP256] {
        let Setup { log, key, daemon: _daemon, _engine } = setup(key_type, &[]).await;
        let (signatory, mut caller) = (Signatory::default(), log.caller());
        for i in 0..5_u64 {
            let request = signatory.request(format!("artifact {i}").as_bytes());
            let answer = caller.post(ENTRIES, request.to_string().as_bytes()).await.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
            let entry = answer.json();
            assert_eq!(number(&entry["logIndex"]), i);
            assert_eq!(hash(&entry["logId"]["keyId"]), *key.id());
            assert_eq!(entry["kindVersion"], json!({"kind": "hashedrekord", "version": "0.0.2"}));
            assert_eq!((&entry["integratedTime"], &entry["inclusionPromise"]), (&json!("0"), &Value::Null));
            let body = STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap()).unwrap();
            let proof = &entry["inclusionProof"];
            let checkpoint = proof["checkpoint"]["envelope"].as_str().unwrap();
            let checkpoint = Checkpoint::verified(checkpoint.as_bytes(), &key).unwrap();
            assert_eq!(
                (checkpoint.size, checkpoint.root),
                (number(&proof["treeSize"]), hash(&proof["rootHash"]))
            );
            let hashes: Vec<_> = proof["hashes"].as_array().unwrap().iter().map(hash).collect();
            verify_inclusion(&leaf_hash(&body), i, checkpoint.size, &hashes, &checkpoint.root).unwrap();
            // The same again.
            let again = caller.post(ENTRIES, request.to_string().as_bytes()).await.unwrap();
            assert_eq!(
                (again.status, again.header("x-log-index")),
                (409, Some(&*i.to_string())),
                "{}",
                again.text()
            );
            assert_eq!(again.json()["code"], 6);
        }
        for prefix in ["/api/v2", ""] {
            let tile = caller.get(&format!("{prefix}/tile/0/000.p/5")).await.unwrap();
            assert_eq!((tile.status, tile.body.len()), (200, 160));
            assert!(tile.header("cache-control").unwrap().contains("immutable"));
            assert_eq!(tile.header("access-control-allow-origin"), Some("*"));
            // Earlier forms are its beginning; what is not published is not there.
            assert_eq!(caller.get(&format!("{prefix}/tile/0/000.p/2")).await.unwrap().body, tile.body[..64]);
            for absent in [
                "tile/0/000.p/6",
                "tile/0/000",
                "tile/0/001.p/1",
                "tile/1/000.p/1",
                "tile/data/000.p/5",
                "tile/x",
            ] {
                assert_eq!(caller.get(&format!("{prefix}/{absent}")).await.unwrap().status, 404, "{absent}");
            }
            let bundle = caller.get(&format!("{prefix}/tile/entries/000.p/3")).await.unwrap();
            let first = usize::from(u16::from_be_bytes([bundle.body[0], bundle.body[1]]));
            assert_eq!(leaf_hash(&bundle.body[2..2 + first]), tile.body[..32]);
            let checkpoint = caller.get(&format!("{prefix}/checkpoint")).await.unwrap();
            assert_eq!(Checkpoint::verified(&checkpoint.body, &key).unwrap().size, 5);
            assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
        }
        for secret in ["/.state/log.json", "/../etc/passwd", "/.state/lock", "/tile/../.state/lock"] {
            assert_eq!(caller.get(secret).await.unwrap().status, 404, "{secret}");
        }
        assert_eq!(caller.get("/healthz").await.unwrap().json()["status"], "SERVING");
        assert!(caller.get("/openapi.json").await.unwrap().json()["paths"][ENTRIES].is_object());
    }
}

/// Sets a field of a request to something else.
fn changed(request: &Value, path: &str, value: Value) -> Value {
    let mut request = request.clone();
    *request.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_one_sentence() {
    let Setup { log, key: _, daemon: _daemon, _engine } = setup(KeyType::EcdsaP256, &[]).await;
    let signatory = Signatory::default();
    let good = signatory.request(b"artifact");
    let other = signatory.request(b"another");
    let top = "/hashedRekordRequestV002";
    let signature = format!("{top}/signature");
    let verifier = format!("{signature}/verifier");
    let mut long = vec![0x30, 0x83, 0x01, 0, 0];
    long.resize(65_541, 0);
    let mut bad: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("no object", "[]".into()),
        ("null", "null".into()),
        ("cut off", good.to_string()[..100].to_owned()),
        ("not UTF-8", "{\"\u{fffd}".into()),
        ("deep", "[".repeat(100_000)),
        ("empty", "{}".into()),
        ("both kinds", json!({"hashedRekordRequestV002": {}, "dsseRequestV002": {}}).to_string()),
        ("an old kind", json!({"intotoRequestV002": {}}).to_string()),
        ("dsse, empty", json!({"dsseRequestV002": {}}).to_string()),
        (
            "dsse without signatures",
            json!({"dsseRequestV002": {"envelope": {"payload": "AA=="}, "verifiers": [{}]}}).to_string(),
        ),
        (
            "dsse without verifiers",
            json!({"dsseRequestV002": {"envelope": {"signatures": [{"sig": "AA=="}]}}}).to_string(),
        ),
    ];
    let wrong: Vec<(&str, String, Value)> = vec![
        ("digest missing", format!("{top}/digest"), Value::Null),
        ("digest short", format!("{top}/digest"), json!("AAAA")),
        ("digest not base64", format!("{top}/digest"), json!("***")),
        ("digest a number", format!("{top}/digest"), json!(7)),
        (
            "digest of something else",
            format!("{top}/digest"),
            other.pointer("/hashedRekordRequestV002/digest").unwrap().clone(),
        ),
        ("no signature", signature.clone(), Value::Null),
        ("signature a text", signature.clone(), json!("x")),
        ("content empty", format!("{signature}/content"), json!("")),
        ("content not a signature", format!("{signature}/content"), json!("AAAA")),
        (
            "content of something else",
            format!("{signature}/content"),
            other.pointer("/hashedRekordRequestV002/signature/content").unwrap().clone(),
        ),
        ("no verifier", verifier.clone(), Value::Null),
        ("verifier empty", verifier.clone(), json!({})),
        ("verifier unknown field", verifier.clone(), json!({"x": 1})),
        ("no key", format!("{verifier}/publicKey"), Value::Null),
        ("key empty", format!("{verifier}/publicKey"), json!({})),
        ("key not a key", format!("{verifier}/publicKey/rawBytes"), json!("AAAA")),
        ("key too long", format!("{verifier}/publicKey/rawBytes"), json!(STANDARD.encode(&long))),
        ("details unknown", format!("{verifier}/keyDetails"), json!("RSA")),
        ("details unset", format!("{verifier}/keyDetails"), json!(0)),
        ("details negative", format!("{verifier}/keyDetails"), json!(-1)),
        ("details huge", format!("{verifier}/keyDetails"), json!(4_000_000_000_u32)),
        ("details of another curve", format!("{verifier}/keyDetails"), json!("PKIX_ECDSA_P384_SHA_384")),
        ("details not taken on", format!("{verifier}/keyDetails"), json!("PKIX_ED25519")),
    ];
    bad.extend(wrong.into_iter().map(|(name, path, value)| (name, changed(&good, &path, value).to_string())));
    for certificate in [&b""[..], b"\x30\x00", &long, b"\x30\x80\x00\x00"] {
        let with = json!({"x509Certificate": {"rawBytes": STANDARD.encode(certificate)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"});
        bad.push(("a certificate that is none", changed(&good, &verifier, with).to_string()));
    }
    let mut caller = log.caller();
    for (name, body) in &bad {
        let answer = caller.post(ENTRIES, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["code"], 3, "{name}");
        assert!(
            answer["message"].as_str().is_some_and(|m| m.len() > 15 && !m.contains('\n')),
            "{name}: {answer}"
        );
        assert!(answer["details"].is_array());
    }
    let answer = caller.post_as(ENTRIES, "text/xml", good.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(caller.post("/api/v2/log", b"{}").await.unwrap().status, 404);
    let answer = caller.post(ENTRIES, &vec![b' '; (4 << 20) + 1]).await;
    assert!(answer.is_err() || answer.unwrap().status == 413, "a body that is too long");
    // Nothing of all that is in the log, and it goes on.
    let answer = log.caller().post(ENTRIES, good.to_string().as_bytes()).await.unwrap();
    assert_eq!((answer.status, &answer.json()["logIndex"]), (201, &json!("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_are_logged_when_every_signature_verifies() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let Setup { log, key: _, daemon: _daemon, _engine } = setup(KeyType::Ed25519, &[]).await;
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let key = PublicKey::from_ec_point(KeyType::EcdsaP256, pair.public_key().as_ref()).unwrap();
    let payload = b"{\"_type\":\"https://in-toto.io/Statement/v1\"}";
    let pae = [b"DSSEv1 28 application/vnd.in-toto+json 43 ", &payload[..]].concat();
    let sign =
        |message: &[u8]| STANDARD.encode(pair.sign(&aws_lc_rs::rand::SystemRandom::new(), message).unwrap());
    let request = |signature: String| {
        json!({"dsseRequestV002": {
            "envelope": {"payload": STANDARD.encode(payload), "payloadType": "application/vnd.in-toto+json",
                         "signatures": [{"sig": signature, "keyid": ""}]},
            "verifiers": [{"publicKey": {"rawBytes": STANDARD.encode(key.as_der())}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}],
        }})
        .to_string()
    };
    let mut caller = log.caller();
    let answer = caller.post(ENTRIES, request(sign(&pae)).as_bytes()).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let entry = answer.json();
    assert_eq!(entry["kindVersion"]["kind"], "dsse");
    let body: Value =
        serde_json::from_slice(&STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap()).unwrap())
            .unwrap();
    assert_eq!(body["spec"]["dsseV002"]["payloadHash"]["algorithm"], "SHA2_256");
    assert_eq!(
        body["spec"]["dsseV002"]["signatures"][0]["verifier"]["keyDetails"],
        "PKIX_ECDSA_P256_SHA_256"
    );
    assert_eq!(caller.post(ENTRIES, request(sign(payload)).as_bytes()).await.unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_asks_too_often_is_told_when_to_come_back() {
    let Setup { log, key: _, daemon: _daemon, _engine } =
        setup(KeyType::Ed25519, &["--rate-limit", "5"]).await;
    let (signatory, mut caller) = (Signatory::default(), log.caller());
    let mut statuses = Vec::new();
    for i in 0..30 {
        let answer = caller.post(ENTRIES, signatory.request(&[i]).to_string().as_bytes()).await.unwrap();
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
        }
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&201) && statuses.contains(&429), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_broken_callers_hold_nobody_up() {
    let Setup { log, key: _, daemon: _daemon, _engine } = setup(KeyType::Ed25519, &[]).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(log.address()).await.unwrap();
        stream
            .write_all(
                format!("POST {ENTRIES} HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n{{").as_bytes(),
            )
            .await
            .unwrap();
        slow.push(stream);
    }
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9\r\n\r\n", b"POST\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(log.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{garbage:?} is not answered");
    }
    let request = Signatory::default().request(b"x").to_string();
    let mut caller = log.caller();
    let answer = caller.post(ENTRIES, request.as_bytes());
    let answer =
        tokio::time::timeout(Duration::from_secs(5), answer).await.expect("others are served").unwrap();
    assert_eq!(answer.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_log_is_read_and_not_written() {
    let Setup { daemon, mut log, key, _engine } = setup(KeyType::Ed25519, &[]).await;
    let (signatory, mut caller) = (Signatory::default(), log.caller());
    assert_eq!(
        caller.post(ENTRIES, signatory.request(b"x").to_string().as_bytes()).await.unwrap().status,
        201
    );
    let busy = programs::output(log.command().arg("freeze").arg("--storage").arg(log.storage()));
    assert_eq!(busy.status.code(), Some(3), "{}", programs::text(&busy));
    assert!(log.stop().success());
    for _ in 0..2 {
        programs::must(log.command().arg("freeze").arg("--storage").arg(log.storage()));
    }
    log.launch();
    log.ready().await;
    let mut caller = log.caller();
    let answer = caller.post(ENTRIES, signatory.request(b"y").to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.status, 405, "{}", answer.text());
    assert!(answer.text().contains("This log has been frozen"));
    let checkpoint =
        Checkpoint::verified(&caller.get("/api/v2/checkpoint").await.unwrap().body, &key).unwrap();
    assert_eq!(checkpoint.size, 1);
    assert!(checkpoint.extensions[0].starts_with("Log frozen — "), "{checkpoint:?}");
    assert_eq!(log.check(), (vec![], 1));
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_the_official_types() {
    use sigstore_protobuf_specs::dev::sigstore::{
        common::v1::PublicKeyDetails,
        rekor::{
            v1::TransparencyLogEntry,
            v2::{
                CreateEntryRequest, HashedRekordRequestV002, PublicKey, Signature, Verifier,
                create_entry_request::Spec, verifier,
            },
        },
    };
    let Setup { log, key, daemon: _daemon, _engine } = setup(KeyType::Ed25519, &[]).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", log.address()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let json = Signatory::default().request(b"over gRPC");
    let bytes = |path: &str| {
        STANDARD
            .decode(json.pointer(&format!("/hashedRekordRequestV002/{path}")).unwrap().as_str().unwrap())
            .unwrap()
    };
    let request = CreateEntryRequest {
        spec: Some(Spec::HashedRekordRequestV002(HashedRekordRequestV002 {
            digest: bytes("digest"),
            signature: Some(Signature {
                content: bytes("signature/content"),
                verifier: Some(Verifier {
                    key_details: PublicKeyDetails::PkixEcdsaP256Sha256.into(),
                    verifier: Some(verifier::Verifier::PublicKey(PublicKey {
                        raw_bytes: bytes("signature/verifier/publicKey/rawBytes"),
                    })),
                }),
            }),
        })),
    };
    let mut client = tonic::client::Grpc::new(channel.clone());
    let mut call = async |request: CreateEntryRequest| {
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<CreateEntryRequest, TransparencyLogEntry>::default();
        let path =
            tonic::codegen::http::uri::PathAndQuery::from_static("/dev.sigstore.rekor.v2.Rekor/CreateEntry");
        client.unary(tonic::Request::new(request), path, codec).await
    };
    let entry = call(request.clone()).await.unwrap().into_inner();
    let proof = entry.inclusion_proof.unwrap();
    let checkpoint = Checkpoint::verified(proof.checkpoint.unwrap().envelope.as_bytes(), &key).unwrap();
    let hashes: Vec<Hash> = proof.hashes.into_iter().map(|h| h.try_into().unwrap()).collect();
    verify_inclusion(&leaf_hash(&entry.canonicalized_body), 0, checkpoint.size, &hashes, &checkpoint.root)
        .unwrap();
    let again = call(request).await.unwrap_err();
    assert_eq!(
        (again.code(), again.metadata().get("x-log-index").unwrap().to_str().unwrap()),
        (tonic::Code::AlreadyExists, "0")
    );
    assert_eq!(call(CreateEntryRequest::default()).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "dev.sigstore.rekor.v2.Rekor".into() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
}
