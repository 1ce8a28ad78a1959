//! Through a pinentry program: Debian's own, and scripts that do what such programs should not do.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use hwtests::{daemon::Daemon, engines::Engine, programs, pty::Terminal};

use crate::support::{card_without_pin, wrong_pin};

fn sign(daemon: &Daemon, pinentry: &std::path::Path) -> std::process::Command {
    std::fs::write(daemon.folder().join("100% release.tar.gz"), "x").unwrap();
    let mut command = daemon.signer();
    command.args(["sign", "100% release.tar.gz", "--bundle", "-", "--key", "yubikey/9a"]);
    command.arg("--pinentry").arg(pinentry).env("LANG", "C.UTF-8");
    command
}

/// A program that speaks as it is told. It notes what it hears.
fn script(daemon: &Daemon, name: &str, body: &str) -> PathBuf {
    let path = daemon.folder().join(name);
    let heard = daemon.folder().join(format!("{name}.heard"));
    let text = format!("#!/bin/sh\nexec 3>>'{}'\n{body}\n", heard.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The usual course, but for the answer to GETPIN.
fn course(answer: &str) -> String {
    format!(
        "echo OK Pleased to meet you\nwhile read -r line; do\n  printf '%s\\n' \"$line\" >&3\n  case $line in\n  \
         GETPIN*) {answer} ;;\n  OPTION\\ lc-*) echo ERR 83886254 Unknown option ;;\n  *) echo OK ;;\n  esac\ndone"
    )
}

/// Debian's pinentry-curses, drawn into the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn debians_pinentry_curses_asks() {
    let (card, daemon) = card_without_pin().await;
    let program = programs::system("pinentry-curses", "pinentry-curses");
    let mut terminal = Terminal::start(&sign(&daemon, &program));
    terminal.sees("needs its PIN");
    terminal.sees("PIN of yubikey:");
    let wrong = wrong_pin(&card);
    terminal.types(&format!("{wrong}\r"));
    terminal.sees("refused the PIN");
    terminal.types(&format!("{}\r", card.pin()));
    terminal.sees("messageSignature");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{screen}");
    assert!(!screen.contains(&card.pin()), "{screen}");
    assert_eq!(card.card().state().counters.failed_verifies, 1);
}

/// Debian's pinentry-tty, by the environment's word.
#[tokio::test(flavor = "multi_thread")]
async fn debians_pinentry_tty_asks() {
    let (card, daemon) = card_without_pin().await;
    let program = programs::system("pinentry-tty", "pinentry-tty");
    std::fs::write(daemon.folder().join("file"), "x").unwrap();
    let mut command = daemon.signer();
    command.args(["sign", "file", "--key", "yubikey/9c"]).env("SIGNER_PINENTRY", &program);
    let mut terminal = Terminal::start(&command);
    terminal.sees("YubiKey 5.7.1 serial 12345678 needs its PIN");
    terminal.sees("sign file with yubikey/9c");
    terminal.sees("3 tries left");
    terminal.sees("PIN of yubikey:");
    terminal.types(&format!("{}\r", card.pin()));
    terminal.sees("signed file with yubikey/9c");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{screen}");
}

/// Without a terminal, with a program: it is told what it has to show, one line each, and escaped.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_all_that_is_to_be_known() {
    let (card, daemon) = card_without_pin().await;
    // A percent sign in front, as in a PIN that has one: escaped by the program.
    let answer = format!(
        "echo 'S PASSWORD_FROM_NOWHERE'; echo 'D %{:02x}{}'; echo OK",
        card.pin().as_bytes()[0],
        &card.pin()[1..]
    );
    let program = script(&daemon, "polite", &course(&answer));
    let output = programs::output(&mut sign(&daemon, &program));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let heard = std::fs::read_to_string(daemon.folder().join("polite.heard")).unwrap();
    let line = |start: &str| {
        heard.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {heard}"))
    };
    let description = line("SETDESC ");
    assert!(
        description.starts_with("SETDESC YubiKey 5.7.1 serial 12345678 needs its PIN%0A"),
        "{description}"
    );
    assert!(description.contains("asks to sign 100%25 release.tar.gz with yubikey/9a"), "{description}");
    assert!(description.ends_with("%0A3 tries left"), "{description}");
    assert_eq!(line("SETPROMPT"), "SETPROMPT PIN of yubikey:");
    assert!(line("SETTIMEOUT ").split(' ').next_back().unwrap().parse::<u64>().unwrap() > 60, "{heard}");
    assert!(!heard.contains(&card.pin()));
}

/// Cancelled, and everything that goes wrong with such a program: a sentence, no try, and no endless wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_is_told_of() {
    let (card, daemon) = card_without_pin().await;
    let endless = "head -c 100000 /dev/zero | tr '\\0' x; sleep 5".to_owned();
    let cases = [
        ("cancelled", course("echo ERR 83886179 Operation cancelled"), "the PIN was not given"),
        ("timed-out", course("echo ERR 83886142 Timeout"), "the PIN was not given"),
        ("empty", course("echo OK"), "the PIN was not given"),
        ("broken", course("echo ERR 83886340 No display"), "it answers GETPIN with error 260, No display"),
        ("ends", "echo OK hello".to_owned(), "it has ended"),
        ("silent", "exit 0".to_owned(), "it has ended"),
        ("garbage", "echo 220 smtp.example.com ESMTP; cat".to_owned(), "it does not speak Assuan"),
        ("endless", endless, "too long"),
        (
            "talkative",
            course(
                "for i in $(seq 1 20); do printf 'D '; head -c 900 /dev/zero | tr '\\0' 1; echo; done; echo OK",
            ),
            "more than any PIN",
        ),
        (
            "inquiry",
            course("echo INQUIRE QUALITY x; read -r line; echo \"ERR 83886179 it says $line\""),
            "the PIN was not given",
        ),
    ];
    for (name, body, expected) in cases {
        let program = script(&daemon, name, &body);
        let output = programs::output(&mut sign(&daemon, &program));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
    let missing = programs::output(&mut sign(&daemon, std::path::Path::new("/nonexistent/pinentry")));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        said.contains("/nonexistent/pinentry cannot be started") && said.contains("--pinentry"),
        "{said}"
    );
    assert_eq!(card.card().state().counters.verifies, 0);
}
