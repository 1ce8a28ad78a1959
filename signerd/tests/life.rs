//! The daemon's life: start, reload, stop, and what surrounds it.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use signer_core::{
    ErrorKind, GenerateRequest, HashAlgorithm, Input, KeyType, SignRequest, SignatureAlgorithm,
};
use support::{Daemon, SOFT, all_for_me};

async fn create(daemon: &Daemon, name: &str) {
    let request = GenerateRequest::new(name.parse().unwrap(), KeyType::EcdsaP256);
    daemon.client().create(&"soft".parse().unwrap(), request).await.unwrap();
}

#[tokio::test]
async fn keys_outlive_the_daemon() {
    let mut daemon = Daemon::start().await;
    create(&daemon, "k").await;
    let before = daemon.client().key_info("soft/k").await.unwrap();
    assert!(daemon.stop().await.success());
    assert!(!daemon.socket().exists());
    daemon.launch(&[]);
    daemon.ready().await;
    assert_eq!(daemon.client().key_info("soft/k").await.unwrap(), before);
    daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap();
}

#[tokio::test]
async fn a_killed_daemon_leaves_a_socket_that_the_next_one_replaces() {
    let mut daemon = Daemon::start().await;
    create(&daemon, "k").await;
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    assert!(daemon.socket().exists());
    let error = daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone);
    daemon.launch(&[]);
    daemon.ready().await;
    daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap();
}

#[tokio::test]
async fn the_socket_has_its_mode_and_the_state_is_private() {
    let mut daemon = Daemon::prepare(&format!("{SOFT}{}", all_for_me()));
    let text = std::fs::read_to_string(daemon.file("signerd.toml")).unwrap();
    std::fs::write(daemon.file("signerd.toml"), text.replace("0666", "0620")).unwrap();
    daemon.launch(&[]);
    daemon.ready().await;
    create(&daemon, "k").await;
    let metadata = std::fs::metadata(daemon.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o620);
    for (name, mode) in
        [("state", 0o700), ("state/lock", 0o600), ("state/soft.passphrase", 0o600), ("state/keys", 0o700)]
    {
        let metadata = std::fs::metadata(daemon.file(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[tokio::test]
async fn a_second_daemon_is_told_who_has_the_place() {
    let daemon = Daemon::start().await;
    let other = tempfile::tempdir().unwrap();
    let socket = daemon.socket().display().to_string();
    let state = daemon.file("state").display().to_string();
    let fresh = |name: &str| other.path().join(name).display().to_string();
    for (socket, state, what) in
        [(socket, fresh("state"), "socket"), (fresh("socket"), state, "state folder")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_signerd"))
            .args(["--socket", &socket, "--state", &state])
            .env_clear()
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(what) && text.contains(&format!("process {}", daemon.pid())), "{text}");
    }
    create(&daemon, "still-there").await;
}

#[tokio::test]
async fn without_a_configuration_it_is_for_the_user_who_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_signerd"))
        .env_clear()
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env("SIGNERD_CONFIG", "")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = folder.path().join("signerd/signerd.sock");
    let client = signerd_api::Client::new(&socket);
    let begin = Instant::now();
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let request = GenerateRequest::new("mine".parse().unwrap(), KeyType::Ed25519);
    client.create(&"soft".parse().unwrap(), request).await.unwrap();
    client.sign("soft/mine", None, Input::Message("x".into())).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_faulty_configuration_names_file_and_line_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signerd.toml");
    std::fs::write(&file, "socket = \"/s\"\n\nsokcet = \"/s\"\n").unwrap();
    for arguments in [vec!["check-config", file.to_str().unwrap()], vec!["--config", file.to_str().unwrap()]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_signerd")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("signerd.toml:3:1") && text.contains("sokcet"), "{text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_signerd")).arg("example-config").output().unwrap();
    std::fs::write(&file, &output.stdout).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_signerd")).arg("check-config").arg(&file).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("user:root may"));
    let explain = |caller: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signerd"));
        command
            .args(["explain", "--caller", caller, "--operation", "sign", "--key", "soft/x", "--config"])
            .arg(&file);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(explain("user:root").0, 0);
    let (code, text) = explain("uid:4242");
    assert_eq!(code, 4);
    assert!(text.contains("does not name the caller"), "{text}");
}

/// Signs until told to stop; every failure is counted with its text.
struct Load {
    running: Arc<AtomicBool>,
    signed: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<Vec<signer_core::Error>>,
}

impl Load {
    fn start(daemon: &Daemon) -> Self {
        let (running, signed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (client, running, signed) = (daemon.client(), running.clone(), signed.clone());
            tasks.spawn(async move {
                let mut failures = Vec::new();
                while running.load(Relaxed) {
                    match client.sign("soft/k", None, Input::Message("x".into())).await {
                        Ok(_) => _ = signed.fetch_add(1, Relaxed),
                        Err(error) => {
                            failures.push(error);
                            break;
                        }
                    }
                }
                failures
            });
        }
        Self { running, signed, tasks }
    }

    async fn reach(&self, count: usize) {
        while self.signed.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> Vec<signer_core::Error> {
        self.running.store(false, Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn reloads_under_load_drop_nothing() {
    let daemon = Daemon::start().await;
    create(&daemon, "k").await;
    let load = Load::start(&daemon);
    for n in 1..=20 {
        load.reach(n * 50).await;
        daemon.reload(&format!("# {n}\n{SOFT}{}[limits]\nqueue = {}\n", all_for_me(), 1000 + n)).await;
    }
    assert_eq!(load.stop().await, []);
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing() {
    let daemon = Daemon::start().await;
    create(&daemon, "k").await;
    daemon.reload("no toml at all").await;
    assert!(daemon.log().contains("not taken over"));
    daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap();
}

#[tokio::test]
async fn a_reload_adds_and_takes_backends() {
    let daemon = Daemon::start().await;
    create(&daemon, "k").await;
    let client = daemon.client();
    let more = format!(
        "{SOFT}[[backend]]\nname = \"more\"\nkind = \"software\"\ndirectory = \"more\"\n{}",
        all_for_me()
    );
    daemon.reload(&more).await;
    assert_eq!(client.backends().await.unwrap().len(), 2);
    let request = GenerateRequest::new("m".parse().unwrap(), KeyType::EcdsaP256);
    client.create(&"more".parse().unwrap(), request).await.unwrap();
    client.sign("more/m", None, Input::Message("x".into())).await.unwrap();
    daemon.reload(&format!("{SOFT}{}", all_for_me())).await;
    assert_eq!(
        client.sign("more/m", None, Input::Message("x".into())).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
}

#[tokio::test]
async fn a_stop_under_load_answers_all_that_it_took() {
    let mut daemon = Daemon::start().await;
    create(&daemon, "k").await;
    let load = Load::start(&daemon);
    load.reach(200).await;
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    let stream = daemon.client().sign_stream("soft/k", algorithm, 16);
    let streaming = tokio::spawn(async move {
        let request = SignRequest::message(algorithm, "x");
        loop {
            if let Err(error) = stream.sign(request.clone()).await {
                return error;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    assert!(daemon.stop().await.success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // What came too late is refused so that it can be tried again; nothing else went wrong.
    for error in load.stop().await.into_iter().chain([streaming.await.unwrap()]) {
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(!daemon.socket().exists());
    assert!(daemon.log().contains("stopped"), "{}", daemon.log());
    assert!(!daemon.log().contains("broken off"), "{}", daemon.log());
}

#[tokio::test]
async fn a_passphrase_can_be_left_to_a_person() {
    let configuration = format!("{SOFT}passphrase = \"prompt\"\n{}", all_for_me());
    let mut daemon = Daemon::with(&configuration).await;
    let client = daemon.client();
    let soft = "soft".parse().unwrap();
    let request = || GenerateRequest::new("k".parse().unwrap(), KeyType::EcdsaP256);
    let error = client.create(&soft, request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinRequired, "{error}");
    assert!(error.to_string().contains("signer keys unlock soft"), "{error}");
    let pin = |text: &str| signer_core::UnlockRequest {
        pin: signer_core::Pin::new(text.into()).unwrap(),
        use_last_try: false,
    };
    client.unlock(&soft, pin("correct horse")).await.unwrap();
    client.create(&soft, request()).await.unwrap();
    client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
    assert!(daemon.stop().await.success());
    daemon.launch(&[]);
    daemon.ready().await;
    let client = daemon.client();
    let error = client.unlock(&soft, pin("wrong horse")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WrongPin { .. }), "{error:?}");
    client.unlock(&soft, pin("correct horse")).await.unwrap();
    client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
    assert!(!daemon.log().contains("horse"));
}

#[tokio::test]
async fn metrics_are_served_when_asked_for() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let daemon =
        Daemon::with(&format!("{SOFT}{}[metrics]\nlisten = \"127.0.0.1:{port}\"\n", all_for_me())).await;
    create(&daemon, "k").await;
    for _ in 0..3 {
        daemon.client().sign("soft/k", None, Input::Message("x".into())).await.unwrap();
    }
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = get("/metrics").await;
    for line in [
        "signerd_requests_total{backend=\"soft\",operation=\"sign\",outcome=\"OK\"} 3",
        "signerd_requests_total{backend=\"soft\",operation=\"create\",outcome=\"OK\"} 1",
        "signerd_backend_up{backend=\"soft\"} 1",
        "signerd_requests_in_flight{backend=\"soft\"} 0",
        "signerd_request_duration_seconds_count{backend=\"soft\",operation=\"sign\"} 3",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("soft/k"), "names of keys are nobody's business: {text}");
    assert!(get("/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn systemd_is_told_and_may_keep_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let notified = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notified.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut daemon = Daemon::prepare(&format!("{SOFT}{}", all_for_me()));
    let path = folder.path().join("notify").display().to_string();
    daemon.launch(&[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "300000")]);
    let mut seen = String::new();
    let mut wait_for = |word: &str| {
        let begin = Instant::now();
        while !seen.contains(word) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{word} is missing: {seen}");
            let mut buffer = [0; 1024];
            let n = notified.recv(&mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
        seen.clear();
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    wait_for("MONOTONIC_USEC=");
    wait_for("READY=1");
    daemon.signal(Signal::TERM);
    wait_for("STOPPING=1");
    assert!(daemon.ended().await.success());

    // As systemd does: the socket is file descriptor 3, and stays when the daemon ends.
    let socket = folder.path().join("activated");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0; exec 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_signerd"))
        .args(["--config"])
        .arg(daemon.file("signerd.toml"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())))
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let client = signerd_api::Client::new(&socket);
    assert_eq!(client.backends().await.unwrap().len(), 1);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(socket.exists());
}

#[tokio::test]
async fn a_backend_that_cannot_be_started_hurts_nobody_else() {
    let missing = "[[backend]]\nname = \"hsm\"\nkind = \"driver\"\nprogram = \"/no/such/driver\"\n";
    let daemon = Daemon::with(&format!("{SOFT}{missing}{}", all_for_me())).await;
    create(&daemon, "k").await;
    let client = daemon.client();
    client.sign("soft/k", None, Input::Message("x".into())).await.unwrap();
    let error = client.sign("hsm/k", None, Input::Message("x".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error}");
    assert!(error.to_string().contains("/no/such/driver"), "{error}");
    let backends = client.backends().await.unwrap();
    assert!(backends.iter().any(|b| b.name.as_str() == "hsm" && b.health.is_some()));
    let list = client.keys(None, signer_core::ListRequest::default()).await.unwrap();
    assert_eq!(list.keys.len(), 1);
    assert_eq!(list.unavailable[0].0, "hsm");
}
