//! Files are signed through a real daemon and verified here, by openssl, and by the official bundle types.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    sync::atomic::{AtomicBool, Ordering},
};

use sigstore_protobuf_specs::dev::sigstore::bundle::v1 as official;
use support::{Daemon, openssl};

const TYPES: [&str; 8] =
    ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "ed25519", "ml-dsa-44", "ml-dsa-65"];

#[test]
fn every_kind_of_key_signs_and_only_the_same_file_verifies() {
    let daemon = Daemon::start();
    let file = daemon.file("a file", "some content\n");
    for key_type in TYPES {
        let key = format!("soft/{key_type}");
        let pem = daemon.create(&key, key_type);
        daemon.run(&["sign", &file, "--key", &key]).done();
        let said = daemon.run(&["verify", &file, "--key", &pem]).done();
        assert!(said.starts_with("verified ") && said.contains(key_type), "{said}");
        daemon.run(&["verify", &file, "--key", &key]).done();

        let bundle: official::Bundle =
            serde_json::from_slice(&fs::read(format!("{file}.sigstore.json")).unwrap()).unwrap();
        assert_eq!(bundle.media_type, "application/vnd.dev.sigstore.bundle.v0.3+json");
        let Some(official::bundle::Content::MessageSignature(signed)) = bundle.content else { panic!() };
        let digest = signed.message_digest.unwrap();
        let lengths = [(1, 32), (2, 48), (3, 64)];
        assert!(lengths.contains(&(digest.algorithm, digest.digest.len())), "{key_type}");

        let changed = daemon.file("changed", "some content!\n");
        let bundle = format!("{file}.sigstore.json");
        daemon.run(&["verify", &changed, "--key", &pem, "--bundle", &bundle]).exits(1).says("NOT verified");
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let daemon = Daemon::start();
    let file = daemon.file("f", "x");
    daemon.create("soft/a", "ecdsa-p256");
    let other = daemon.create("soft/b", "ecdsa-p256");
    daemon.run(&["sign", &file, "--key", "soft/a"]).done();
    daemon.run(&["verify", &file, "--key", &other]).exits(1).says("names another key");
    // With the digest of the file and the hint of the other key, but still the first key's signature.
    let path = format!("{file}.sigstore.json");
    let bundle: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    daemon.run(&["sign", &file, "--key", "soft/b"]).done();
    let mut forged: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    forged["messageSignature"]["signature"] = bundle["messageSignature"]["signature"].clone();
    fs::write(&path, forged.to_string()).unwrap();
    daemon.run(&["verify", &file, "--key", &other]).exits(1).says("is not by this key");
}

#[test]
fn openssl_verifies_bare_signatures() {
    let daemon = Daemon::start();
    let file = daemon.file("f", "for openssl\n");
    let signature = daemon.path("f.sig").to_str().unwrap().to_owned();
    for key_type in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072"] {
        let key = format!("soft/{key_type}");
        let pem = daemon.create(&key, key_type);
        for hash in ["sha256", "sha384", "sha512"] {
            let schemes: &[&str] =
                if key_type.starts_with("rsa") { &["rsa-pkcs1", "rsa-pss"] } else { &["ecdsa"] };
            for scheme in schemes {
                let algorithm = format!("{scheme}-{hash}");
                let sign = [
                    "sign",
                    &file,
                    "--key",
                    &key,
                    "--algorithm",
                    &algorithm,
                    "--output-signature",
                    &signature,
                ];
                daemon.run(&sign).done();
                let hash_flag = format!("-{hash}");
                let mut verify = vec!["dgst", &hash_flag, "-verify", &pem, "-signature", &signature];
                if *scheme == "rsa-pss" {
                    verify.extend(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
                }
                verify.push(&file);
                openssl(&verify);
                let ours =
                    ["verify", &file, "--key", &pem, "--signature", &signature, "--algorithm", &algorithm];
                daemon.run(&ours).done();
            }
        }
    }
    let pem = daemon.create("soft/ed", "ed25519");
    daemon.run(&["sign", &file, "--key", "soft/ed", "--output-signature", &signature]).done();
    openssl(&[
        "pkeyutl", "-verify", "-pubin", "-inkey", &pem, "-rawin", "-in", &file, "-sigfile", &signature,
    ]);
    assert!(!daemon.path("f.sigstore.json").exists(), "no bundle was asked for");
    let ph =
        ["sign", &file, "--key", "soft/ed", "--algorithm", "ed25519ph", "--output-signature", &signature];
    daemon.run(&ph).done();
    daemon.run(&["verify", &file, "--key", &pem, "--signature", &signature]).done();
}

#[test]
fn a_long_file_and_an_empty_one_are_signed() {
    let daemon = Daemon::start();
    let pem = daemon.create("soft/k", "ecdsa-p256");
    let edwards = daemon.create("soft/ed", "ed25519");
    let empty = daemon.file("empty", "");
    let path = daemon.path("long");
    let file = fs::File::create(&path).unwrap();
    file.set_len((129 << 20) + 1).unwrap();
    let long = path.to_str().unwrap();
    for file in [&empty, long] {
        daemon.run(&["sign", file, "--key", "soft/k"]).done();
        daemon.run(&["verify", file, "--key", &pem]).done();
    }
    // Too long for pure Ed25519.
    let said = daemon.run(&["sign", long, "--key", "soft/ed", "--output", "json"]).exits(0).json();
    assert_eq!(said["algorithm"], "ed25519ph");
    daemon.run(&["verify", long, "--key", &edwards]).done();
    daemon.run(&["sign", long, "--key", "soft/ed", "--algorithm", "ed25519"]).exits(1).says("too long");
    daemon.run(&["sign", &empty, "--key", "soft/ed"]).done();
    daemon.run(&["verify", &empty, "--key", &edwards]).done();
}

#[test]
fn standard_input_is_signed_and_verified() {
    let daemon = Daemon::start();
    let pem = daemon.create("soft/k", "ecdsa-p256");
    let message = b"from a pipe".repeat(100_000);
    let text = daemon.run_with_input(&["sign", "-", "--key", "soft/k", "--bundle", "-"], &message).done();
    let bundle = daemon.file("b.json", &text);
    daemon.run_with_input(&["verify", "-", "--key", &pem, "--bundle", &bundle], &message).done();
    daemon.run_with_input(&["verify", "-", "--key", &pem, "--bundle", &bundle], b"else").exits(1);
    daemon.run_with_input(&["sign", "-", "--key", "soft/k"], b"").exits(2).says("--bundle");
    daemon.run_with_input(&["verify", "-", "--key", &pem], b"").exits(2).says("--bundle");
}

#[test]
fn several_files_are_signed_and_one_that_cannot_be_read_stops_nobody() {
    let daemon = Daemon::start();
    daemon.create("soft/k", "ecdsa-p256");
    let (a, b) = (daemon.file("a", "a"), daemon.file("b", "b"));
    daemon.run(&["sign", &a, "missing", &b, "--key", "soft/k"]).exits(1).says("missing cannot be read");
    for file in [&a, &b] {
        daemon.run(&["verify", file, "--key", "soft/k"]).done();
    }
    daemon.run(&["sign", &a, &b, "--key", "soft/k", "--bundle", "x"]).exits(2);
    daemon
        .run(&["sign", daemon.folder.path().to_str().unwrap(), "--key", "soft/k"])
        .exits(1)
        .says("cannot be read");
}

#[test]
fn a_bundle_is_replaced_in_one_step() {
    let daemon = Daemon::start();
    daemon.create("soft/k", "ecdsa-p256");
    let file = daemon.file("f", "x");
    let bundle = daemon.path("f.sigstore.json");
    daemon.run(&["sign", &file, "--key", "soft/k"]).done();
    // Held open: its number cannot be given to a later file.
    let first = fs::File::open(&bundle).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let text = fs::read(&bundle).unwrap();
                serde_json::from_slice::<official::Bundle>(&text).expect("a reader never sees half a bundle");
            }
        });
        for _ in 0..20 {
            daemon.run(&["sign", &file, "--key", "soft/k"]).done();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_ne!(fs::metadata(&bundle).unwrap().ino(), first.metadata().unwrap().ino());
    let hidden = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with(".f.");
    assert!(
        !fs::read_dir(daemon.folder.path()).unwrap().any(|e| hidden(&e.unwrap())),
        "nothing is left behind"
    );
    let readonly = ["sign", &file, "--key", "soft/k", "--bundle", "/proc/nowhere"];
    daemon.run(&readonly).exits(1).says("cannot be written");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    daemon.run(&["sign", &file, "--key", "soft/k", "--bundle", "/dev/null"]).done();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device(), "a device is not replaced");
}

#[test]
fn what_is_no_bundle_is_refused_with_a_sentence() {
    let daemon = Daemon::start();
    let pem = daemon.create("soft/k", "ecdsa-p256");
    let file = daemon.file("f", "x");
    daemon.run(&["verify", &file, "--key", &pem]).exits(1).says("f.sigstore.json cannot be read");
    for (text, reason) in [
        ("", "not a Sigstore bundle"),
        ("{}", "not a Sigstore bundle"),
        (
            r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{}}"#,
            "no signature",
        ),
    ] {
        daemon.file("f.sigstore.json", text);
        daemon.run(&["verify", &file, "--key", &pem]).exits(1).says(reason);
    }
    let huge = fs::File::create(daemon.path("f.sigstore.json")).unwrap();
    huge.set_len(1 << 33).unwrap();
    daemon.run(&["verify", &file, "--key", &pem]).exits(1).says("too long");
    daemon.run(&["verify", &file, "--key", "./none.pem"]).exits(1).says("none.pem cannot be read");
    daemon.run(&["verify", &file, "--key", &file]).exits(1).says("public key");
}

#[test]
fn results_are_objects_when_json_is_wanted() {
    let daemon = Daemon::start();
    daemon.create("soft/k", "ecdsa-p256");
    let file = daemon.file("f", "x");
    let signed = daemon.run(&["sign", &file, "--key", "soft/k", "--output", "json"]).exits(0).json();
    assert_eq!(signed["algorithm"], "ecdsa-sha256");
    assert_eq!(signed["key"], "soft/k@1");
    let verified = daemon.run(&["verify", &file, "--key", "soft/k", "--output", "json"]).exits(0).json();
    assert_eq!(verified["verified"], true);
    let refused = daemon.run(&["verify", &file, "--key", "soft/none", "--output", "json"]).exits(1);
    let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(error["error"]["kind"], "NOT_FOUND");
    assert_eq!(error["error"]["exit_code"], 1);
    let quiet = daemon.run(&["sign", &file, "--key", "soft/k", "--quiet"]).exits(0);
    assert_eq!(quiet.out + &quiet.err, "");
}
