//! The page that people look at, in Chromium and by hand.
#![allow(clippy::unwrap_used)] // tests

use std::{process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hwtests::{
    authority::{Authority, LEAF},
    daemon::Daemon,
    engines::{Engine as _, Software},
    eventually,
    log::{Answer, ENTRIES, LogServer, Signatory},
    programs,
};
use serde_json::{Value, json};
use signer_contract::PinSetup;
use signer_core::{Digest, HashAlgorithm};
use signer_log_engine::Checkpoint;

const PATIENCE: Duration = Duration::from_secs(20);
/// What nobody should write into a certificate, for openssl's configuration.
const HOSTILE: &str = "subjectAltName=critical,@names\n1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:<svg onload=alert(3)>\n[names]\nURI.1=https://x.example/\\\"><script>alert(1)</script>\nemail.1=<script>alert(2)</script>@example.test\n";
const HOSTILE_SUBJECT: &str = "/O=<img src=x onerror=alert(4)>/CN=<script>alert(5)<\\/script>";

async fn daemon() -> (Software, Daemon) {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "log").await;
    (engine, daemon)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Digest::of(HashAlgorithm::Sha256, bytes).as_bytes())
}

async fn post(log: &LogServer, path: &str, request: &str) -> Answer {
    let answer = log.caller().post(path, request.as_bytes()).await.unwrap();
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer
}

/// A request for the signature log by somebody with a certificate.
fn with_certificate(authority: &Authority, name: &str, artifact: &str) -> String {
    let file = authority.path("artifact");
    std::fs::write(&file, artifact).unwrap();
    let key = authority.path(&format!("{name}.key"));
    let signed =
        programs::output(Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg(&file));
    let digest = Digest::of(HashAlgorithm::Sha256, artifact.as_bytes());
    json!({"hashedRekordRequestV002": {"digest": STANDARD.encode(digest.as_bytes()), "signature": {
        "content": STANDARD.encode(signed.stdout),
        "verifier": {"x509Certificate": {"rawBytes": STANDARD.encode(authority.der(name))}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}}})
    .to_string()
}

fn authority() -> Authority {
    let authority = Authority::new();
    let named = format!(
        "{LEAF}subjectAltName=critical,email:dev@example.test\n1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:https://accounts.example\n1.3.6.1.4.1.57264.1.12=ASN1:UTF8String:https://github.com/acme/tool\n"
    );
    authority.issue("dev", "intermediate", "/CN=dev", &named);
    authority.issue("hostile", "intermediate", HOSTILE_SUBJECT, &format!("{LEAF}{HOSTILE}"));
    authority
}

/// Waits until the search index has everything.
async fn indexed(log: &LogServer, query: &str) {
    let there = eventually(PATIENCE, async || {
        let answer = log.caller().get(&format!("/ui/search?q={query}")).await.unwrap();
        answer.status == 200 && answer.text().contains("/ui/entry/")
    });
    assert!(there.await, "the search index does not find {query}");
}

/// The size and root of a log, from its checkpoint.
async fn tree(log: &LogServer, path: &str) -> (u64, String) {
    let note = log.caller().get(path).await.unwrap().text();
    let text = format!("{}\n", note.split("\n\n").next().unwrap());
    let checkpoint = Checkpoint::from_text(&text).unwrap();
    (checkpoint.size, hex::encode(checkpoint.root))
}

/// Walks through the page in Chromium.
fn walk(log: &LogServer, known: &Value) {
    let folder = programs::playwright();
    let output = programs::output(
        Command::new(programs::system("node", "nodejs"))
            .arg(programs::source("hwtests/page/walk.mjs"))
            .arg(folder)
            .arg(log.url())
            .arg(known.to_string()),
    );
    assert!(output.status.success(), "{}", programs::text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_log_is_looked_at_in_chromium() {
    let (_engine, daemon) = daemon().await;
    let authority = authority();
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let signatory = Signatory::default();
    for i in 0..40 {
        post(&log, ENTRIES, &signatory.request(format!("artifact {i}").as_bytes()).to_string()).await;
    }
    post(&log, ENTRIES, &with_certificate(&authority, "dev", "by dev")).await;
    post(&log, ENTRIES, &with_certificate(&authority, "hostile", "by somebody")).await;
    let last = signatory.request(b"the last").to_string();
    let last = post(&log, ENTRIES, &last).await.json();
    let leaf =
        sha256(&[&[0], &STANDARD.decode(last["canonicalizedBody"].as_str().unwrap()).unwrap()[..]].concat());
    indexed(&log, &sha256(b"the last")).await;
    let (size, root) = tree(&log, "/api/v2/checkpoint").await;
    walk(
        &log,
        &json!({
            "origin": "log.example", "size": size, "root": root, "index": 42,
            "hashes": [sha256(b"the last"), format!("sha256:{}", sha256(b"the last")), leaf, signatory.fingerprint()],
            "identity": "dev@example.test", "of": 40,
            "hostile": ["/ui/entry/41", "/ui/search?q=%22%3E%3Cscript%3Ealert(6)%3C%2Fscript%3E", "/ui/search?q=x.example"],
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_log_is_looked_at_in_chromium() {
    let (_engine, daemon) = daemon().await;
    let authority = authority();
    let roots = authority.path("root.pem");
    let arguments = ["--roots", roots.to_str().unwrap()];
    let log = LogServer::start(&daemon, "log", "certificate", "soft/log", &arguments).await;
    for name in ["dev", "hostile"] {
        post(&log, "/ct/v1/add-chain", &authority.chain(name)).await;
    }
    let poison =
        "subjectAltName=critical,email:dev@example.test\n1.3.6.1.4.1.11129.2.4.3=critical,ASN1:NULL\n";
    authority.issue("pre", "intermediate", "/CN=pre", &format!("{LEAF}{poison}"));
    post(&log, "/ct/v1/add-pre-chain", &authority.chain("pre")).await;
    indexed(&log, "x.example").await;
    let (size, root) = tree(&log, "/checkpoint").await;
    let script = format!(
        "openssl x509 -in {} -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum",
        authority.path("dev.pem").display()
    );
    let fingerprint = programs::must(Command::new("sh").args(["-c", &script]));
    walk(
        &log,
        &json!({
            "origin": "log.example", "size": size, "root": root, "index": 0,
            "hashes": [fingerprint.split(' ').next().unwrap()],
            "identity": "dev@example.test", "of": 0,
            "hostile": ["/ui/entry/1", "/ui/search?q=x.example"],
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_its_headers_and_can_be_switched_off() {
    let (_engine, daemon) = daemon().await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let empty = log.caller().get("/").await.unwrap();
    assert!(empty.text().contains("The log has no entries yet"), "{}", empty.text());
    let signatory = Signatory::default();
    for i in 0..3 {
        post(&log, ENTRIES, &signatory.request(&[i]).to_string()).await;
    }
    for path in
        ["/", "/ui/", "/ui/entry/0", "/ui/checkpoints", "/ui/search?q=1", "/ui/nothing", "/ui/entry/x"]
    {
        let answer = log.caller().get(path).await.unwrap();
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        assert!(answer.text().starts_with("<!DOCTYPE html>") && !answer.text().contains("<script"), "{path}");
    }
    let odd = [
        "/ui/entry/18446744073709551615",
        "/ui/checkpoint/18446744073709551615",
        "/?before=18446744073709551615",
        "/ui/search?q=%ff%fe%00",
        "/ui/search?q=18446744073709551615",
        "/ui/search?q=%25_%5c",
        "/ui/checkpoints?before=0",
    ];
    for path in odd {
        let answer = log.caller().get(path).await.unwrap();
        assert!(matches!(answer.status, 200 | 404), "{path}: {}", answer.status);
    }
    // The APIs are where they were.
    assert_eq!(log.caller().get("/api/v2/checkpoint").await.unwrap().status, 200);
    assert_eq!(log.caller().get("/checkpoint").await.unwrap().status, 200);

    // A tile that was changed: the page does not say yes.
    let damaged = log.storage().join("tile/entries/000.p/3");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let entry = log.caller().get("/ui/entry/2").await.unwrap().text();
    assert!(entry.contains("Not proven") && !entry.contains("Yes. Computed"), "{entry}");

    let off = LogServer::start(&daemon, "off", "signature", "soft/log", &["--no-page"]).await;
    for path in ["/", "/ui/", "/ui/style.css"] {
        assert_eq!(off.caller().get(path).await.unwrap().status, 404, "{path}");
    }
    let plain = LogServer::start(&daemon, "plain", "signature", "soft/log", &["--no-search-index"]).await;
    post(&plain, ENTRIES, &signatory.request(b"x").to_string()).await;
    let answer = plain.caller().get("/ui/search?q=someone").await.unwrap().text();
    assert!(answer.contains("keeps no search index"), "{answer}");
    assert_eq!(plain.caller().get("/ui/entry/0").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_index_is_made_anew_when_it_is_lost_or_damaged() {
    let (_engine, daemon) = daemon().await;
    let mut log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let signatory = Signatory::default();
    for i in 0..30 {
        post(&log, ENTRIES, &signatory.request(format!("artifact {i}").as_bytes()).to_string()).await;
    }
    indexed(&log, &sha256(b"artifact 29")).await;
    let file = log.storage().join(".state/search.sqlite");
    assert!(log.stop().success());
    for damage in ["lost", "damaged"] {
        match damage {
            "lost" => std::fs::remove_file(&file).unwrap(),
            _ => {
                std::fs::write(&file, "this is no database, and longer than its header would be".repeat(200))
                    .unwrap();
            }
        }
        log.launch();
        log.ready().await;
        indexed(&log, &sha256(b"artifact 3")).await;
        assert!(log.stop().success(), "{damage}");
    }
}
