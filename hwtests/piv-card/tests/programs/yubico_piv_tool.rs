//! `yubico-piv-tool` 2.2. It speaks Triple-DES to the management key, so the cards here are older than firmware 5.7.

use hwtests_piv_card::Firmware;

use crate::support::{Bench, MANAGEMENT_KEY};

impl Bench {
    fn tool(&self, words: &str) -> String {
        self.run("yubico-piv-tool", words)
    }
}

#[test]
fn generates_certifies_signs_and_attests_in_every_algorithm() {
    let bench = Bench::new(Firmware::V5_4_3);
    bench.tool("-a read-certificate -s f9 -o f9.pem");
    for (slot, algorithm) in [("9a", "ECCP256"), ("9d", "ECCP384"), ("9c", "RSA2048"), ("82", "RSA1024")] {
        bench.tool(&format!("-s {slot} -A {algorithm} -a generate -o {slot}.pub"));
        bench.tool(&format!(
            "-s {slot} -a verify-pin -P 123456 -a selfsign-certificate -S /CN={slot}/ -i {slot}.pub -o {slot}.pem"
        ));
        bench.run("openssl", &format!("verify -CAfile {slot}.pem {slot}.pem"));
        bench.tool(&format!("-s {slot} -a import-certificate -i {slot}.pem"));
        bench.tool(&format!("-s {slot} -a verify-pin -P 123456 -a test-signature -i {slot}.pem"));
        bench.tool(&format!("-s {slot} -a attest -o {slot}.att"));
        let attested = bench.check_attestation(&format!("{slot}.att"), "f9.pem");
        assert!(attested.contains(&format!("YubiKey PIV Attestation {slot}")), "{attested}");
        bench.public_key_of(&format!("{slot}.att"), "attested.pub");
        assert_eq!(bench.read("attested.pub"), bench.read(&format!("{slot}.pub")), "{slot}");
    }
    let status = bench.tool("-a status");
    for word in
        ["5.4.3", "12345678", "PIN tries left:\t3", "Slot 9a", "Slot 9c", "Slot 9d", "Slot 82", "CN=9c"]
    {
        assert!(status.contains(word), "{word}: {status}");
    }
    assert_eq!(bench.card.state().counters.failed_verifies, 0);
}

#[test]
fn every_firmware_is_recognised_and_signs() {
    for firmware in [Firmware::V4_3_5, Firmware::V5_2_7, Firmware::V5_7_1] {
        let bench = Bench::new(firmware);
        let status = bench.tool("-a status");
        assert!(status.contains(&firmware.to_string()) && status.contains("12345678"), "{status}");
        if firmware < Firmware::V5_7_1 {
            bench.tool("-s 9e -A ECCP256 -a generate -o pub.pem");
            bench.tool("-s 9e --sign -A ECCP256 -H SHA256 -i message -o signature");
            bench.check_signature("pub.pem", "signature");
            bench.tool("-s 9e -a attest -o att.pem");
            bench.tool("-a read-certificate -s f9 -o f9.pem");
            bench.check_attestation("att.pem", "f9.pem");
        }
    }
}

#[test]
fn an_imported_key_signs_and_is_not_attested() {
    let bench = Bench::new(Firmware::V5_2_7);
    bench.run("openssl", "genrsa -traditional -out rsa.key 2048");
    bench.run("openssl", "ecparam -name secp384r1 -genkey -noout -out ec.key");
    for (slot, key, algorithm) in [("9a", "rsa.key", "RSA2048"), ("9e", "ec.key", "ECCP384")] {
        bench.tool(&format!("-s {slot} -a import-key -i {key}"));
        bench.run("openssl", &format!("pkey -in {key} -pubout -out pub.pem"));
        bench.tool(&format!(
            "-s {slot} -a verify-pin -P 123456 --sign -A {algorithm} -H SHA256 -i message -o signature"
        ));
        bench.check_signature("pub.pem", "signature");
        bench.fail("yubico-piv-tool", &format!("-s {slot} -a attest"));
    }
}

#[test]
fn objects_are_written_and_read_and_large_ones_travel_in_pieces() {
    let bench = Bench::new(Firmware::V5_4_3);
    bench.tool("-a set-chuid -a set-ccc");
    let status = bench.tool("-a status");
    assert!(!status.contains("No data"), "{status}");
    let large = vec![b'x'; 3000];
    bench.write("large", &large);
    bench.tool("-a write-object --id 0x5fc10c -f binary -i large");
    bench.tool("-a read-object --id 0x5fc10c -f binary -o back");
    assert_eq!(bench.read("back"), large);
    bench.write("too-large", &[b'x'; 3053]);
    bench.fail("yubico-piv-tool", "-a write-object --id 0x5fc10c -f binary -i too-large");
    // Printed information is for those with the PIN.
    bench.write("printed", b"who it is");
    bench.tool("-a write-object --id 0x5fc109 -f binary -i printed");
    bench.fail("yubico-piv-tool", "-a read-object --id 0x5fc109");
    bench.tool("-a verify-pin -P 123456 -a read-object --id 0x5fc109 -f binary -o back");
    assert_eq!(bench.read("back"), b"who it is");
}

#[test]
fn pin_puk_and_management_key_are_changed_blocked_unblocked_and_reset() {
    let bench = Bench::new(Firmware::V5_4_3);
    bench.tool("-a change-pin -P 123456 -N 654321");
    bench.fail("yubico-piv-tool", "-a verify-pin -P 123456");
    assert_eq!(bench.card.state().pin_tries, 2);
    bench.tool("-a verify-pin -P 654321");
    assert_eq!(bench.card.state().pin_tries, 3);
    bench.tool("-a change-puk -P 12345678 -N 87654321");
    for _ in 0..3 {
        bench.fail("yubico-piv-tool", "-a verify-pin -P 111111");
    }
    let blocked = bench.fail("yubico-piv-tool", "-a verify-pin -P 654321");
    assert!(blocked.contains("blocked"), "{blocked}");
    bench.tool("-a unblock-pin -P 87654321 -N 123456");
    bench.tool("-a verify-pin -P 123456");

    let other = "0807060504030201080706050403020108070605040302ff";
    bench.tool(&format!("-k{MANAGEMENT_KEY} -a set-mgm-key -n {other}"));
    bench.fail("yubico-piv-tool", &format!("-k{MANAGEMENT_KEY} -a set-chuid"));
    bench.tool(&format!("-k{other} -a verify-pin -P 123456 -a pin-retries --pin-retries 5 --puk-retries 4"));
    assert_eq!((bench.card.state().pin_tries, bench.card.state().puk_tries), (5, 4));

    bench.fail("yubico-piv-tool", "-a reset");
    for _ in 0..5 {
        bench.fail("yubico-piv-tool", "-a verify-pin -P 111111");
    }
    for _ in 0..4 {
        bench.fail("yubico-piv-tool", "-a change-puk -P 11111111 -N 87654321");
    }
    bench.tool("-a reset");
    assert_eq!((bench.card.state().pin_tries, bench.card.state().puk_tries), (3, 3));
    bench.tool(&format!("-k{MANAGEMENT_KEY} -a set-chuid"));
    bench.tool("-a verify-pin -P 123456");
}

#[test]
fn a_pin_policy_says_when_the_pin_is_wanted() {
    let bench = Bench::new(Firmware::V5_4_3);
    for (slot, policy, without) in [("9a", "never", true), ("9d", "once", false), ("9c", "always", false)] {
        bench.tool(&format!("-s {slot} -A ECCP256 --pin-policy {policy} -a generate -o pub.pem"));
        let sign = format!("-s {slot} --sign -A ECCP256 -H SHA256 -i message -o signature");
        if without {
            bench.tool(&sign);
        } else {
            bench.fail("yubico-piv-tool", &sign);
            bench.tool(&format!("-a verify-pin -P 123456 {sign}"));
        }
        bench.check_signature("pub.pem", "signature");
    }
}
