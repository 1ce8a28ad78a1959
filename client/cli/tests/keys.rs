//! `signer keys …` against a real daemon with key files.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use support::{Daemon, openssl};

#[test]
fn a_key_is_made_listed_shown_rotated_and_deleted() {
    let daemon = Daemon::start();
    assert!(daemon.run(&["keys", "list"]).done().contains("no key"));
    let said = daemon.run(&["keys", "create", "soft/release"]).done();
    assert!(said.starts_with("created soft/release@1: ecdsa-p256 key SHA256:"), "{said}");
    daemon.run(&["keys", "create", "soft/release"]).exits(1).says("already");
    daemon.run(&["keys", "create", "soft/other", "--type", "rsa-2048"]).done();

    let list = daemon.run(&["keys", "list", "soft"]).done();
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[1].starts_with("soft/other@1    rsa-2048    rsa-pkcs1-sha256"), "{list}");
    let objects = daemon.run(&["keys", "list", "--output", "json"]).exits(0).json();
    assert_eq!(objects["keys"][1]["reference"], "soft/release@1");
    assert_eq!(objects["keys"][1]["origin"], "generated");

    let shown = daemon.run(&["keys", "show", "soft/release"]).done();
    assert!(shown.contains("signs with") && shown.contains("-----BEGIN PUBLIC KEY-----"), "{shown}");
    let pem = daemon.run(&["keys", "show", "soft/release", "--pem"]).done();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.ends_with("-----END PUBLIC KEY-----\n"));

    let file = daemon.file("f", "x");
    daemon.run(&["sign", &file, "--key", "soft/release"]).done();
    assert!(daemon.run(&["keys", "rotate", "soft/release"]).done().starts_with("rotated soft/release@2"));
    daemon.run(&["verify", &file, "--key", "soft/release"]).exits(1);
    daemon.run(&["verify", &file, "--key", "soft/release@1"]).done();
    daemon.run(&["sign", &file, "--key", "soft/release@1"]).done();

    daemon.run(&["keys", "delete", "soft/none", "--yes"]).exits(1);
    daemon.run(&["keys", "delete", "soft/release", "--yes"]).done();
    daemon.run(&["keys", "show", "soft/release"]).exits(1).says("release");
}

#[test]
fn nothing_is_deleted_without_a_yes() {
    let daemon = Daemon::start();
    daemon.create("soft/k", "ecdsa-p256");
    let mut command = daemon.command(&["keys", "delete", "soft/k"]);
    // A session of its own has no terminal to ask at.
    let command = { std::process::Command::new("setsid") }
        .arg("--wait")
        .arg(command.get_program())
        .args(["keys", "delete", "soft/k"])
        .env("SIGNERD_SOCKET", daemon.path("s"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|_| command.output().unwrap());
    support::Run::of(&["keys", "delete"], command).exits(2).says("--yes");
    daemon.run(&["keys", "show", "soft/k"]).done();
}

#[test]
fn private_keys_are_imported_in_every_form() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.path(name).to_str().unwrap().to_owned();
    let (sec1, pkcs8, encrypted, public) = (path("sec1"), path("p8"), path("p8e"), path("pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &sec1]);
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", &sec1, "-out", &pkcs8]);
    openssl(&["pkcs8", "-topk8", "-in", &sec1, "-out", &encrypted, "-passout", "pass:open sesame"]);
    openssl(&["pkey", "-in", &sec1, "-pubout", "-out", &public]);
    let good = daemon.file("good", "open sesame\n");
    let bad = daemon.file("bad", "close sesame\n");

    daemon.run(&["keys", "import", "soft/sec1", &sec1]).done();
    daemon.run(&["keys", "import", "soft/p8", &pkcs8]).done();
    daemon
        .run(&["keys", "import", "soft/p8e", &encrypted, "--passphrase-file", &bad])
        .exits(1)
        .says("passphrase");
    daemon.run(&["keys", "import", "soft/p8e", &encrypted, "--passphrase-file", &good]).done();
    daemon.run(&["keys", "import", "soft/x", &public]).exits(1).says("private key");
    let expected = std::fs::read_to_string(&public).unwrap();
    for key in ["soft/sec1", "soft/p8", "soft/p8e"] {
        assert_eq!(daemon.run(&["keys", "show", key, "--pem"]).done(), expected);
    }

    let certificate = path("crt");
    openssl(&[
        "req",
        "-x509",
        "-new",
        "-key",
        &sec1,
        "-subj",
        "/CN=test",
        "-days",
        "1",
        "-out",
        &certificate,
    ]);
    daemon.run(&["keys", "certificate", "soft/p8", &certificate]).done();
    let shown = daemon.run(&["keys", "show", "soft/p8", "--output", "json"]).exits(0).json();
    assert_eq!(shown["has_certificate"], true);
    daemon.create("soft/other", "ecdsa-p256");
    assert_ne!(
        daemon.run(&["keys", "certificate", "soft/other", &certificate]).code,
        0,
        "it is another key's"
    );
    daemon.run(&["keys", "certificate", "soft/p8", &good]).exits(1).says("not a certificate");
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let daemon = Daemon::start();
    for arguments in [
        &["keys", "create", "release"][..],
        &["keys", "create", "soft/a@2"],
        &["keys", "create", "soft/a", "--type", "rsa-1024"],
        &["keys", "create", "soft/a", "--id", "xyz"],
        &["keys", "show", "soft/%"],
        &["sign", "f", "--key", "pkcs11:pin-value=1234"],
        &["sign", "f"],
        &["sign", "f", "--key", "soft/a", "--algorithm", "md5"],
        &["status", "--timeout", "soon"],
        &["frobnicate"],
        &[],
    ] {
        let run = daemon.run(arguments).exits(2);
        assert!(!run.err.contains("1234"), "a PIN is never repeated: {}", run.err);
    }
}

#[test]
fn what_is_not_granted_is_denied() {
    let uid = rustix::process::geteuid().as_raw();
    let daemon = Daemon::with_grants(&format!(
        "[[grant]]\ncallers = [\"uid:{uid}\"]\nkeys = [\"soft/mine\"]\noperations = [\"list\", \"create\", \"sign\"]\n"
    ));
    daemon.run(&["keys", "create", "soft/mine"]).done();
    let file = daemon.file("f", "x");
    daemon.run(&["sign", &file, "--key", "soft/mine"]).done();
    daemon.run(&["keys", "create", "soft/yours"]).exits(4);
    daemon.run(&["keys", "delete", "soft/mine", "--yes"]).exits(4);
    let there = daemon.run(&["sign", &file, "--key", "soft/yours"]).exits(4);
    assert!(there.err.starts_with("error: "), "{}", there.err);
}

#[test]
fn events_are_printed_as_they_happen() {
    let daemon = Daemon::start();
    let mut watch = daemon.command(&["watch", "--output", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let event = std::thread::scope(|scope| {
        // How the backends are now is told first.
        let first = scope.spawn(move || lines.find(|l| l.as_ref().is_ok_and(|l| l.contains("key-"))));
        // The watch may begin only after the first of these.
        for n in 0..100 {
            if first.is_finished() {
                break;
            }
            daemon.run(&["keys", "create", &format!("soft/k{n}")]).done();
        }
        first.join().unwrap().unwrap().unwrap()
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["event"], &event["backend"]), (&"key-created".into(), &"soft".into()));
    assert!(event["key"].as_str().unwrap().starts_with("soft/k"), "{event}");
}
