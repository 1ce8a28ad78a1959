//! Witnesses, both ways: somebody else's for our log, and ours for somebody else's log.
#![allow(clippy::unwrap_used)] // tests

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    eventually,
    log::{Answer, Caller, ENTRIES, LogServer, Signatory},
    programs,
    witness::{Witness, guarded},
};
use signer_contract::PinSetup;
use signer_core::{Digest, HashAlgorithm, KeyType, PublicKey};
use signer_log_engine::{Checkpoint, Folder, Note, NoteKey, NoteKind, StoredNodes, consistency_proof};

const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with an Ed25519 key for a log and one for a witness.
struct Setup {
    daemon: Daemon,
    log_key: NoteKey,
    witness_key: PublicKey,
    _engine: Software,
}

async fn setup() -> Setup {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    let log = daemon.make_key_of("soft", "log", KeyType::Ed25519).await.public_key;
    let witness_key = daemon.make_key_of("soft", "witness", KeyType::Ed25519).await.public_key;
    let log_key = NoteKey::of_log("log.example", log).unwrap();
    Setup { daemon, log_key, witness_key, _engine: engine }
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    fn policy(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Our witness of a log that is at a URL.
    fn witness(&self, url: &str, log: &NoteKey) -> Witness {
        let key =
            NoteKey::new("witness.example/ours", NoteKind::Cosignature, self.witness_key.clone()).unwrap();
        let public = self.path("witnessed.pub");
        std::fs::write(&public, log.public_key().to_pem()).unwrap();
        let (socket, copy) = (self.daemon.socket(), self.path("copy"));
        let (url, origin) = (url.to_owned(), log.name().to_owned());
        Witness::ours(&self.path("witness"), key, move |address| {
            let mut command = guarded(&programs::ours("signer-log"));
            command.args([
                "mirror",
                &url,
                "--kind",
                "signature",
                "--origin",
                &origin,
                "--follow",
                "1",
                "--public-key",
            ]);
            command.arg(&public).arg("--storage").arg(&copy).arg("--socket").arg(&socket);
            command.args(["--cosign", "soft/witness", "--witness-name", "witness.example/ours", "--listen"]);
            command.arg(address.to_string());
            command
        })
    }
}

async fn post(log: &LogServer, artifact: &str) -> Answer {
    let request = Signatory::default().request(artifact.as_bytes()).to_string();
    log.caller().post(ENTRIES, request.as_bytes()).await.unwrap()
}

/// The checkpoint that an answer carries.
fn checkpoint(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap().to_owned()
}

fn is_cosigned(note: &str, key: &NoteKey) -> bool {
    Note::parse(note.as_bytes()).unwrap().verify(key).is_ok_and(|time| time > 1_700_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn litewitness_cosigns_our_log() {
    let setup = setup().await;
    let mut witness = Witness::lite(&setup.path("lite"), "witness.example/lite");
    witness.start().await;
    witness.knows(&setup.log_key);
    let policy = setup.policy("policy", &format!("{}quorum lite\n", witness.line("lite")));
    let arguments = ["--timeout", "3", "--witness-policy", policy.to_str().unwrap()];
    let log = LogServer::start(&setup.daemon, "log", "signature", "soft/log", &arguments).await;
    for i in 0..20 {
        let note = checkpoint(&post(&log, &format!("{i}")).await);
        Checkpoint::verified(note.as_bytes(), &setup.log_key).unwrap();
        assert!(is_cosigned(&note, witness.key()), "{note}");
    }
    let served = log.caller().get("/api/v2/checkpoint").await.unwrap().text();
    assert!(is_cosigned(&served, witness.key()), "{served}");
    let page = log.caller().get("/ui/checkpoint/20").await.unwrap().text();
    assert!(page.contains("a witness, verifies"), "{page}");

    // Away: nothing is published without it, and nothing is lost.
    witness.kill();
    let answer = post(&log, "while it is away").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let health = log.caller().get("/healthz").await.unwrap();
    assert!(health.status == 503 && health.text().contains("quorum"), "{}", health.text());
    witness.start().await;
    let back =
        eventually(PATIENCE, async || log.caller().get("/healthz").await.is_ok_and(|h| h.status == 200));
    assert!(back.await, "it does not go on by itself: {}", log.output());
    let note = checkpoint(&post(&log, "after").await);
    assert!(is_cosigned(&note, witness.key()), "{note}");
    assert_eq!(log.check(), (vec![], 22));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_log_goes_on_when_litewitness_is_away() {
    let setup = setup().await;
    let mut witness = Witness::lite(&setup.path("lite"), "witness.example/lite");
    witness.start().await;
    witness.knows(&setup.log_key);
    witness.kill();
    let policy = setup.policy("policy", &format!("{}quorum none\n", witness.line("lite")));
    let arguments = ["--witness-policy", policy.to_str().unwrap(), "--witness-timeout", "500"];
    let log = LogServer::start(&setup.daemon, "log", "signature", "soft/log", &arguments).await;
    let began = Instant::now();
    for i in 0..20 {
        let note = checkpoint(&post(&log, &format!("{i}")).await);
        assert!(!is_cosigned(&note, witness.key()));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "each waits for who is away: {:?}", began.elapsed());
    witness.start().await;
    let back = eventually(PATIENCE, async || {
        let note = checkpoint(&post(&log, &format!("{:?}", Instant::now())).await);
        is_cosigned(&note, witness.key())
    });
    assert!(back.await, "who is back is never asked again: {}", log.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_witness_cosigns_our_log() {
    let setup = setup().await;
    let mut log = LogServer::start(&setup.daemon, "log", "signature", "soft/log", &[]).await;
    post(&log, "before").await;
    let mut witness = setup.witness(&format!("http://{}/api/v2", log.address()), &setup.log_key);
    witness.start().await;
    let policy = setup.policy("policy", &format!("{}group all 1 ours\nquorum all\n", witness.line("ours")));
    assert!(log.stop().success());
    let arguments = ["--witness-policy", policy.to_str().unwrap()];
    let mut log = LogServer::at(&setup.daemon, "log", log.storage().to_owned(), Vec::new(), &arguments);
    log.launch();
    log.ready().await;
    for i in 0..20 {
        let note = checkpoint(&post(&log, &format!("{i}")).await);
        assert!(is_cosigned(&note, witness.key()), "{note}");
    }
}

/// `add-checkpoint`, as a log asks.
async fn add(witness: &Witness, old: &str, proof: &[[u8; 32]], note: &str) -> Answer {
    let proof: String = proof.iter().map(|hash| format!("{}\n", STANDARD.encode(hash))).collect();
    let body = format!("old {old}\n{proof}\n{note}");
    Caller::to(witness.address()).post_as("/add-checkpoint", "text/plain", body.as_bytes()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_witness_answers_as_the_specification_says_and_forgets_nothing() {
    let setup = setup().await;
    let log = LogServer::start(&setup.daemon, "log", "signature", "soft/log", &[]).await;
    let mut notes = Vec::new();
    for i in 0..12 {
        notes.push(checkpoint(&post(&log, &format!("{i}")).await));
    }
    let mut witness = setup.witness(&format!("http://{}/api/v2", log.address()), &setup.log_key);
    witness.start().await;
    let folder = Folder::new(log.storage());
    let proof = |old: u64, new: u64| consistency_proof(old, new, &StoredNodes::new(&folder, 12)).unwrap();

    let answer = add(&witness, "0", &[], &notes[4]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cosigned = format!("{}{}", notes[4], answer.text());
    assert!(is_cosigned(&cosigned, witness.key()));
    // The size is another one: which one.
    let answer = add(&witness, "0", &[], &notes[6]).await;
    assert_eq!((answer.status, answer.text().as_str()), (409, "5\n"));
    assert_eq!(answer.header("content-type"), Some("text/x.tlog.size"));
    // The same again is no harm.
    assert_eq!(add(&witness, "5", &[], &notes[4]).await.status, 200);
    // No proof, a wrong one, a good one.
    assert_eq!(add(&witness, "5", &[], &notes[9]).await.status, 422);
    assert_eq!(add(&witness, "5", &proof(4, 10), &notes[9]).await.status, 422);
    assert_eq!(add(&witness, "5", &proof(5, 10), &notes[9]).await.status, 200);
    // Back again is no way.
    assert_eq!(add(&witness, "10", &[], &notes[4]).await.status, 400);
    for bad in ["", "-1", "05", "x"] {
        assert_eq!(add(&witness, bad, &[], &notes[9]).await.status, 400, "{bad:?}");
    }
    let unsigned = notes[11].replace("— log.example ", "— log.example AAAA");
    assert!(matches!(add(&witness, "10", &[], &unsigned).await.status, 400 | 403));
    let by_another = format!("{}\n— log.example AAAAAAAA\n", notes[11].split_once("\n\n").unwrap().0);
    assert_eq!(add(&witness, "10", &[], &format!("{by_another}\n")).await.status, 400);
    let by_another = by_another.replacen("\n—", "\n\n—", 1);
    assert_eq!(add(&witness, "10", &[], &by_another).await.status, 403);
    let of_another = notes[11].replacen("log.example", "other.example", 1);
    assert_eq!(add(&witness, "10", &[], &of_another).await.status, 404);

    // What it has cosigned it knows after a kill -9.
    witness.kill();
    witness.start().await;
    let answer = add(&witness, "0", &[], &notes[11]).await;
    assert_eq!((answer.status, answer.text().as_str()), (409, "10\n"));
    let path = hex::encode(Digest::of(HashAlgorithm::Sha256, b"log.example").as_bytes());
    let latest = Caller::to(witness.address()).get(&format!("/{path}/checkpoint")).await.unwrap().text();
    assert!(is_cosigned(&latest, witness.key()) && latest.contains("\n10\n"), "{latest}");

    // Without its key it signs nothing, and goes on with it.
    setup.daemon.kill();
    assert_eq!(add(&witness, "10", &proof(10, 12), &notes[11]).await.status, 503);
    setup.daemon.start_again().await;
    let back = eventually(PATIENCE, async || add(&witness, "12", &[], &notes[11]).await.status == 200);
    assert!(back.await, "{}", witness.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_witness_catches_a_log_with_two_faces() {
    let setup = setup().await;
    let log = LogServer::start(&setup.daemon, "log", "signature", "soft/log", &[]).await;
    let other = LogServer::start(&setup.daemon, "other", "signature", "soft/log", &[]).await;
    let (mut shown, mut hidden) = (String::new(), String::new());
    for i in 0..3 {
        shown = checkpoint(&post(&log, &format!("shown {i}")).await);
        hidden = checkpoint(&post(&other, &format!("hidden {i}")).await);
    }
    let mut witness = setup.witness(&format!("http://{}/api/v2", log.address()), &setup.log_key);
    witness.start().await;
    // Two trees of one size: the second one gets nothing, and the evidence is kept.
    assert_eq!(add(&witness, "0", &[], &shown).await.status, 200);
    assert_eq!(add(&witness, "3", &[], &hidden).await.status, 409);
    let kept = |name: &str| std::fs::read_to_string(setup.path("copy/evidence").join(name)).unwrap();
    assert_eq!((kept("checkpoint.before"), kept("checkpoint.after")), (shown, hidden.clone()));

    // Another witness is shown the hidden tree first, and its mirror the other one: it ends and says so.
    witness.kill();
    std::fs::remove_dir_all(setup.path("copy")).unwrap();
    std::fs::create_dir_all(setup.path("copy/witness")).unwrap();
    std::fs::write(setup.path("copy/witness/checkpoint"), &hidden).unwrap();
    witness.start().await;
    let status = witness.ended(PATIENCE).expect("it does not notice");
    assert_eq!(status.code(), Some(4), "{}", witness.output());
    assert!(witness.output().contains("another tree"), "{}", witness.output());
}

/// Rekor v2's own server with a witness policy.
struct Theirs {
    address: String,
    child: Child,
    output: PathBuf,
}

impl Theirs {
    async fn start(folder: &Path, key: &Path, policy: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let free: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = free.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(free);
        let output = folder.join("out");
        let out = std::fs::File::create(&output).unwrap();
        let child = guarded(&programs::rekor_tiles())
            .args([
                "serve",
                "--http-address=127.0.0.1",
                "--hostname=rekor.example",
                "--checkpoint-interval=1s",
            ])
            .arg(format!("--http-port={}", ports[0]))
            .arg(format!("--grpc-port={}", ports[1]))
            .arg(format!("--http-metrics-port={}", ports[2]))
            .arg(format!("--storage-dir={}", folder.join("data").display()))
            .arg(format!("--signer-filepath={}", key.display()))
            .arg(format!("--witness-policy-path={}", policy.display()))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let this = Self { address: format!("127.0.0.1:{}", ports[0]), child, output };
        let up = eventually(PATIENCE, async || {
            Caller::to(this.address.parse().unwrap()).get("/healthz").await.is_ok_and(|h| h.status == 200)
        });
        assert!(up.await, "{}", std::fs::read_to_string(&this.output).unwrap());
        this
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rekor-tiles said:\n{}", std::fs::read_to_string(&self.output).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_witness_cosigns_rekor_tiles() {
    let setup = setup().await;
    let (private, public) = (setup.path("rekor.key"), setup.path("rekor.pub"));
    let openssl = || Command::new(programs::system("openssl", "openssl"));
    programs::must(openssl().args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private));
    programs::must(openssl().args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
    let key = PublicKey::from_pem(&std::fs::read_to_string(&public).unwrap()).unwrap();
    let key = NoteKey::of_log("rekor.example", key).unwrap();
    // The witness is asked before there is anything to mirror.
    let placeholder = setup.witness("http://127.0.0.1:9/api/v2", &key);
    let policy = setup.policy("policy", &format!("{}quorum ours\n", placeholder.line("ours")));
    let theirs = Theirs::start(&setup.path("theirs"), &private, &policy).await;
    // It gives nobody its tiles: they are read where it writes them.
    let data = setup.path("theirs").join("data");
    let mut witness = setup.witness(data.to_str().unwrap(), &key).at(placeholder.address());
    drop(placeholder);
    witness.start().await;
    let mut caller = Caller::to(theirs.address.parse().unwrap());
    let (began, mut cosigned, mut seen) = (Instant::now(), false, String::new());
    while !cosigned && began.elapsed() < PATIENCE * 2 {
        let request = Signatory::default().request(format!("{:?}", Instant::now()).as_bytes()).to_string();
        let Ok(answer) = caller.post(ENTRIES, request.as_bytes()).await else { continue };
        seen = answer.text();
        cosigned = answer.status == 201 && is_cosigned(&checkpoint(&answer), witness.key());
    }
    assert!(cosigned, "rekor-tiles never had a cosignature: {seen}; {}", witness.output());
    // And the mirror beside it has their entries.
    let copied = eventually(PATIENCE, async || setup.path("copy/checkpoint").exists());
    assert!(copied.await, "{}", witness.output());
}
