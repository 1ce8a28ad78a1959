//! Setting up, looking for faults, and what happens when the daemon is not there.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use support::{Daemon, Run, program, signer};

fn run(command: &mut Command) -> Run {
    Run::of(&["…"], command.output().unwrap())
}

#[test]
fn without_a_daemon_everybody_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none");
    let socket = socket.to_str().unwrap();
    for arguments in [
        &["sign", "f", "--key", "soft/a"][..],
        &["keys", "list"],
        &["status"],
        &["watch"],
        &["verify", "f", "--key", "soft/a"],
        &["keys", "create", "soft/a"],
    ] {
        let begin = Instant::now();
        let said = run(signer(arguments).args(["--socket", socket]))
            .exits(3)
            .says(socket)
            .says("is signerd running?");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn a_daemon_that_is_killed_and_started_again_costs_time_only() {
    let mut daemon = Daemon::start();
    daemon.create("soft/k", "ecdsa-p256");
    let file = daemon.file("f", "x");
    daemon.kill();
    let call = daemon
        .command(&["sign", &file, "--key", "soft/k"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    daemon.begin();
    let output = call.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.run(&["verify", &file, "--key", "soft/k"]).done();
    daemon.kill();
    let begin = Instant::now();
    daemon.run(&["sign", &file, "--key", "soft/k"]).exits(3).says("listens");
    assert!(begin.elapsed() < Duration::from_secs(5), "a daemon that stays away is not waited for");
}

#[test]
fn status_says_how_the_backends_are() {
    let daemon = Daemon::start();
    // Backends are started while the daemon already answers.
    let begin = Instant::now();
    while daemon.run(&["status"]).code != 0 && begin.elapsed() < Duration::from_secs(10) {}
    let said = daemon.run(&["status"]).done();
    assert!(said.contains(": serving") && said.contains("soft"), "{said}");
    let status = daemon.run(&["status", "--output", "json"]).exits(0).json();
    assert_eq!(status["backends"][0]["healthy"], true);
    assert_eq!(status["serving"], true);
}

#[test]
fn init_writes_what_the_daemon_takes_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("signerd/signerd.toml");
    let init =
        |arguments: &[&str]| run(signer(&["init"]).args(arguments).env("XDG_CONFIG_HOME", folder.path()));
    let said = init(&[]).done();
    assert!(said.contains("signer keys create soft/release"), "{said}");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let check = || {
        let output = Command::new(program("signerd"))
            .arg("check-config")
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    check();
    init(&[]).exits(1).says("already there");
    let module = folder.path().join("module.so");
    fs::write(&module, "").unwrap();
    let pin = folder.path().join("a \"pin\"");
    fs::write(&pin, "1234\n").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let (module, pin) = (module.to_str().unwrap(), pin.to_str().unwrap());
    let token = ["--force", "--systemd", "--pkcs11", module, "--token", "a 'token'", "--pin-file", pin];
    init(&token).done();
    check();
    let unit = fs::read_to_string(folder.path().join("systemd/user/signerd.service")).unwrap();
    assert!(unit.contains("Type=notify") && unit.contains(config.to_str().unwrap()), "{unit}");
    init(&["--pkcs11", module]).exits(2);
}

#[test]
fn the_doctor_finds_nothing_wrong_with_what_works() {
    let daemon = Daemon::start();
    let config = daemon.path("signerd.toml");
    let said = run(&mut daemon.command(&["doctor", "--config", config.to_str().unwrap()])).done();
    assert!(said.contains("no problem was found"), "{said}");
    // The socket is found in the configuration as well.
    run(signer(&["doctor", "--config", config.to_str().unwrap()]).env("HOME", "/nonexistent")).done();
}

#[test]
fn the_doctor_says_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = at("signerd.toml");
    let doctor = || run(&mut signer(&["doctor", "--config", &config]));
    let missing = doctor().exits(1).out;
    assert!(missing.contains("cannot be read") && missing.contains("fix: run `signer init`"), "{missing}");

    fs::write(at("pin"), "1234\n").unwrap();
    fs::set_permissions(at("pin"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = |module: &str, extra: &str| {
        format!(
            "socket = \"{}\"\n{extra}[[backend]]\nname = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"{module}\"\ntoken = \"t\"\n\
             pin = {{ file = \"{}\" }}\n",
            at("s"),
            at("pin")
        )
    };
    fs::write(&config, text(&at("no.so"), "")).unwrap();
    let found = doctor().exits(1).out;
    assert!(found.contains(&format!("fix: chmod 600 {}", at("pin"))), "{found}");
    assert!(found.contains(&format!("the PKCS#11 module {} is not there", at("no.so"))), "{found}");
    assert!(found.contains("there is no socket"), "{found}");

    fs::write(at("no.so"), "not a library").unwrap();
    fs::write(&config, text(&at("no.so"), "colour = \"red\"\n")).unwrap();
    let found = doctor().exits(1).out;
    assert!(found.contains("does not work"), "{found}");
    assert!(found.contains("is not valid") && found.contains("colour"), "{found}");

    fs::write(&config, "this is not TOML").unwrap();
    assert!(doctor().exits(1).out.contains("is not TOML"));
    let objects =
        run(signer(&["doctor", "--config", &config, "--output", "json"]).env("HOME", "/x")).exits(1).json();
    assert!(objects["findings"].as_array().unwrap().iter().any(|f| f["ok"] == false && f["fix"].is_string()));
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "demo").unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    program("signerd");
    let demo =
        |arguments: &[&str]| run(signer(&["demo"]).arg(&file).args(arguments).env("TMPDIR", &temporary));
    let said = demo(&[]).done();
    for part in ["$ signer keys create", "$ signer sign", "\nverified ", "NOT verified", "$ signerd --config"]
    {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "the temporary folder is gone");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is written beside the file");
    demo(&["--keep"]).done();
    let kept = fs::read_dir(&temporary).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("signerd.toml").exists() && kept.join("a file.sigstore.json").exists());
    let running = Command::new("pgrep").arg("-f").arg(&kept).output().unwrap();
    assert!(running.stdout.is_empty(), "the daemon is stopped");
    run(&mut signer(&["demo", "/nonexistent"])).exits(1).says("cannot be read");
}

#[test]
fn completions_and_man_pages_come_from_the_same_source() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&mut signer(&["completions", shell])).done().contains("doctor"));
    }
    let folder = tempfile::tempdir().unwrap();
    run(&mut signer(&["man", folder.path().to_str().unwrap()])).done();
    let page = fs::read_to_string(folder.path().join("signer-keys-create.1")).unwrap();
    assert!(page.contains("CKA_ID") && page.contains("Examples"), "{page}");
    assert!(run(&mut signer(&["man"])).done().contains(".TH signer"));
}
