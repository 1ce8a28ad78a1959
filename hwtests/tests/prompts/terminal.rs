//! `signer` at a terminal: it asks by itself.

use hwtests::{
    daemon::Daemon,
    engines::{Engine, SoftHsm},
    process::{self, Signal},
    pty::Terminal,
};
use signer_contract::PinSetup;
use signerd_api::PinEnd;

use crate::support::{Answerer, card_without_pin, name, pin, wrong_pin};

fn file(daemon: &Daemon, name: &str) {
    std::fs::write(daemon.folder().join(name), name).unwrap();
}

fn sign(daemon: &Daemon, key: &str, more: &[&str]) -> Terminal {
    let mut command = daemon.signer();
    command.args(["sign", "release.tar.gz", "--key", key]).args(more);
    Terminal::start(&command)
}

/// Who asks, which card, which key, what for, tries left; wrong, and asked again; right, and signed. Nothing is shown of it.
#[tokio::test(flavor = "multi_thread")]
async fn signing_asks_for_the_pin() {
    let (card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    let mut terminal = sign(&daemon, "yubikey/9c", &[]);
    terminal.sees("YubiKey 5.7.1 serial 12345678 needs its PIN");
    terminal.sees("asks to sign release.tar.gz with yubikey/9c (ecdsa-sha256 of the digest sha256:");
    terminal.sees("3 tries left");
    terminal.sees("PIN of yubikey: ");
    let wrong = wrong_pin(&card);
    terminal.types(&format!("{wrong}\r"));
    terminal.sees("refused the PIN");
    terminal.sees("2 tries left");
    terminal.sees("PIN of yubikey: ");
    // Corrected while it is typed.
    terminal.types(&format!("99\u{15}{}9\u{7f}\r", card.pin()));
    terminal.sees("signed release.tar.gz with yubikey/9c");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{screen}");
    assert!(!screen.contains(&card.pin()) && !screen.contains(&wrong), "the PIN is shown:\n{screen}");
    assert!(!screen.contains("elsewhere"), "{screen}");
    assert_eq!(card.card().state().counters.failed_verifies, 1);
    // It is known now.
    let (status, screen) = sign(&daemon, "yubikey/9c", &[]).end();
    assert!(status.success() && !screen.contains("PIN"), "{screen}");
}

/// A token that shows no key without its PIN: whatever needs it asks.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_asks_that_needs_it() {
    let hsm = SoftHsm::start();
    let daemon = Daemon::start(&[hsm.toml("hsm", PinSetup::Missing)]).await;
    daemon.backend("hsm").await;
    file(&daemon, "release.tar.gz");
    let commands: [(&[&str], &str); 4] = [
        (
            &["keys", "create", "hsm/release"],
            "asks to create hsm/release (make a key of the kind ecdsa-p256)",
        ),
        (&["keys", "show", "hsm/release"], "asks to look at a key hsm/release"),
        (&["sign", "release.tar.gz", "--key", "hsm/release"], "hsm/release"),
        (&["keys", "delete", "hsm/release", "--yes"], "asks to delete hsm/release (destroy the key)"),
    ];
    for (arguments, text) in commands {
        let mut command = daemon.signer();
        command.args(arguments);
        let mut terminal = Terminal::start(&command);
        terminal.sees(text);
        terminal.sees("PIN of hsm: ");
        terminal.types(&format!("{}\n", hsm.pin()));
        let (status, screen) = terminal.end();
        assert!(status.success(), "{arguments:?}\n{screen}");
        daemon.client().lock(&name("hsm")).await.unwrap();
    }
}

/// Whoever does not want to gives it up, for itself alone; the terminal is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_withdraws_the_question() {
    let (card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    let mut command = std::process::Command::new("/bin/sh");
    command.envs(daemon.signer().get_envs().filter_map(|(n, v)| Some((n, v?)))).current_dir(daemon.folder());
    let signer = hwtests::programs::ours("signer");
    let line =
        format!("{} sign release.tar.gz --key yubikey/9a; echo ended with $?; stty -a", signer.display());
    command.args(["-c", &line]);
    let mut person = Answerer::listen(&daemon).await;
    let mut terminal = Terminal::start(&command);
    terminal.sees("PIN of yubikey: ");
    terminal.types("\u{3}");
    terminal.sees("error: the PIN was not given");
    terminal.sees("ended with 4");
    terminal.sees(" echo ");
    assert_eq!(person.end().await.1, PinEnd::Withdrawn);
    // The same when it is killed politely.
    let line = line.replace("stty -a", "stty -a; true");
    command = std::process::Command::new("/bin/sh");
    command.envs(daemon.signer().get_envs().filter_map(|(n, v)| Some((n, v?)))).current_dir(daemon.folder());
    command.args(["-c", &line]);
    let mut terminal = Terminal::start(&command);
    terminal.sees("PIN of yubikey: ");
    for pid in terminal.processes() {
        if process::read(pid, "comm").starts_with(b"signer") {
            process::signal(pid, Signal::TERM);
        }
    }
    terminal.sees("ended with 1");
    terminal.sees(" echo ");
    assert_eq!(card.card().state().counters.verifies, 0);
}

/// Two terminals: answered at one, the other goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn two_terminals_and_one_answer() {
    let (card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    let mut one = sign(&daemon, "yubikey/9a", &["--bundle", "one"]);
    one.sees("PIN of yubikey: ");
    let mut two = sign(&daemon, "yubikey/9c", &["--bundle", "two"]);
    two.sees("yubikey/9c");
    two.sees("PIN of yubikey: ");
    two.types("12");
    one.types(&format!("{}\r", card.pin()));
    for (terminal, what) in [(one, "one"), (two, "two")] {
        let (status, screen) = terminal.end();
        assert!(status.success(), "{what}: {screen}");
        assert_eq!(screen.contains("given elsewhere"), what == "two", "{what}: {screen}");
    }
    let counters = card.card().state().counters;
    assert_eq!(counters.failed_verifies, 0);
}

/// `--no-input` and no terminal: no question, the error of always, at once.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_who_does_not_want_to() {
    let (_card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    for arguments in [&["--no-input"][..], &["--no-input", "--pinentry", "/bin/false"]] {
        let (status, screen) = sign(&daemon, "yubikey/9a", arguments).end();
        assert_eq!(status.code(), Some(4), "{screen}");
        assert!(screen.contains("signer keys unlock yubikey") && !screen.contains("PIN of"), "{screen}");
    }
    // setsid: without a terminal at all.
    let mut command = std::process::Command::new(hwtests::programs::system("setsid", "util-linux"));
    command.arg("--wait").arg(hwtests::programs::ours("signer")).args([
        "sign",
        "release.tar.gz",
        "--key",
        "yubikey/9a",
    ]);
    command.envs(daemon.signer().get_envs().filter_map(|(n, v)| Some((n, v?)))).current_dir(daemon.folder());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("signer keys unlock yubikey"));
    let (status, screen) = {
        let mut command = daemon.signer();
        command.args(["keys", "unlock", "yubikey", "--no-input"]);
        Terminal::start(&command).end()
    };
    assert_eq!(status.code(), Some(4), "{screen}");
    assert!(screen.contains("--no-input forbids") && screen.contains("--pin-file"), "{screen}");
}

/// In the background a program must not touch the terminal: it would be stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_the_background_is_not_stopped() {
    let (_card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    let mut command = std::process::Command::new("/bin/sh");
    command.envs(daemon.signer().get_envs().filter_map(|(n, v)| Some((n, v?)))).current_dir(daemon.folder());
    let signer = hwtests::programs::ours("signer");
    let line = format!(
        "set -m; {} sign release.tar.gz --key yubikey/9a </dev/null & wait $!; echo ended with $?",
        signer.display()
    );
    command.args(["-c", &line]);
    let mut terminal = Terminal::start(&command);
    terminal.sees("signer keys unlock yubikey");
    terminal.sees("ended with 4");
}

/// With one try left nobody is asked in passing.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_try_is_not_asked_for_in_passing() {
    let (card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    card.card().set_tries_left(Some(1), None);
    let (status, screen) = sign(&daemon, "yubikey/9a", &[]).end();
    assert_eq!(status.code(), Some(4), "{screen}");
    assert!(screen.contains("signer keys unlock yubikey --use-last-try"), "{screen}");
    assert!(!screen.contains("PIN of yubikey:"), "{screen}");
    let mut command = daemon.signer();
    command.args(["keys", "unlock", "yubikey", "--use-last-try"]);
    let mut terminal = Terminal::start(&command);
    terminal.sees("PIN of yubikey: ");
    terminal.types(&format!("{}\r", card.pin()));
    terminal.sees("unlocked yubikey");
    let (status, screen) = sign(&daemon, "yubikey/9a", &[]).end();
    assert!(status.success(), "{screen}");
}

/// A desktop session that answers for a build without a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_answers_for_a_build() {
    let (card, daemon) = card_without_pin().await;
    file(&daemon, "release.tar.gz");
    let mut command = daemon.signer();
    command.args(["watch", "--answer"]);
    let mut session = Terminal::start(&command);
    session.sees("watching, and asking for PINs");
    let build = |key: &str| {
        let mut command = daemon.signer();
        command.args(["sign", "release.tar.gz", "--bundle", "-", "--no-input", "--key", key]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let first = build("yubikey/9a");
    session.sees("asks to sign release.tar.gz with yubikey/9a");
    session.sees("PIN of yubikey: ");
    session.types("\u{3}");
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("was asked for the PIN, and refused"), "{said}");
    let builds = [build("yubikey/9a"), build("yubikey/9c")];
    session.sees("PIN of yubikey: ");
    session.types(&format!("{}\r", card.pin()));
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    session.sees("pin-request-ended");
    assert!(!session.screen().contains(&card.pin()));
    // It goes on, and is asked again when it is time.
    daemon.client().lock(&name("yubikey")).await.unwrap();
    let third = build("yubikey/9c");
    session.sees("PIN of yubikey: ");
    daemon.client().unlock(&name("yubikey"), pin(&card.pin())).await.unwrap();
    session.sees("given elsewhere");
    assert!(third.wait_with_output().unwrap().status.success());
}
