//! `signer attest verify`, without a daemon: statements of real YubiKeys. With a daemon and devices it is tested in hwtests.

#![allow(clippy::unwrap_used)]

mod support;

use std::{path::PathBuf, process::Stdio};

use support::{Run, signer};

/// A file of a real device's statement.
fn vector(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../attest/tests/vectors").join(name);
    assert!(path.is_file(), "{}", path.display());
    path.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Run {
    Run::of(arguments, signer(arguments).output().unwrap())
}

/// With the statement of the YubiKey 15938765, and more.
fn verify(more: &[&str]) -> Run {
    let (statement, f9) = (vector("yubikey-5.2.7-15938765-9c.pem"), vector("yubikey-5.2.7-15938765-f9.pem"));
    let key = vector("yubikey-5.2.7-15938765.pub");
    let words = [&["attest", "verify", &statement, "--with", &f9, "--key", &key], more].concat();
    run(&words)
}

#[test]
fn a_real_yubikey_is_proven_for_people() {
    let said = verify(&[]).done();
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].starts_with("YubiKey 15938765 (firmware 5.2.7) generated this key in its slot 9c"),
        "{said}"
    );
    assert!(lines[1].starts_with("Not proven: "), "{said}");
    assert!(lines[2].starts_with("Warning: "), "{said}");
    for fact in [
        "device                    yubikey",
        "serial                    15938765",
        "generated inside          yes",
        "exportable                no",
        "touch                     always",
        "root                      built in, SHA256:63ece914",
    ] {
        assert!(said.contains(fact), "{fact}: {said}");
    }
    assert_eq!(verify(&["--quiet"]).done(), "");
    assert!(verify(&["--verbose"]).exits(0).err.contains("3. YubiKey 15938765"));
}

#[test]
fn a_real_yubikey_is_proven_for_programs() {
    let json = verify(&["--output", "json"]).exits(0).json();
    assert_eq!(json["proven"], true);
    assert_eq!(json["device"]["serial"], "15938765");
    assert_eq!(json["key"]["origin"], "generated");
    assert_eq!(json["key"]["exportable"], false);
    assert_eq!(json["key"]["touch_policy"], "always");
    assert_eq!(json["roots"][0]["built_in"], true);
    assert_eq!(json["chains"][0][2], "Yubico PIV Root CA Serial 263751");

    let refused = verify(&["--output", "json", "--require", "fips"]).exits(1);
    assert_eq!(refused.out, "");
    let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(error["error"]["kind"], "DENIED");
    assert_eq!(error["error"]["exit_code"], 1);
    assert_eq!(error["error"]["what"], "NOT proven: fips is required, and it is not");
}

#[test]
fn requirements_decide_the_exit_status() {
    let all = [
        "generated-inside",
        "not-exportable",
        "touch=always",
        "pin=always",
        "firmware=5.2",
        "serial=15938765",
    ];
    let words: Vec<_> = all.iter().flat_map(|r| ["--require", r]).collect();
    verify(&words).done();
    verify(&["--require", "firmware=5.7"]).exits(1).says("firmware=5.7 is required, and it is 5.2.7");
    verify(&["--require", "touch=sometimes"]).exits(2).says("touch policy");
    verify(&["--require", "gold"]).exits(2).says("use generated-inside");
}

#[test]
fn what_proves_nothing_ends_with_1() {
    let other = vector("yubikey-5.7.4.pub");
    let statement = vector("yubikey-5.2.7-15938765-9c.pem");
    run(&["attest", "verify", &statement, "--key", &other])
        .exits(1)
        .says("NOT proven: the statement is about another key");
    let key = vector("yubikey-5.2.7-15938765.pub");
    run(&["attest", "verify", &statement, "--key", &key])
        .exits(1)
        .says("neither a root nor in the statement");
    run(&["attest", "verify", &key, "--key", &key]).exits(1).says("BEGIN CERTIFICATE");
    run(&["attest", "verify", "/nowhere", "--key", &key]).exits(1).says("/nowhere cannot be read");
    verify(&["--at", "2010-01-01"]).exits(1).says("not valid before 2016-03-14");
    verify(&["--root", &key]).exits(1).says("BEGIN CERTIFICATE");
    let f9 = vector("yubikey-5.2.7-15938765-f9.pem");
    // The card's own certificate may be the root, for whoever has seen the card.
    let said = verify(&["--only-given-roots", "--root", &f9]).done();
    assert!(said.contains("that you gave vouches for it"), "{said}");
    verify(&["--nonce", "00"]).exits(1).says("takes none into its statement");
}

#[test]
fn wrong_usage_ends_with_2() {
    let statement = vector("yubikey-5.2.7-15938765-9c.pem");
    run(&["attest", "verify", &statement]).exits(2).says("--key");
    for wrong in [["--nonce", "xyz"], ["--at", "yesterday"], ["--attester", "000b"]] {
        verify(&wrong).exits(2);
    }
    verify(&["--only-given-roots"]).exits(2).says("--root");
}

#[test]
fn a_statement_is_read_from_standard_input() {
    let pem = std::fs::read(vector("yubikey-5.4.3-fips-28751259-9c.pem")).unwrap();
    let key = vector("yubikey-5.4.3-fips-28751259.pub");
    let words = ["attest", "verify", "-", "--key", &key, "--require", "fips"];
    let mut child =
        signer(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &pem).unwrap();
    let said = Run::of(&words, child.wait_with_output().unwrap()).done();
    assert!(said.contains("YubiKey 5 series FIPS"), "{said}");
}

#[test]
fn help_shows_how() {
    let help = run(&["attest", "verify", "--help"]).done();
    for word in ["--with f9.pem", "generated-inside", "Exit codes: 0 proven", "--attester"] {
        assert!(help.contains(word), "{word}");
    }
}
