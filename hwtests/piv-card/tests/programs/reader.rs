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

    fn touch_key(policy: &str) -> (Self, String) {
        let bench = Self::new(Firmware::V5_4_3);
        bench.run(
            "yubico-piv-tool",
            &format!("-s 9a -A ECCP256 --pin-policy never --touch-policy {policy} -a generate -o pub.pem"),
        );
        (bench, "-s 9a --sign -A ECCP256 -H SHA256 -i message -o signature".into())
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
fn a_cached_touch_serves_the_next_signatures() {
    let (bench, sign) = Bench::touch_key("cached");
    let mut child = bench.begin(&sign);
    assert!(bench.card.wait_for_touch_request(PATIENCE));
    bench.card.touch();
    assert!(child.wait().unwrap().success());
    // A card of its own is not reset between two processes, if the first one leaves it powered; yubico-piv-tool resets it.
    bench.run("yubico-piv-tool", &format!("{sign} -a verify-pin -P 123456"));
    assert_eq!(bench.card.state().counters.touches_asked, 1);
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

    bench.card.insert();
    bench.pcscd.wait_for_cards(1).unwrap();
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
    bench.pcscd.wait_for_cards(1).unwrap();
    // The reader sees the change at its next look, within half a second.
    std::thread::sleep(Duration::from_millis(600));
    bench.pcscd.wait_for_cards(1).unwrap();
    assert!(serial(&bench).contains("7654321"));
    assert_eq!(bench.card.state().pin_tries, 3);
    bench.card.swap(SERIAL);
    std::thread::sleep(Duration::from_millis(600));
    bench.pcscd.wait_for_cards(1).unwrap();
    assert!(serial(&bench).contains("12345678"));
    assert_eq!(bench.card.state().pin_tries, 2);
}

#[test]
fn faults_hit_what_they_are_meant_for_and_end() {
    let bench = Bench::new(Firmware::V5_4_3);
    let fault = |kind, instruction| bench.card.fault(Fault { kind, count: 1, instruction });
    let verify = "-a verify-pin -P 123456";

    fault(FaultKind::Status(0x6F00), Some(0x20));
    bench.fail("yubico-piv-tool", verify);
    assert_eq!(bench.card.state().counters.verifies, 0);
    for kind in [FaultKind::Cut, FaultKind::RemoveAfter] {
        fault(kind, Some(0x20));
        bench.fail("yubico-piv-tool", verify);
        bench.card.insert();
        bench.pcscd.wait_for_cards(1).unwrap();
    }
    assert_eq!(bench.card.state().counters.verifies, 2);
    fault(FaultKind::Slow(Duration::from_millis(500)), Some(0x20));
    let start = Instant::now();
    bench.run("yubico-piv-tool", verify);
    assert!(start.elapsed() >= Duration::from_millis(500));
    fault(FaultKind::Garbage, Some(0xA4));
    fault(FaultKind::Short, Some(0xFD));
    bench.fail("yubico-piv-tool", verify);
    bench.card.heal();
    bench.run("yubico-piv-tool", verify);
    assert_eq!(bench.card.state().pin_tries, 3);
}

#[test]
fn two_readers_side_by_side_are_worlds_of_their_own() {
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
    run("-s 9e --sign -A ECCP256 -H SHA256 -i message -o signature");
    let mut command = std::process::Command::new("openssl");
    command.args("dgst -sha256 -verify pub.pem -signature signature message".split(' '));
    let (success, said) = end({
        command.current_dir(folder.path());
        command
    });
    assert!(success, "{said}");
}
