//! `ykman` 5.9, Yubico's own tool: the one that knows all of the newest firmware.

use std::process::Command;

use hwtests_piv_card::{CardOptions, Firmware, Pcscd, READER_NAME, VirtualCard};

use crate::support::{Bench, MANAGEMENT_KEY, end, ykman};

impl Bench {
    fn ykman(&self, words: &str) -> String {
        let (success, said) = end(self.ykman_command(words));
        assert!(success, "ykman {words}: {said}");
        said
    }

    fn ykman_fails(&self, words: &str) -> String {
        let (success, said) = end(self.ykman_command(words));
        assert!(!success, "ykman {words} succeeded: {said}");
        said
    }

    /// By the name of the reader: to look for a serial number, ykman waits three seconds for a card in the empty slot.
    fn ykman_command(&self, words: &str) -> Command {
        let mut command = self.command(ykman(), "");
        command.arg("--reader").arg(format!("{READER_NAME} 00 00")).args(words.split_whitespace());
        command
    }
}

#[test]
fn ykman_recognises_every_firmware() {
    for firmware in [Firmware::V4_3_5, Firmware::V5_2_7, Firmware::V5_4_3, Firmware::V5_7_1] {
        let bench = Bench::new(firmware);
        let info = bench.ykman("info");
        assert!(info.contains(&format!("Firmware version: {firmware}")), "{info}");
        let piv = bench.ykman("piv info");
        for word in [format!("PIV version:              {firmware}"), "PIN tries remaining:      3/3".into()]
        {
            assert!(piv.contains(&word) || piv.contains("PIN tries remaining:      3"), "{word}: {piv}");
        }
        if firmware >= Firmware::V5_4_3 {
            assert!(piv.contains("WARNING: Using default PIN!"), "{piv}");
            let kind = if firmware == Firmware::V5_7_1 { "AES192" } else { "TDES" };
            assert!(piv.contains(kind), "{piv}");
        }
    }
}

#[test]
fn ykman_generates_certifies_and_attests_what_firmware_5_7_has() {
    let bench = Bench::new(Firmware::V5_7_1);
    bench.ykman("piv certificates export f9 f9.pem");
    for (slot, algorithm) in
        [("9a", "ed25519"), ("9c", "eccp384"), ("9d", "x25519"), ("9e", "rsa3072"), ("82", "eccp256")]
    {
        bench.ykman(&format!(
            "piv keys generate -m {MANAGEMENT_KEY} -a {algorithm} --pin-policy once --touch-policy never {slot} {slot}.pub"
        ));
        bench.ykman(&format!("piv keys attest {slot} {slot}.att"));
        let attested = bench.check_attestation(&format!("{slot}.att"), "f9.pem");
        assert!(attested.contains(&format!("YubiKey PIV Attestation {slot}")), "{attested}");
    }
    for slot in ["9a", "9e"] {
        bench.ykman(&format!(
            "piv certificates generate -m {MANAGEMENT_KEY} -P 123456 -s CN=self-signed {slot} {slot}.pub"
        ));
        bench.ykman(&format!("piv certificates export {slot} {slot}.pem"));
        bench.run("openssl", &format!("verify -CAfile {slot}.pem {slot}.pem"));
    }
    let info = bench.ykman("piv keys info 9c");
    for word in ["ECCP384", "GENERATED", "ONCE", "NEVER"] {
        assert!(info.contains(word), "{word}: {info}");
    }
    let piv = bench.ykman("piv info");
    for word in ["Slot 9A", "ED25519", "X25519", "RSA3072", "CN=self-signed"] {
        assert!(piv.contains(word), "{word}: {piv}");
    }
}

#[test]
fn ykman_imports_moves_and_deletes() {
    let bench = Bench::new(Firmware::V5_7_1);
    bench.run("openssl", "genpkey -algorithm ed25519 -out ed.key");
    bench.run("openssl", "genpkey -algorithm x25519 -out x.key");
    bench.run("openssl", "genrsa -out rsa.key 4096");
    for (slot, key) in [("9a", "ed.key"), ("9d", "x.key"), ("9c", "rsa.key")] {
        bench.ykman(&format!("piv keys import -m {MANAGEMENT_KEY} {slot} {key}"));
        bench.run("openssl", &format!("pkey -in {key} -pubout -out want.pub"));
        bench.ykman(&format!("piv keys export {slot} have.pub"));
        assert_eq!(bench.read("have.pub"), bench.read("want.pub"), "{slot}");
        bench.ykman_fails(&format!("piv keys attest {slot} -"));
    }
    bench.ykman(&format!("piv keys move -m {MANAGEMENT_KEY} 9a 83"));
    assert!(bench.ykman("piv keys info 83").contains("IMPORTED"));
    bench.ykman_fails("piv keys info 9a");
    bench.ykman(&format!("piv keys delete -m {MANAGEMENT_KEY} 83"));
    bench.ykman_fails("piv keys info 83");
}

#[test]
fn ykman_changes_the_management_key_protects_it_by_the_pin_and_resets() {
    let bench = Bench::new(Firmware::V5_7_1);
    bench.ykman(&format!(
        "piv access change-management-key -m {MANAGEMENT_KEY} -a aes256 --generate --protect -P 123456 --force"
    ));
    let info = bench.ykman("piv info");
    assert!(info.contains("AES256") && info.contains("protected by PIN"), "{info}");
    bench.ykman_fails(&format!("piv keys generate -m {MANAGEMENT_KEY} -a eccp256 9a -"));
    bench.ykman("piv keys generate -P 123456 -a eccp256 9a pub.pem");

    bench.ykman("piv access change-pin -P 123456 -n 654321");
    bench.ykman("piv access change-puk -p 12345678 -n 87654321");
    bench.ykman_fails("piv access change-pin -P 123456 -n 111111");
    assert_eq!(bench.card.state().pin_tries, 2);
    bench.ykman("piv access unblock-pin -p 87654321 -n 123456");
    assert_eq!(bench.card.state().pin_tries, 3);
    bench.ykman("piv access set-retries -P 123456 -f 8 7");
    assert_eq!((bench.card.state().pin_tries, bench.card.state().puk_tries), (8, 7));

    bench.ykman("piv reset --force");
    let info = bench.ykman("piv info");
    assert!(info.contains("Using default PIN!") && info.contains("AES192"), "{info}");
    bench.ykman_fails("piv keys info 9a");
    bench.ykman("piv keys info f9");
}

#[test]
fn ykman_finds_two_cards_by_their_serials() {
    let pcscd = Pcscd::start().unwrap();
    let card = |slot, serial| {
        VirtualCard::start(pcscd.slot(slot), CardOptions::new(serial, Firmware::V5_7_1)).unwrap()
    };
    let _cards = [card(0, 1_111_111), card(1, 2_222_222)];
    pcscd.wait_for_cards(2).unwrap();
    let mut command = pcscd.command(ykman());
    command.args(["--device", "2222222", "info"]);
    let (success, said) = end(command);
    assert!(success && said.contains("Serial number: 2222222"), "{said}");
    let mut command = pcscd.command(ykman());
    command.args(["list", "--serials"]);
    let (success, said) = end(command);
    assert!(success && said.contains("1111111") && said.contains("2222222"), "{said}");
}
