//! The monitor, with our logs running: what it reports, and what it does when a log is not what it was.
#![allow(clippy::unwrap_used)] // tests

use std::{collections::BTreeMap, io::Write, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hwtests::{
    authority::{Authority, LEAF},
    daemon::Daemon,
    engines::{Engine as _, Software},
    eventually,
    log::{ENTRIES, LogServer, Signatory},
    monitor::{Monitor, lines},
    programs,
    webhook::Webhook,
};
use serde_json::Value;
use signer_contract::PinSetup;
use signer_core::{Digest, HashAlgorithm, PublicKey};
use signer_log_engine::{Checkpoint, NoteKey, verify_consistency};

const PATIENCE: Duration = Duration::from_secs(30);

async fn daemon() -> (Software, Daemon) {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    daemon.make_key("soft", "log").await;
    (engine, daemon)
}

async fn signature_log() -> (Software, Daemon, LogServer) {
    let (engine, daemon) = daemon().await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    (engine, daemon, log)
}

/// Puts an artifact into a signature log; gives its index.
async fn add(log: &LogServer, signatory: &Signatory, artifact: &str) -> u64 {
    let request = signatory.request(artifact.as_bytes()).to_string();
    let answer = log.caller().post(ENTRIES, request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["logIndex"].as_str().unwrap().parse().unwrap()
}

/// Adds entries by others.
async fn fill(log: &LogServer, count: u32, what: &str) {
    let signatory = Signatory::default();
    for i in 0..count {
        add(log, &signatory, &format!("{what} {i}")).await;
    }
}

/// A monitor of a log at a location, with its state in the daemon's folder.
fn monitor(
    daemon: &Daemon,
    name: &str,
    log: &LogServer,
    kind: &str,
    location: &str,
    more: &[&str],
) -> Monitor {
    monitor_of(daemon, name, &log.public_key(), kind, location, more)
}

fn monitor_of(daemon: &Daemon, name: &str, key: &Path, kind: &str, location: &str, more: &[&str]) -> Monitor {
    let which = Monitor::log(location, kind, "log.example", key);
    let arguments: Vec<&str> = which.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Monitor::new(&daemon.folder().join(name), &arguments)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Digest::of(HashAlgorithm::Sha256, bytes).as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_digests_of_a_signature_log_are_reported_once() {
    let (_engine, daemon, log) = signature_log().await;
    let ours = Signatory::default();
    fill(&log, 300, "others").await;
    let mine = add(&log, &ours, "mine").await;
    let request =
        ["--fingerprint", &ours.fingerprint(), "--digest", &format!("sha256:{}", sha256(b"others 7"))];
    let over_http = monitor(&daemon, "http", &log, "signature", &log.url(), &request);
    let folder = monitor(&daemon, "folder", &log, "signature", log.storage().to_str().unwrap(), &request);
    let found = over_http.reports();
    let indices: Vec<_> = found.iter().map(|r| r["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [7, mine]);
    let report = &found[1];
    assert_eq!((&report["event"], &report["log"]), (&"match".into(), &"log.example".into()));
    assert_eq!(report["rules"][0]["found"][0]["value"], ours.fingerprint().as_str());
    assert_eq!(report["entry"]["signers"][0]["fingerprint"], ours.fingerprint().as_str());
    assert_eq!(report["entry"]["digests"][0]["digest"], sha256(b"mine").as_str());
    assert_eq!(report["checkpoint"]["size"], mine + 1);
    // Whoever reads it from elsewhere finds the same, by the same identifiers.
    let ids = |found: &[Value]| found.iter().map(|r| r["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&folder.reports()), ids(&found));
    assert_eq!((over_http.reports(), folder.reports()), (vec![], vec![]), "each once");
    // The log goes on; the middle of a tile is where it goes on from.
    let again = add(&log, &ours, "mine again").await;
    fill(&log, 3, "more").await;
    for monitor in [&over_http, &folder] {
        let found = monitor.reports();
        assert_eq!(found.iter().map(|r| r["index"].as_u64().unwrap()).collect::<Vec<_>>(), [again]);
    }
    // From today on: nothing of before.
    let later = [&request[..], &["--from", "now"]].concat();
    let later = monitor(&daemon, "later", &log, "signature", &log.url(), &later);
    assert_eq!(later.reports(), Vec::<Value>::new());
    let last = add(&log, &ours, "the last").await;
    let output = later.once(&["--fail-on-match"]);
    assert_eq!(output.status.code(), Some(6), "{}", programs::text(&output));
    assert_eq!(lines(&String::from_utf8_lossy(&output.stdout))[0]["index"], last);
    assert_eq!(later.once(&["--fail-on-match"]).status.code(), Some(0));
    // From an index on.
    let from = [&request[..], &["--from", "299"]].concat();
    let found = monitor(&daemon, "from", &log, "signature", &log.url(), &from).reports();
    assert_eq!(found.iter().map(|r| r["index"].as_u64().unwrap()).collect::<Vec<_>>(), [mine, again, last]);
}

/// A web server that gives the tiles of entries as gzip has made them.
const COMPRESSING: &str = r#"
import gzip, http.server, sys
class Files(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        try:
            body, status = open("." + self.path, "rb").read(), 200
        except OSError:
            body, status = b"", 404
        self.send_response(status)
        if status == 200 and "/tile/data/" in self.path:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Files).serve_forever()
"#;

const ISSUER: &str = "1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:";

#[tokio::test(flavor = "multi_thread")]
async fn identities_issuers_and_extensions_of_both_logs_are_reported() {
    let (_engine, daemon) = daemon().await;
    daemon.make_key("soft", "ct").await;
    let authority = Authority::new();
    let roots = authority.path("root.pem");
    let ct = LogServer::start(&daemon, "ct", "certificate", "soft/ct", &["--roots", roots.to_str().unwrap()])
        .await;
    let issue = |name: &str, san: &str, issuer: &str, more: &str| {
        let extensions = format!("{LEAF}subjectAltName=critical,{san}\n{ISSUER}{issuer}\n{more}");
        authority.issue(name, "intermediate", &format!("/CN={name}"), &extensions);
        authority.chain(name)
    };
    let accounts = "https://accounts.example";
    let poison = "1.3.6.1.4.1.11129.2.4.3=critical,ASN1:NULL\n";
    let chains = [
        ("add-chain", issue("0", "email:dev@example.com", accounts, "")),
        ("add-chain", issue("1", "email:dev@example.com.evil.test", accounts, "")),
        ("add-pre-chain", issue("2", "email:Release@Example.com", accounts, poison)),
        (
            "add-chain",
            issue(
                "3",
                "URI:https://github.com/acme/tool/.github/w.yml@refs/heads/main",
                "https://ci.example",
                "1.3.6.1.4.1.57264.1.12=ASN1:UTF8String:https://github.com/acme/tool\n",
            ),
        ),
        ("add-chain", issue("4", "email:dev@example.com", "https://evil.example", "1.2.3.4=DER:0102\n")),
        (
            "add-chain",
            issue(
                "5",
                "DNS:build.example.com,IP:127.0.0.1,otherName:1.3.6.1.4.1.57264.1.7;UTF8:dev!example.com",
                accounts,
                "",
            ),
        ),
    ];
    for (path, chain) in &chains {
        let answer = ct.caller().post(&format!("/ct/v1/{path}"), chain.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let found = |name: &str, arguments: &[&str]| {
        let monitor = monitor(&daemon, name, &ct, "certificate", &ct.url(), arguments);
        monitor.reports().iter().map(|r| r["index"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found("a", &["--certificate-identity", "*@example.com"]), [0, 2, 4]);
    assert_eq!(
        found("b", &["--certificate-identity", "*@example.com", "--certificate-oidc-issuer", accounts]),
        [0, 2]
    );
    assert_eq!(found("c", &["--certificate-identity-regexp", "^https://github\\.com/acme/"]), [3]);
    assert_eq!(found("d", &["--extension", "source-repository-uri=https://github.com/acme/*"]), [3]);
    assert_eq!(found("e", &["--extension", "1.2.3.4=hex:0102"]), [4]);
    assert_eq!(found("f", &["--certificate-identity", "BUILD.example.com"]), [5]);
    assert_eq!(found("g", &["--certificate-identity", "dev!example.com"]), [5]);
    assert_eq!(found("h", &["--certificate-subject", "CN=1"]), [1]);
    let spki = programs::must(
        std::process::Command::new("sh")
            .args(["-c", &format!("openssl x509 -in {} -noout -pubkey", authority.path("2.pem").display())]),
    );
    let fingerprint = sha256(PublicKey::from_pem(&spki).unwrap().as_der());
    assert_eq!(found("i", &["--fingerprint", &fingerprint]), [2]);

    // As static-ct logs are served from buckets: entries are stored compressed, whatever is asked for.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = std::process::Command::new(programs::system("setpriv", "util-linux"));
    command.args(["--pdeathsig", "KILL", "--", "python3", "-c", COMPRESSING, &port.port().to_string()]);
    let _files = Ended(command.current_dir(ct.storage()).spawn().unwrap());
    let up = async || hwtests::log::Caller::to(port).get("/checkpoint").await.is_ok_and(|a| a.status == 200);
    assert!(eventually(PATIENCE, up).await, "python's web server does not answer");
    let url = format!("http://{port}");
    let compressed =
        monitor(&daemon, "z", &ct, "certificate", &url, &["--certificate-identity", "*@example.com"])
            .reports();
    assert_eq!(compressed.iter().map(|r| r["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 2, 4]);

    // The same people sign: their certificates are in a signature log.
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    for name in ["0", "3"] {
        let artifact = authority.path("artifact");
        std::fs::write(&artifact, format!("artifact {name}")).unwrap();
        let script = format!(
            "openssl dgst -sha256 -sign {} {}",
            authority.path(&format!("{name}.key")).display(),
            artifact.display()
        );
        let signature = programs::output(std::process::Command::new("sh").args(["-c", &script])).stdout;
        let digest = Digest::of(HashAlgorithm::Sha256, format!("artifact {name}").as_bytes());
        let request = serde_json::json!({"hashedRekordRequestV002": {
            "digest": STANDARD.encode(digest.as_bytes()),
            "signature": {"content": STANDARD.encode(signature), "verifier": {
                "x509Certificate": {"rawBytes": STANDARD.encode(authority.der(name))}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}}});
        let answer = log.caller().post(ENTRIES, request.to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let reports =
        monitor(&daemon, "s", &log, "signature", &log.url(), &["--certificate-identity", "*@example.com"])
            .reports();
    assert_eq!(reports.len(), 1);
    let certificate = &reports[0]["entry"]["signers"][0]["certificate"];
    assert_eq!(certificate["identities"][0]["value"], "dev@example.com");
    assert!(
        certificate["extensions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e["name"] == "issuer-v2" && e["value"] == accounts)
    );
}

/// Two histories of one log, from the same ten entries on.
async fn forked(daemon: &Daemon, one: u32, other: u32) -> (LogServer, LogServer) {
    let mut log = LogServer::start(daemon, "log", "signature", "soft/log", &[]).await;
    fill(&log, 10, "common").await;
    assert!(log.stop().success());
    let mut fork = log.copied("fork");
    for (log, count, what) in [(&mut log, one, "one"), (&mut fork, other, "other")] {
        log.launch();
        log.ready().await;
        fill(log, count, what).await;
    }
    (log, fork)
}

/// The key of a log as an outsider has it.
fn note_key(path: &Path) -> NoteKey {
    let pem = std::fs::read_to_string(path).unwrap();
    NoteKey::of_log("log.example", PublicKey::from_pem(&pem).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_found_told_once_and_proven_by_what_is_kept() {
    let (_engine, daemon) = daemon().await;
    let (log, fork) = forked(&daemon, 13, 15).await;
    let reports = daemon.folder().join("reports");
    let arguments = ["--fingerprint", &"00".repeat(32), "--file", reports.to_str().unwrap()];
    let honest = monitor(&daemon, "monitor", &log, "signature", &log.url(), &arguments);
    assert!(honest.once(&[]).status.success());
    // The same state, and the log shows another history.
    let lied_to = monitor(&daemon, "monitor", &log, "signature", &fork.url(), &arguments);
    for _ in 0..2 {
        let output = lied_to.once(&[]);
        assert_eq!(output.status.code(), Some(4), "{}", programs::text(&output));
        assert!(programs::text(&output).contains("INCONSISTENT"), "{}", programs::text(&output));
    }
    let told = lines(&std::fs::read_to_string(&reports).unwrap());
    assert_eq!(told.len(), 1, "the same is told once");
    assert_eq!(told[0]["event"], "inconsistent");
    // What is kept needs nobody's word: both checkpoints are signed, and the second tree has another beginning.
    let evidence = lied_to.evidence();
    assert_eq!(evidence.len(), 1, "and kept once");
    let read = |name: &str| std::fs::read(evidence[0].join(name)).unwrap();
    let key = note_key(&evidence[0].join("public-key.pem"));
    let before = Checkpoint::verified(&read("checkpoint.before"), &key).unwrap();
    let after = Checkpoint::verified(&read("checkpoint.after"), &key).unwrap();
    assert_eq!((before.size, after.size), (23, 25));
    let json: Value = serde_json::from_slice(&read("evidence.json")).unwrap();
    let hash = |text: &Value| <[u8; 32]>::try_from(hex::decode(text.as_str().unwrap()).unwrap()).unwrap();
    let proof: Vec<_> = json["consistency_proof"].as_array().unwrap().iter().map(hash).collect();
    let root = hash(&json["root_now_of_the_size_before"]);
    assert_ne!(root, before.root);
    verify_consistency((23, &root), (25, &after.root), &proof)
        .expect("the fork's own proof is of another beginning");
    assert!(verify_consistency((23, &before.root), (25, &after.root), &proof).is_err());
    assert!(evidence[0].join("log/tile/0/000.p/25").exists() && evidence[0].join("README").exists());
    // What was known stays known: the honest log goes on from there.
    fill(&log, 1, "more").await;
    let output = honest.once(&[]);
    assert!(output.status.success(), "{}", programs::text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn shrinking_forging_and_other_entries_are_found() {
    let (_engine, daemon) = daemon().await;
    let (mut log, fork) = forked(&daemon, 10, 10).await;
    let nothing = ["--fingerprint", &"00".repeat(32)];
    let location = |log: &LogServer| log.storage().to_str().unwrap().to_owned();
    let key = log.public_key();
    let at = |name: &str, location: &str| monitor_of(&daemon, name, &key, "signature", location, &nothing);
    let fails = |name: &str, place: &str, reason: &str| {
        let output = at(name, place).once(&[]);
        assert_eq!(output.status.code(), Some(4), "{}", programs::text(&output));
        assert!(programs::text(&output).contains(reason), "{reason}: {}", programs::text(&output));
        at(name, place).evidence()
    };
    // Two trees of one size.
    assert!(at("same", &log.url()).once(&[]).status.success());
    fails("same", &fork.url(), "different roots");
    // An older state of the log, whose newer tiles are gone: a backup was put back.
    let (newer, place) = (location(&log), daemon.folder().join("put-back"));
    assert!(at("shrunk", &newer).once(&[]).status.success());
    assert!(log.stop().success());
    let mut small = LogServer::make(&daemon, "small", "signature", "soft/log", &[]);
    small.launch();
    small.ready().await;
    fill(&small, 3, "small").await;
    fails("shrunk", small.storage().to_str().unwrap(), "shrunk");
    // An older checkpoint that the log can still prove comes from a cache, and is no lie.
    programs::must(std::process::Command::new("cp").arg("-a").arg(&newer).arg(&place));
    let cached = at("cached", place.to_str().unwrap());
    let old = std::fs::read(place.join("checkpoint")).unwrap();
    log.launch();
    log.ready().await;
    fill(&log, 5, "later").await;
    assert!(at("cached", &log.url()).once(&[]).status.success());
    assert!(log.stop().success());
    std::fs::remove_dir_all(&place).unwrap();
    programs::must(std::process::Command::new("cp").arg("-a").arg(&newer).arg(&place));
    std::fs::write(place.join("checkpoint"), &old).unwrap();
    let output = cached.once(&[]);
    assert!(output.status.success(), "{}", programs::text(&output));
    assert!(programs::text(&output).contains("older checkpoint"), "{}", programs::text(&output));
    assert!(at("forged", place.to_str().unwrap()).once(&[]).status.success());
    // Entries that are not those of the checkpoint.
    let tile = std::fs::read_dir(place.join("tile/entries/000.p")).unwrap();
    for file in tile.flatten() {
        let mut bytes = std::fs::read(file.path()).unwrap();
        bytes[100] ^= 1;
        std::fs::write(file.path(), bytes).unwrap();
    }
    let evidence = fails("tampered", place.to_str().unwrap(), "not those of its checkpoint");
    assert!(evidence[0].join("log/tile/entries/000.p").is_dir(), "what the log gave is kept");
    // A checkpoint by another key.
    let forged = String::from_utf8(old).unwrap();
    let (text, line) = forged.split_once("\n\n").unwrap();
    let mut signature = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    let last = signature.len() - 10;
    let other = if signature.as_bytes()[last] == b'A' { "B" } else { "A" };
    signature.replace_range(last..=last, other);
    std::fs::write(place.join("checkpoint"), format!("{text}\n\n— log.example {signature}\n")).unwrap();
    fails("forged", place.to_str().unwrap(), "not signed by the log's key");
    let first = at("first", place.to_str().unwrap()).once(&[]);
    assert_eq!(first.status.code(), Some(3), "before anything is known, the key may be another log's");
    assert!(programs::text(&first).contains("--public-key"), "{}", programs::text(&first));
    // Something that is no checkpoint is a trouble that may pass.
    std::fs::write(place.join("checkpoint"), "<html>please log in</html>").unwrap();
    assert_eq!(at("page", place.to_str().unwrap()).once(&[]).status.code(), Some(3));
}

/// Reports by identifier, and how often each came.
fn counted(reports: impl IntoIterator<Item = Value>) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for report in reports {
        *found.entry(report["index"].as_u64().unwrap()).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_forgets_nothing_and_writes_nothing_twice() {
    let (_engine, daemon, log) = signature_log().await;
    let hook = Webhook::start(200);
    let (reports, ours) = (daemon.folder().join("reports"), Signatory::default());
    let (fingerprint, url) = (ours.fingerprint(), hook.url());
    let arguments = ["--fingerprint", &fingerprint, "--file", reports.to_str().unwrap(), "--webhook", &url];
    let mut monitor = monitor(&daemon, "monitor", &log, "signature", &log.url(), &arguments);
    let (mut caller, mut entries) = (log.caller(), 0_u64);
    let mut seed = std::process::id();
    for _ in 0..15 {
        monitor.launch();
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let until = std::time::Instant::now() + Duration::from_millis(u64::from(50 + (seed >> 16) % 700));
        while std::time::Instant::now() < until {
            let request = ours.request(&entries.to_be_bytes()).to_string();
            let answer = caller.post(ENTRIES, request.as_bytes()).await.unwrap();
            assert_eq!(answer.status, 201);
            entries += 1;
        }
        monitor.kill();
    }
    let output = monitor.once(&[]);
    assert!(output.status.success(), "{}", programs::text(&output));
    let all: Vec<u64> = (0..entries).collect();
    let in_file = counted(lines(&std::fs::read_to_string(&reports).unwrap()));
    assert_eq!(in_file.keys().copied().collect::<Vec<_>>(), all, "all of them are in the file");
    assert!(in_file.values().all(|count| *count == 1), "and each once");
    let received = hook.accepted();
    let posted = counted(received.iter().map(hwtests::webhook::Received::json));
    assert_eq!(posted.keys().copied().collect::<Vec<_>>(), all, "all of them were posted");
    let again: usize = posted.values().map(|count| count - 1).sum();
    assert!(again <= 15, "a kill repeats the one report that was on its way: {again} were repeated");
    for one in &received {
        assert_eq!(one.header("webhook-id"), one.json()["id"].as_str().unwrap());
    }
    assert!(entries > 200, "only {entries} entries");
    println!("{entries} entries, {again} posted twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_down_gets_everything_when_it_is_back_and_can_verify_it() {
    let (_engine, daemon, log) = signature_log().await;
    let ours = Signatory::default();
    let secret = daemon.folder().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let hook = Webhook::start(503);
    let (address, url, fingerprint) = (hook.address(), hook.url(), ours.fingerprint());
    let arguments =
        ["--fingerprint", &fingerprint, "--webhook", &url, "--webhook-secret-file", secret.to_str().unwrap()];
    let mut monitor = monitor(&daemon, "monitor", &log, "signature", &log.url(), &arguments);
    monitor.launch();
    for i in 0..5 {
        add(&log, &ours, &format!("artifact {i}")).await;
    }
    let tried = eventually(PATIENCE, async || hook.received().len() >= 2).await;
    assert!(tried, "it is not tried again: {}", monitor.output());
    // Redirected elsewhere: not followed, and not taken for an answer.
    hook.answer(307);
    let before = hook.received().len();
    assert!(eventually(PATIENCE, async || hook.received().len() > before).await);
    // Gone altogether, and the monitor is started anew meanwhile.
    drop(hook);
    assert!(monitor.stop().success() || monitor.output().contains("have not arrived yet"));
    let hook = Webhook::on(address, 200);
    monitor.launch();
    assert!(eventually(PATIENCE, async || hook.accepted().len() >= 5).await, "{}", monitor.output());
    let received = hook.accepted();
    let indices: Vec<_> = received.iter().map(|r| r.json()["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4], "in their order");
    // openssl verifies what standardwebhooks.com says is signed.
    for one in &received {
        let content = daemon.folder().join("content");
        let signed = format!("{}.{}.{}", one.header("webhook-id"), one.header("webhook-timestamp"), one.body);
        std::fs::write(&content, signed).unwrap();
        let script = format!(
            "openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary {} | base64",
            content.display()
        );
        let expected = programs::must(std::process::Command::new("sh").args(["-c", &script]));
        // The head was put in lower case.
        assert_eq!(one.header("webhook-signature"), format!("v1,{}", expected.trim()).to_lowercase());
    }
    assert!(!monitor.output().contains("very-secret"), "the address is a secret: {}", monitor.output());
    assert!(!monitor.output().contains("0123456789abcdef"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_checkpoint_is_told_once_and_so_is_that_it_is_over() {
    let (_engine, daemon, log) = signature_log().await;
    fill(&log, 1, "first").await;
    let arguments = ["--fingerprint", &"00".repeat(32), "--max-age", "2s"];
    let monitor = monitor(&daemon, "monitor", &log, "signature", &log.url(), &arguments);
    assert_eq!(monitor.reports(), Vec::<Value>::new());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let output = monitor.once(&[]);
    assert_eq!(output.status.code(), Some(5), "{}", programs::text(&output));
    assert_eq!(lines(&String::from_utf8_lossy(&output.stdout))[0]["event"], "stale");
    let again = monitor.once(&[]);
    assert_eq!((again.status.code(), again.stdout.len()), (Some(5), 0), "{}", programs::text(&again));
    fill(&log, 1, "second").await;
    let reports = monitor.reports();
    assert_eq!(reports.iter().map(|r| r["event"].as_str().unwrap()).collect::<Vec<_>>(), ["fresh"]);
    assert_eq!(monitor.reports(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_is_followed_again_by_itself_and_figures_say_so() {
    let (_engine, daemon, mut log) = signature_log().await;
    let ours = Signatory::default();
    let (reports, fingerprint) = (daemon.folder().join("reports"), ours.fingerprint());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = port.to_string();
    let arguments =
        ["--fingerprint", &fingerprint, "--file", reports.to_str().unwrap(), "--metrics-listen", &metrics];
    let mut monitor = monitor(&daemon, "monitor", &log, "signature", &log.url(), &arguments);
    monitor.launch();
    add(&log, &ours, "before").await;
    let count = || std::fs::read_to_string(&reports).unwrap_or_default().lines().count();
    assert!(eventually(PATIENCE, async || count() == 1).await, "{}", monitor.output());
    log.kill();
    assert!(
        eventually(PATIENCE, async || monitor.output().contains("cannot be followed at the moment")).await
    );
    log.launch();
    log.ready().await;
    add(&log, &ours, "after").await;
    assert!(eventually(PATIENCE, async || count() == 2).await, "{}", monitor.output());
    let text = hwtests::log::Caller::to(port).get("/metrics").await.unwrap().text();
    for figure in ["position 2", "tree_size 2", "reports_total 2", "inconsistent 0", "stale 0"] {
        assert!(text.contains(&format!("signer_log_monitor_{figure}\n")), "{figure}: {text}");
    }
    assert!(text.contains("delivered_total{sink=\"file:"), "{text}");
    // A second one on the same state ends, and the first goes on.
    let second = monitor.once(&[]);
    assert_eq!(second.status.code(), Some(3), "{}", programs::text(&second));
    assert!(programs::text(&second).contains("in use by another monitor"));
    assert!(monitor.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_monitor_ends_with_4_when_the_log_forks() {
    let (_engine, daemon) = daemon().await;
    let (mut log, mut fork) = forked(&daemon, 12, 14).await;
    let arguments = ["--fingerprint", &"00".repeat(32)];
    let folder = daemon.folder().join("followed");
    std::os::unix::fs::symlink(log.storage(), &folder).unwrap();
    let mut monitor = monitor(&daemon, "monitor", &log, "signature", folder.to_str().unwrap(), &arguments);
    monitor.launch();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(log.stop().success() && fork.stop().success());
    std::fs::remove_file(&folder).unwrap();
    std::os::unix::fs::symlink(fork.storage(), &folder).unwrap();
    assert_eq!(monitor.wait().code(), Some(4), "{}", monitor.output());
    assert_eq!(monitor.evidence().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rekors_own_server_is_followed_through_an_ordinary_web_server() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, key) = (folder.path().join("log"), folder.path().join("key.pem"));
    let script = format!(
        "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out {0} && openssl pkey -in {0} -pubout -out {0}.pub",
        key.display()
    );
    programs::must(std::process::Command::new("sh").args(["-c", &script]));
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (http, grpc, metrics, files) = (port(), port(), port(), port());
    let start = |program: std::path::PathBuf, arguments: &[&str]| {
        let mut command = std::process::Command::new(programs::system("setpriv", "util-linux"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        let null = std::process::Stdio::null;
        Ended(command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap())
    };
    let _rekor = start(
        programs::rekor_tiles(),
        &[
            "serve",
            "--http-address=127.0.0.1",
            &format!("--http-port={}", http.port()),
            &format!("--grpc-port={}", grpc.port()),
            &format!("--http-metrics-port={}", metrics.port()),
            "--hostname=rekor.example",
            &format!("--storage-dir={}", storage.display()),
            &format!("--signer-filepath={}", key.display()),
            "--checkpoint-interval=1s",
        ],
    );
    let up = async || hwtests::log::Caller::to(http).get("/healthz").await.is_ok_and(|a| a.status == 200);
    assert!(eventually(PATIENCE, up).await, "rekor-tiles does not answer");
    let ours = Signatory::default();
    let add = async |artifact: String| {
        let request = ours.request(artifact.as_bytes()).to_string();
        let answer = hwtests::log::Caller::to(http).post(ENTRIES, request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    futures_util::future::join_all((0..20).map(|i| add(format!("first {i}")))).await;
    let directory = format!("--directory={}", storage.display());
    let _files = start(
        programs::system("python3", "python3"),
        &["-m", "http.server", &files.port().to_string(), "--bind", "127.0.0.1", &directory],
    );
    let up = async || hwtests::log::Caller::to(files).get("/checkpoint").await.is_ok_and(|a| a.status == 200);
    assert!(eventually(PATIENCE, up).await, "python's web server does not answer");
    let public_key = folder.path().join("key.pem.pub");
    let monitor_at = |name: &str, location: &str| {
        let which = Monitor::log(location, "signature", "rekor.example", &public_key);
        let fingerprint = ours.fingerprint();
        let arguments: Vec<&str> =
            which.iter().map(String::as_str).chain(["--fingerprint", &fingerprint]).collect();
        Monitor::new(&folder.path().join(name), &arguments)
    };
    let over_http = monitor_at("http", &format!("http://{files}"));
    let in_folder = monitor_at("folder", storage.to_str().unwrap());
    for monitor in [&over_http, &in_folder] {
        assert_eq!(counted(monitor.reports()).len(), 20);
    }
    futures_util::future::join_all((0..300).map(|i| add(format!("second {i}")))).await;
    for monitor in [&over_http, &in_folder] {
        let found = counted(monitor.reports());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), (20..320).collect::<Vec<_>>());
    }
}

/// A child that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_in_a_file_and_what_is_wrong_with_it_is_said() {
    let (_engine, daemon, log) = signature_log().await;
    let ours = Signatory::default();
    add(&log, &ours, "mine").await;
    let folder = daemon.folder().join("configured");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("monitor.toml");
    let write = |rules: &str| {
        let text = format!(
            "state = \"state\"\n[log]\nlocation = {:?}\nkind = \"signature\"\norigin = \"log.example\"\npublic_key = {:?}\n{rules}",
            log.url(),
            log.public_key()
        );
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(programs::ours("signer-log"));
        programs::output(command.args(["monitor", "--once", "--config"]).arg(&path).args(more))
    };
    write(&format!(
        "[[rule]]\nname = \"our key\"\nfingerprint = [\"{}\"]\n[[report]]\nfile = \"matches.jsonl\"\n",
        ours.fingerprint()
    ));
    let output = run(&[]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", programs::text(&output));
    let found = lines(&std::fs::read_to_string(folder.join("matches.jsonl")).unwrap());
    assert_eq!(found[0]["rules"][0]["name"], "our key");
    write("[[rule]]\nname = \"a\"\nfingerprnt = []\n");
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(programs::text(&output).contains("monitor.toml:9: unknown field"), "{}", programs::text(&output));
    write("");
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(programs::text(&output).contains("no rule"), "{}", programs::text(&output));
}
