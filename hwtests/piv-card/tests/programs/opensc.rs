//! OpenSC 0.23: its PKCS#11 module, and its tools for PIV cards.

use hwtests_piv_card::Firmware;

use crate::support::{Bench, MANAGEMENT_KEY, module};

#[test]
fn signs_with_keys_that_have_certificates() {
    let bench = Bench::new(Firmware::V5_4_3);
    for (slot, algorithm) in [("9a", "RSA2048"), ("9c", "ECCP256")] {
        bench.run("yubico-piv-tool", &format!("-s {slot} -A {algorithm} -a generate -o {slot}.pub"));
        bench.run(
            "yubico-piv-tool",
            &format!(
                "-s {slot} -a verify-pin -P 123456 -a selfsign-certificate -S /CN={slot}/ -i {slot}.pub -o {slot}.pem"
            ),
        );
        bench.run("yubico-piv-tool", &format!("-s {slot} -a import-certificate -i {slot}.pem"));
    }
    let module = module("opensc-pkcs11.so", "opensc-pkcs11");
    let tool = |words: &str| bench.run("pkcs11-tool", &format!("--module {module} {words}"));
    let list = tool("--login --pin 123456 --list-objects");
    for word in ["PIV AUTH key", "SIGN key", "always authenticate"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    tool("--login --pin 123456 --sign -m SHA256-RSA-PKCS --id 01 -i message -o rsa");
    bench.check_signature("9a.pub", "rsa");
    bench.run("openssl", "dgst -sha256 -binary -out digest message");
    tool("--login --pin 123456 --sign -m ECDSA --signature-format openssl --id 02 -i digest -o ec");
    bench.check_signature("9c.pub", "ec");
    let state = bench.card.state();
    assert_eq!((state.counters.failed_verifies, state.counters.failed_signatures), (0, 0));
}

#[test]
fn piv_tool_names_the_card_authenticates_and_generates() {
    let bench = Bench::new(Firmware::V5_4_3);
    let name = bench.run("piv-tool", "--reader 0 --name");
    assert!(name.contains("PIV-II"), "{name}");
    bench.write("key", key_as_text().as_bytes());
    let mut command = bench.command("piv-tool", "--reader 0 -A M:9B:03 -G 9A:07 -o pub");
    command.env("PIV_EXT_AUTH_KEY", bench.path("key"));
    let (success, said) = crate::support::end(command);
    assert!(success, "{said}");
    assert_eq!(bench.card.state().counters.management, 1);
    bench.run("yubico-piv-tool", "-s 9a -a attest -o att.pem");
    bench.public_key_of("att.pem", "pub.pem");
    let text = bench.run("openssl", "pkey -pubin -in pub.pem -noout -text");
    assert!(text.contains("2048 bit"), "{text}");
}

/// As `piv-tool` reads it: `01:02:03…`.
fn key_as_text() -> String {
    let bytes: Vec<&str> =
        MANAGEMENT_KEY.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
    bytes.join(":")
}
