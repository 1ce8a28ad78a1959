//! The audit log of the daemon: what is in it, and what others make of it.
#![allow(clippy::unwrap_used)] // tests

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::{
    audit::{Audited, ORIGIN, table},
    daemon::{Daemon, GRANT_ALL},
    engines::{Engine, Piv, SoftHsm, Software},
    eventually,
    process::{self, Signal},
    programs,
};
use serde_json::Value;
use signer_contract::{Material, PinSetup, make_private_key};
use signer_core::{
    Backend, Digest, ErrorKind, HashAlgorithm, ImportRequest, Input, KeyName, KeyType, Pin, SignRequest,
    SignatureAlgorithm, UnlockRequest,
};

const P256: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// The records that have these values.
fn with<'a>(records: &'a [Value], wanted: &[(&str, &str)]) -> Vec<&'a Value> {
    let fits = |record: &Value| wanted.iter().all(|(field, value)| record[*field] == *value);
    records.iter().filter(|record| fits(record)).collect()
}

fn one<'a>(records: &'a [Value], wanted: &[(&str, &str)]) -> &'a Value {
    match with(records, wanted)[..] {
        [record] => record,
        ref found => panic!("{} records with {wanted:?} in {records:#?}", found.len()),
    }
}

/// The record that tells how another one ended.
fn end_of<'a>(records: &'a [Value], begun: &Value) -> &'a Value {
    assert_eq!(begun["outcome"], "begun", "{begun}");
    records.iter().find(|r| r["of"] == begun["sequence"]).unwrap_or_else(|| panic!("{begun} has no end"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_recorded() {
    let (soft, hsm) = (Software::start(), SoftHsm::start());
    let backends = [soft.toml("soft", PinSetup::Right), hsm.toml("hsm", PinSetup::Missing)];
    let audited = Audited::start(&backends, "soft/audit", "").await;
    let (daemon, client) = (&audited.daemon, audited.daemon.client());

    // Unlock, with a wrong PIN first.
    let hsm_backend = daemon.backend("hsm").await;
    for (pin, good) in [("00000000".to_owned(), false), (hsm.pin(), true)] {
        let request = UnlockRequest { pin: Pin::new(pin).unwrap(), use_last_try: false };
        assert_eq!(hsm_backend.unlock().unwrap().unlock(request).await.is_ok(), good);
    }
    let p256 = daemon.make_key("hsm", "release").await;
    daemon.make_key_of("soft", "ed25519", KeyType::Ed25519).await;
    let soft_backend = daemon.backend("soft").await;
    let imported = make_private_key(KeyType::EcdsaP256).unwrap().key(Material::Pkcs8Der).unwrap();
    let request = ImportRequest::new(KeyName::label("imported").unwrap(), imported);
    let imported = soft_backend.import().unwrap().import(request).await.unwrap();
    // A digest, a message that the daemon hashes, one that is signed as it is, and one in a stream, which the client hashes.
    audited.sign("hsm/release", "a digest").await.unwrap();
    client.sign("hsm/release", Some(P256), Input::Message("a message".into())).await.unwrap();
    let statement = "DSSEv1 28 application/vnd.in-toto+json 2 {}";
    client.sign("soft/ed25519", None, Input::Message(statement.into())).await.unwrap();
    let stream = client.sign_stream("soft/imported", P256, 4);
    stream.sign(SignRequest::message(P256, "in a stream")).await.unwrap();
    drop(stream);
    client.rotate("soft/imported").await.unwrap();
    client.delete("soft/ed25519").await.unwrap();
    assert_eq!(client.delete("soft/ed25519").await.unwrap_err().kind(), ErrorKind::NotFound);
    process::signal(daemon.pid(), Signal::HUP);
    let reloaded = eventually(Duration::from_secs(10), async || {
        !with(&audited.records(), &[("operation", "reload")]).is_empty()
    });
    assert!(reloaded.await, "{}", daemon.log());
    let records = audited.settled().await;

    let start = one(&records, &[("operation", "start")]);
    let text = std::fs::read(daemon.configuration()).unwrap();
    assert_eq!(start["config"], format!("{:?}", Digest::of(HashAlgorithm::Sha256, &text)));
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    for (at, record) in records.iter().enumerate() {
        assert_eq!(
            (record["sequence"].as_u64(), record["v"].as_u64()),
            (Some(at as u64), Some(1)),
            "{record}"
        );
        assert!(record["time"].as_str().unwrap().ends_with('Z'), "{record}");
        if record.get("caller").is_some() {
            let caller = &record["caller"];
            assert_eq!(caller["uid"], rustix::process::getuid().as_raw(), "{record}");
            assert_eq!(caller["gid"], rustix::process::getgid().as_raw(), "{record}");
            assert_eq!(caller["pid"], std::process::id(), "{record}");
            assert_eq!(caller["program"], std::env::current_exe().unwrap().display().to_string(), "{record}");
            if record.get("of").is_none() {
                assert_eq!(record["decision"], "allowed", "{record}");
            }
        }
    }
    let unlocked = with(&records, &[("operation", "unlock"), ("outcome", "begun")]);
    assert_eq!(unlocked.len(), 2, "{records:#?}");
    assert_eq!(end_of(&records, unlocked[0])["error"], "WRONG_PIN");
    assert_eq!(end_of(&records, unlocked[1])["outcome"], "done");

    let created = one(&records, &[("operation", "create"), ("key", "hsm/release"), ("outcome", "begun")]);
    let fingerprint = format!("{:?}", p256.public_key.fingerprint());
    assert_eq!(end_of(&records, created)["fingerprint"], fingerprint);
    assert!(created["grant"].as_str().unwrap().starts_with("grant 1 on line "), "{created}");
    let begun = one(&records, &[("operation", "import"), ("outcome", "begun")]);
    let end = end_of(&records, begun);
    assert_eq!(end["fingerprint"], format!("{:?}", imported.public_key.fingerprint()));

    // Signatures: one record each, with the digest of what was signed.
    for (message, key, algorithm, input) in [
        ("a digest", "hsm/release", "ecdsa-sha256", "digest"),
        ("a message", "hsm/release", "ecdsa-sha256", "message"),
        (statement, "soft/ed25519", "ed25519", "message"),
        ("in a stream", "soft/imported@1", "ecdsa-sha256", "digest"),
    ] {
        let digest = format!("{:?}", Digest::of(HashAlgorithm::Sha256, message.as_bytes()));
        let record = one(&records, &[("operation", "sign"), ("digest", &digest)]);
        assert_eq!(record["key"].as_str().unwrap().trim_end_matches("@1"), key.trim_end_matches("@1"));
        assert_eq!((&record["algorithm"], &record["input"]), (&algorithm.into(), &input.into()), "{record}");
        assert!(["begun", "done"].contains(&record["outcome"].as_str().unwrap()), "{record}");
        assert!(record["grant"].as_str().unwrap().starts_with("grant 1 on line "), "{record}");
        if key == "hsm/release" {
            assert_eq!(record["fingerprint"], fingerprint);
        }
        if message == statement {
            assert_eq!(record["content"], "dsse:application/vnd.in-toto+json");
        }
    }
    let begun = one(&records, &[("operation", "rotate"), ("outcome", "begun")]);
    assert_eq!(end_of(&records, begun)["outcome"], "done");
    let deleted = with(&records, &[("operation", "delete"), ("outcome", "begun")]);
    assert_eq!(end_of(&records, deleted[0])["outcome"], "done");
    assert_eq!(end_of(&records, deleted[1])["error"], "NOT_FOUND");
    // The log's own key signed a checkpoint for each of these, and is in none of them but where it was made.
    assert_eq!(with(&records, &[("key", "soft/audit"), ("operation", "sign")]).len(), 0);

    // What is wrong with a message, a secret: nowhere.
    for secret in ["a message", "in a stream", "in-toto+json 2 {}", &hsm.pin(), &soft.pin()] {
        let raw = std::process::Command::new("grep").args(["-rlaF", secret]).arg(&audited.directory).output();
        assert_eq!(String::from_utf8_lossy(&raw.unwrap().stdout), "", "{secret:?} is in the log");
    }
    assert_eq!(audited.wrong(), Vec::<String>::new());
    // An end in order is in the log, and signed for.
    assert!(daemon.stop().success());
    let records = audited.records();
    assert_eq!(records.last().unwrap()["operation"], "stop");
    assert_eq!(audited.wrong(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_and_looks_are_recorded() {
    let card = Piv::start();
    let soft = Software::start();
    let backends = [card.toml("yubikey", PinSetup::Right), soft.toml("soft", PinSetup::Right)];
    let audited = Audited::start(&backends, "soft/audit", "reads = true").await;
    audited.daemon.backend("yubikey").await;
    audited.daemon.make_key("yubikey", "9c").await;
    audited.daemon.client().attest("yubikey/9c").await.unwrap();
    audited.daemon.client().key_info("yubikey/9c").await.unwrap();
    audited.sign("yubikey/9c", "by a card").await.unwrap();
    let records = audited.settled().await;
    let attested = one(&records, &[("operation", "attest")]);
    assert_eq!(attested["key"], "yubikey/9c");
    assert!(attested["fingerprint"].as_str().unwrap().starts_with("sha256:"));
    assert!(!with(&records, &[("operation", "list"), ("key", "yubikey/9c")]).is_empty());
    assert_eq!(with(&records, &[("operation", "sign"), ("key", "yubikey/9c")]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_recorded_and_a_flood_of_it_is_not() {
    let soft = Software::start();
    let daemon = Daemon::prepare("");
    let directory = daemon.folder().join("audit");
    let grants = "[[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"soft/audit\", \"soft/mine\"]\n\
                  operations = [\"create\", \"list\"]\n\
                  [[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"soft/mine\"]\noperations = [\"sign\"]\n\
                  algorithms = [\"ecdsa-sha384\"]\n";
    daemon.configure(&format!(
        "{}\n{}{grants}",
        soft.toml("soft", PinSetup::Right),
        table(&directory, "soft/audit", "")
    ));
    let audited = Audited::begin(daemon, directory, "soft/audit").await;
    audited.daemon.make_key("soft", "mine").await;
    let client = audited.daemon.client();
    for key in ["soft/theirs", "soft/mine"] {
        assert_eq!(audited.sign(key, "x").await.unwrap_err().kind(), ErrorKind::Denied);
    }
    assert_eq!(client.delete("soft/mine").await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(client.rotate("soft/mine").await.unwrap_err().kind(), ErrorKind::Denied);
    let request = UnlockRequest { pin: Pin::new("1234".to_owned()).unwrap(), use_last_try: false };
    let unlocked = client.unlock(&"soft".parse().unwrap(), request).await;
    assert_eq!(unlocked.unwrap_err().kind(), ErrorKind::Denied);
    let records = audited.settled().await;
    for (operation, key) in [
        ("sign", "soft/theirs"),
        ("sign", "soft/mine@1"),
        ("delete", "soft/mine"),
        ("rotate", "soft/mine"),
        ("unlock", "soft"),
    ] {
        let record = one(&records, &[("operation", operation), ("decision", "denied"), ("key", key)]);
        assert!(record.get("grant").is_none() && record.get("outcome").is_none(), "{record}");
    }
    let shown = programs::must(audited.audit("show").arg("--denied"));
    assert_eq!(shown.matches("DENIED").count(), 5, "{shown}");

    let before = records.len();
    for _ in 0..500 {
        assert_eq!(audited.sign("soft/theirs", "x").await.unwrap_err().kind(), ErrorKind::Denied);
    }
    // What was not recorded one by one is counted, at the latest when it is quiet again.
    let all = eventually(Duration::from_secs(5), async || {
        let records = audited.records();
        let single = with(&records[before..], &[("operation", "sign"), ("decision", "denied")]).len() as u64;
        let counted: u64 = records[before..].iter().filter_map(|r| r["suppressed"].as_u64()).sum();
        single + counted == 500
    });
    assert!(all.await, "{:#?}", &audited.records()[before..]);
    let after = audited.records().len() - before;
    assert!(after < 100, "{after} records");
    assert_eq!(audited.wrong(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_own_key_signs_nothing_else() {
    let hsm = SoftHsm::start();
    let audited = Audited::start(&[hsm.toml("hsm", PinSetup::Right)], "hsm/audit", "").await;
    let client = audited.daemon.client();
    let (_, info) = client.key_info("hsm/audit").await.unwrap();
    let by_id = format!("hsm/id:{}", hex::encode(info.id.as_ref().unwrap()));
    let address = info.address.as_ref().unwrap().to_string();
    for name in ["hsm/audit", &by_id, &address] {
        let error = audited.sign(name, "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error:?}");
        assert!(error.what().contains("key of the audit log"), "{name}: {error:?}");
        let error = client.delete(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error:?}");
    }
    let stream = client.sign_stream("hsm/audit", P256, 1);
    let refused = stream.sign(SignRequest::message(P256, "x")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    let records = audited.settled().await;
    assert!(with(&records, &[("operation", "sign"), ("decision", "denied")]).len() >= 3, "{records:#?}");

    // Neither a name nor a grant is given to it.
    let configuration = std::fs::read_to_string(audited.daemon.configuration()).unwrap();
    for (more, word) in [
        ("[[key]]\nname = \"other\"\nmembers = [\"hsm/audit\"]\n", "[[key]] other"),
        (
            "[[grant]]\ncallers = [\"any\"]\nkeys = [\"hsm/audit\"]\noperations = [\"sign\"]\n",
            "the grant on line",
        ),
    ] {
        let file = audited.daemon.folder().join("other.toml");
        std::fs::write(&file, format!("{configuration}\n{more}")).unwrap();
        let mut check = std::process::Command::new(programs::ours("signerd"));
        let output = programs::output(check.arg("check-config").arg(&file));
        assert_eq!(output.status.code(), Some(2));
        assert!(programs::text(&output).contains(word), "{}", programs::text(&output));
    }
    let mut explain = std::process::Command::new(programs::ours("signerd"));
    explain.arg("--config").arg(audited.daemon.configuration());
    let uid = format!("uid:{}", rustix::process::getuid().as_raw());
    let output = programs::output(explain.args(["explain", "--caller", &uid, "--key", "hsm/audit"]));
    assert_eq!(output.status.code(), Some(4), "{}", programs::text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_before_the_log_has_its_key() {
    let soft = Software::start();
    let daemon = Daemon::prepare("");
    let directory = daemon.folder().join("audit");
    let table = table(&directory, "soft/audit", "");
    daemon.configure(&format!("{}\n{table}{GRANT_ALL}", soft.toml("soft", PinSetup::Right)));
    daemon.start_again().await;
    daemon.backend("soft").await;
    let error =
        daemon.client().sign("soft/release", Some(P256), Input::Message("x".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "there is no such key yet: {error:?}");
    let backend = daemon.backend("soft").await;
    let request = signer_core::GenerateRequest::new(KeyName::label("release").unwrap(), KeyType::EcdsaP256);
    let error = backend.generate().unwrap().generate(request.clone()).await.unwrap_err();
    assert!(error.to_string().contains("signer keys create soft/audit"), "{error}");
    daemon.make_key("soft", "audit").await;
    let made = eventually(Duration::from_secs(5), async || {
        backend.generate().unwrap().generate(request.clone()).await.is_ok()
    });
    assert!(made.await, "{}", daemon.log());
    daemon.client().sign("soft/release", Some(P256), Input::Message("x".into())).await.unwrap();
    // Nobody makes another in its place.
    let other = backend.rotate().unwrap().rotate(&KeyName::label("audit").unwrap()).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Denied, "{other:?}");
}

struct Files(PathBuf);

impl tlog_tiles::TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let path = tile.path().replace("tile/8/", "tile/");
            Ok(std::fs::read(self.0.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}")))
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

/// Checkpoint, tiles and proofs are those of C2SP: other people's code reads them.
#[tokio::test(flavor = "multi_thread")]
async fn others_verify_it() {
    let soft = Software::start();
    let daemon = Daemon::prepare("");
    let directory = daemon.folder().join("audit");
    daemon.configure(&format!(
        "{}\n{}{GRANT_ALL}",
        soft.toml("soft", PinSetup::Right),
        table(&directory, "soft/audit", "")
    ));
    daemon.start_again().await;
    daemon.backend("soft").await;
    // The crate verifies Ed25519 only.
    let info = daemon.make_key_of("soft", "audit", KeyType::Ed25519).await;
    let made = eventually(Duration::from_secs(5), async || {
        let backend = daemon.backend("soft").await;
        let request =
            signer_core::GenerateRequest::new(KeyName::label("release").unwrap(), KeyType::EcdsaP256);
        backend.generate().unwrap().generate(request).await.is_ok()
    });
    assert!(made.await, "{}", daemon.log());
    for i in 0..300 {
        let message = format!("message {i}");
        daemon.client().sign("soft/release", Some(P256), Input::Message(message.into())).await.unwrap();
    }
    let proof = daemon.folder().join("proof");
    assert!(daemon.stop().success());

    let key = signer_log_engine::NoteKey::of_log(ORIGIN, info.public_key.clone()).unwrap();
    let note = signed_note::Note::from_bytes(&std::fs::read(directory.join("checkpoint")).unwrap()).unwrap();
    let verifier = signed_note::StandardVerifier::new(&key.to_vkey().unwrap()).unwrap();
    let (good, _) = note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!(good.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    assert!(size > 300);
    let files = Files(directory.clone());
    let reader = tlog_tiles::TileHashReader::new(size, root, &files);
    let theirs = tlog_tiles::prove_record(size, 42, &reader).unwrap();

    // Our proof has the same hashes, and is verified without the log.
    let mut prove = daemon.signer();
    programs::must(prove.args(["audit", "prove", "42", "--log"]).arg(&directory).arg("--out").arg(&proof));
    let text = std::fs::read_to_string(&proof).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("c2sp.org/tlog-proof@v1", "index 42"));
    let hashes: Vec<_> = theirs.iter().map(|h| STANDARD.encode(h.0)).collect();
    assert_eq!(lines[3..3 + hashes.len()], hashes);
    let record = STANDARD.decode(lines[1].strip_prefix("extra ").unwrap()).unwrap();
    tlog_tiles::check_record(&theirs, size, root, 42, tlog_tiles::record_hash(&record)).unwrap();
    let pem = daemon.folder().join("audit.pem");
    std::fs::write(&pem, info.public_key.to_pem()).unwrap();
    std::fs::rename(&directory, daemon.folder().join("elsewhere")).unwrap();
    let verify = |file: &std::path::Path| {
        let mut command = daemon.signer();
        command.args(["audit", "prove", "--output", "json", "--verify"]).arg(file).arg("--key").arg(&pem);
        programs::output(&mut command)
    };
    let output = verify(&proof);
    assert!(output.status.success(), "{}", programs::text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["verified"], &answer["record"]["sequence"]), (&true.into(), &42.into()));
    // Another record, another place, another checkpoint.
    let changed = STANDARD.encode(String::from_utf8(record).unwrap().replace("allowed", "denied!"));
    for (from, to) in [
        (lines[1].to_owned(), format!("extra {changed}")),
        ("index 42".to_owned(), "index 41".to_owned()),
        (format!("\n{size}\n"), format!("\n{}\n", size + 1)),
    ] {
        let file = daemon.folder().join("bad");
        std::fs::write(&file, text.replacen(&from, &to, 1)).unwrap();
        assert_eq!(verify(&file).status.code(), Some(1), "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_filtered_and_followed() {
    let soft = Software::start();
    let audited = Audited::start(&[soft.toml("soft", PinSetup::Right)], "soft/audit", "").await;
    for name in ["one", "two"] {
        audited.daemon.make_key("soft", name).await;
    }
    let following = audited
        .audit("follow")
        .args(["--key", "soft/two", "--output", "json", "-n", "0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for key in ["soft/one", "soft/two", "soft/two"] {
        audited.sign(key, key).await.unwrap();
    }
    let records = audited.settled().await;
    let text = |arguments: &[&str]| programs::must(audited.audit("show").args(arguments));
    let lines = |arguments: &[&str]| text(arguments).lines().count() - 1;
    assert_eq!(lines(&["--operation", "sign"]), 3);
    assert_eq!(lines(&["--operation", "sign", "--key", "soft/two*"]), 2);
    assert_eq!(lines(&["--operation", "sign", "-n", "1"]), 1);
    assert_eq!(lines(&["--since", "1h", "--operation", "sign"]), 3);
    assert_eq!(lines(&["--until", "2020-01-01"]), 0);
    let uid = rustix::process::getuid().as_raw().to_string();
    assert_eq!(lines(&["--caller", &uid, "--operation", "sign"]), 3);
    assert_eq!(lines(&["--caller", "nobody-of-that-name"]), 0);
    let fingerprint =
        one(&records, &[("key", "soft/one@1"), ("operation", "sign")])["fingerprint"].as_str().unwrap();
    assert_eq!(lines(&["--key", fingerprint, "--operation", "sign"]), 1);
    // Without --log the daemon says where it is.
    let shown = programs::must(audited.daemon.signer().args(["audit", "show", "--operation", "sign"]));
    assert_eq!(shown, text(&["--operation", "sign"]));

    // It looks every quarter of a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Not INT: what runs in the background of a script ignores that.
    process::signal(following.id(), Signal::TERM);
    let followed = following.wait_with_output().unwrap();
    let followed = String::from_utf8(followed.stdout).unwrap();
    assert_eq!(followed.matches("\"operation\":\"sign\"").count(), 2, "{followed}");
}

/// Readers need no more than the group of the folder, and get to see no more than the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let soft = Software::start();
    let group = programs::must(std::process::Command::new("id").arg("-gn"));
    let more = format!("group = {:?}", group.trim());
    let audited = Audited::start(&[soft.toml("soft", PinSetup::Right)], "soft/audit", &more).await;
    audited.daemon.make_key("soft", "release").await;
    for i in 0..300 {
        audited.sign("soft/release", &format!("{i}")).await.unwrap();
    }
    audited.settled().await;
    let mode = |name: &str| {
        let metadata =
            std::fs::metadata(audited.directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        metadata.permissions().mode() & 0o7777
    };
    for folder in ["", "tile", "tile/entries", "tile/0"] {
        assert_eq!(mode(folder), 0o2750, "{folder}");
    }
    for file in ["checkpoint", "tile/entries/000", "tile/0/000"] {
        assert_eq!(mode(file), 0o640, "{file}");
    }
    assert_eq!(mode(".state") & 0o777, 0o700);
    assert_eq!(mode(".state/journal.0"), 0o600);
}
