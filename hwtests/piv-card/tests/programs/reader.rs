//! What a user's hands do: touch, pull out, put in another one. And what goes wrong.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use hwtests_piv_card::{CardOptions, Fault, FaultKind, Firmware, Pcscd, VirtualCard};

use crate::support::{Bench, SERIAL, end};

const PATIENCE: Duration = Duration::from_secs(10);

impl Bench {
    fn begin(&self, words: &str) -> Child {
        let mut command = self.command("yubico-piv-tool", words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait_for_card(&self) {
        assert!(self.card.wait_for_power(PATIENCE));
        self.pcscd.wait_for_cards(1).unwrap();
    }

    fn touch_key(policy: &str) -> (Self, String) {
        let bench = Self::new(Firmware::V5_4_3);
        bench.run(
            "yubico-piv-tool",
            &format!("-s 9a -A ECCP256 --pin-policy never --touch-policy {policy} -a generate -o pub.pem"),
        );
        (bench, "-s 9a -a version --sign -A ECCP256 -H SHA256 -i message -o signature".into())
    }
}

#[test]
fn a_key_waits_for_a_finger() {
    let (bench, sign) = Bench::touch_key("always");
    assert!(!bench.card.touch(), "nobody waits yet");
    let mut child = bench.begin(&sign);
    assert!(bench.card.wait_for_touch_request(PATIENCE));
    assert!(bench.card.state().touch_awaited);
    assert!(child.try_wait().unwrap().is_none());
    assert!(bench.card.touch());
    assert!(child.wait().unwrap().success());
    bench.check_signature("pub.pem", "signature");

    // The touch before has been used up.
    let mut child = bench.begin(&sign);
    assert!(bench.card.wait_for_touch_request(PATIENCE));
    bench.card.touch();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.card.state().counters.touches_asked, 2);
}

#[test]
fn without_a_finger_it_ends_after_fifteen_seconds() {
    let (bench, sign) = Bench::touch_key("always");
    let start = Instant::now();
    bench.fail("yubico-piv-tool", &sign);
    assert!((15.0..17.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert!(!bench.card.state().touch_awaited);
    bench.card.touch_by_itself(Some(Duration::from_millis(50)));
    bench.run("yubico-piv-tool", &sign);
}

#[test]
fn a_cached_touch_serves_the_next_signatures_until_the_card_is_reset() {
    let (bench, sign) = Bench::touch_key("cached");
    let select = "00:A4:04:00:05:A0:00:00:03:08";
    let digest = ["11"; 32].join(":");
    let raw = format!("00:87:11:9A:26:7C:24:82:00:81:20:{digest}:00");
    let mut command = bench.command(
        "opensc-tool",
        &format!("--card-driver default --reader 0 -s {select} -s {raw} -s {raw} -s {raw}"),
    );
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    assert!(bench.card.wait_for_touch_request(PATIENCE));
    bench.card.touch();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.card.state().counters.signatures, 3);
    assert_eq!(bench.card.state().counters.touches_asked, 1);

    bench.card.reset();
    bench.wait_for_card();
    bench.card.touch_by_itself(Some(Duration::ZERO));
    bench.run("yubico-piv-tool", &sign);
    assert_eq!(bench.card.state().counters.touches_asked, 2);
}

#[test]
fn pulled_out_while_it_waits_the_command_fails_at_once_and_the_card_comes_back() {
    let (bench, sign) = Bench::touch_key("always");
    let mut child = bench.begin(&sign);
    assert!(bench.card.wait_for_touch_request(PATIENCE));
    let start = Instant::now();
    bench.card.remove();
    assert!(!child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bench.pcscd.wait_for_cards(0).unwrap();
    assert!(!bench.card.state().inserted);

    let start = Instant::now();
    bench.card.insert();
    bench.wait_for_card();
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    bench.card.touch_by_itself(Some(Duration::ZERO));
    bench.run("yubico-piv-tool", &sign);
    bench.check_signature("pub.pem", "signature");
}

#[test]
fn another_card_comes_into_the_same_reader_and_the_first_one_comes_back() {
    let bench = Bench::new(Firmware::V5_7_1);
    let serial = |bench: &Bench| bench.run("yubico-piv-tool", "-a status");
    assert!(serial(&bench).contains("12345678"));
    bench.fail("yubico-piv-tool", "-a verify-pin -P 111111");
    bench.card.swap(7_654_321);
    bench.wait_for_card();
    assert!(serial(&bench).contains("7654321"));
    assert_eq!(bench.card.state().pin_tries, 3);
    bench.card.swap(SERIAL);
    bench.wait_for_card();
    assert!(serial(&bench).contains("12345678"));
    assert_eq!(bench.card.state().pin_tries, 2);
}

#[test]
fn faults_hit_what_they_are_meant_for_and_end() {
    let bench = Bench::new(Firmware::V5_4_3);
    bench.run("yubico-piv-tool", "-s 9e -A ECCP256 -a generate -o pub.pem");
    let sign = "-s 9e -a version --sign -A ECCP256 -H SHA256 -i message -o signature";
    let fault = |kind| bench.card.fault(Fault { kind, count: 1, instruction: Some(0x87) });
    let signatures = || bench.card.state().counters.signatures;

    for (kind, done) in [
        (FaultKind::Status(0x6F00), 0),
        (FaultKind::Remove, 0),
        (FaultKind::RemoveAfter, 1),
        (FaultKind::Cut, 1),
        (FaultKind::Garbage, 1),
        (FaultKind::Short, 1),
    ] {
        let before = signatures();
        fault(kind);
        bench.fail("yubico-piv-tool", sign);
        assert_eq!(signatures() - before, done, "{kind:?}");
        bench.card.insert();
        bench.wait_for_card();
    }
    fault(FaultKind::Slow(Duration::from_millis(500)));
    let start = Instant::now();
    bench.run("yubico-piv-tool", sign);
    assert!(start.elapsed() >= Duration::from_millis(500));
    bench.check_signature("pub.pem", "signature");
    fault(FaultKind::Status(0x6F00));
    bench.card.heal();
    bench.run("yubico-piv-tool", sign);
}

#[test]
fn a_killed_pcscd_comes_back_with_its_card() {
    let bench = Bench::new(Firmware::V5_4_3);
    bench.pcscd.restart().unwrap();
    bench.wait_for_card();
    bench.run("yubico-piv-tool", "-a verify-pin -P 123456");
}

#[test]
fn readers_of_two_tests_are_worlds_of_their_own() {
    let [a, b] = [Firmware::V5_4_3, Firmware::V5_7_1].map(Bench::new);
    a.fail("yubico-piv-tool", "-a verify-pin -P 111111");
    assert_eq!((a.card.state().pin_tries, b.card.state().pin_tries), (2, 3));
    assert_ne!(a.pcscd.socket(), b.pcscd.socket());
}

#[test]
fn a_reader_without_a_card_and_two_readers_with_one_each() {
    let pcscd = Pcscd::with_readers(2).unwrap();
    assert_eq!(pcscd.readers().unwrap().len(), 4);
    let (success, _) = end({
        let mut command = pcscd.command("yubico-piv-tool");
        command.args(["-a", "status"]);
        command
    });
    assert!(!success);
    let _cards = [0, 2].map(|slot| {
        VirtualCard::start(pcscd.slot(slot), CardOptions::new(u32::from(slot) + 1, Firmware::V5_4_3)).unwrap()
    });
    pcscd.wait_for_cards(2).unwrap();
    let present: Vec<bool> = pcscd.readers().unwrap().into_iter().map(|(_, card)| card).collect();
    assert_eq!(present, [true, false, true, false]);
}

#[test]
fn a_card_is_kept_in_its_file() {
    let pcscd = Pcscd::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = CardOptions::new(SERIAL, Firmware::V5_4_3);
    options.state = Some(folder.path().join("card.json"));
    let run = |words: &str| {
        let mut command = pcscd.command("yubico-piv-tool");
        command.args(words.split(' ')).current_dir(folder.path());
        let (success, said) = end(command);
        assert!(success, "{words}: {said}");
    };
    std::fs::write(folder.path().join("message"), "what is signed").unwrap();
    let card = VirtualCard::start(pcscd.slot(0), options.clone()).unwrap();
    pcscd.wait_for_cards(1).unwrap();
    run("-s 9e -A ECCP256 -a generate -o pub.pem");
    drop(card);
    pcscd.wait_for_cards(0).unwrap();
    let _card = VirtualCard::start(pcscd.slot(0), options).unwrap();
    pcscd.wait_for_cards(1).unwrap();
    run("-s 9e -a version --sign -A ECCP256 -H SHA256 -i message -o signature");
    let mut command = std::process::Command::new("openssl");
    command.args("dgst -sha256 -verify pub.pem -signature signature message".split(' '));
    let (success, said) = end({
        command.current_dir(folder.path());
        command
    });
    assert!(success, "{said}");
}
