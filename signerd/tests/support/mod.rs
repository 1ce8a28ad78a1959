//! A daemon of its own for each test: the real program, on a temporary folder, with keys in files.

#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::{
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use signerd_api::Client;
use tempfile::TempDir;

pub struct Daemon {
    pub folder: TempDir,
    child: Option<Child>,
}

/// A backend in files whose passphrase the daemon makes.
pub const SOFT: &str = "[[backend]]\nname = \"soft\"\nkind = \"software\"\n";

/// Everything for the user of the tests.
pub fn all_for_me() -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!("[[grant]]\ncallers = [\"uid:{uid}\"]\nkeys = [\"*\"]\noperations = [\"*\"]\n")
}

impl Daemon {
    /// Starts a daemon with a backend in files, and everything for the user of the tests.
    pub async fn start() -> Self {
        Self::with(&format!("{SOFT}{}", all_for_me())).await
    }

    /// Starts a daemon with this configuration, beside its socket and state.
    pub async fn with(configuration: &str) -> Self {
        let mut this = Self::prepare(configuration);
        this.launch(&[]);
        this.ready().await;
        this
    }

    pub fn prepare(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Other users have to reach the socket.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let this = Self { folder, child: None };
        this.configure(configuration);
        this
    }

    pub fn configure(&self, configuration: &str) {
        let text = format!(
            "socket = \"{}\"\nstate = \"state\"\nsocket_mode = \"0666\"\n{configuration}",
            self.socket().display()
        );
        std::fs::write(self.file("signerd.toml"), text).unwrap();
    }

    pub fn launch(&mut self, environment: &[(&str, &str)]) {
        let log = std::fs::File::options().create(true).append(true).open(self.file("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_signerd"));
        command
            .arg("--config")
            .arg(self.file("signerd.toml"))
            .env_clear()
            .env("RUST_LOG", "trace")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub async fn ready(&mut self) {
        let begin = Instant::now();
        while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("signerd ended with {status}: {}", self.log());
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "signerd does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.file("signerd.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Makes it read its configuration again, and waits until it has.
    pub async fn reload(&self, configuration: &str) {
        self.configure(configuration);
        let lines = |log: &str| log.matches("configuration is").count();
        let before = lines(&self.log());
        self.signal(rustix::process::Signal::HUP);
        let begin = Instant::now();
        while lines(&self.log()) == before {
            assert!(begin.elapsed() < Duration::from_secs(10), "it does not reload: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to stop, and waits.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("signerd said:\n{}", self.log());
        }
    }
}
