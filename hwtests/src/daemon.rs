//! A whole `signerd` in a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{BackendName, GenerateRequest, KeyInfo, KeyName, KeyType};
use signerd_api::{Client, RemoteBackend};
use tempfile::TempDir;

use crate::{eventually, process, programs, toml_path};

/// A running daemon. Dropping it kills it, and its folder goes with it.
pub struct Daemon {
    folder: TempDir,
    child: Mutex<Option<Child>>,
    /// Put before `signerd` on its command line: `prlimit`, `unshare`, …
    wrapper: Vec<String>,
    /// Added to its environment.
    environment: Vec<(String, String)>,
}

/// How long a daemon may take until it serves.
const START: Duration = Duration::from_secs(20);

/// The user of this process may do everything.
pub const GRANT_ALL: &str = "[[grant]]\ncallers = [\"uid:UID\"]\nkeys = [\"*\"]\noperations = [\"*\"]\n";

impl Daemon {
    /// Starts a daemon that serves these `[[backend]]` tables to the user of this process.
    pub async fn start(backends: &[String]) -> Self {
        Self::start_with(&format!("{}\n{GRANT_ALL}", backends.join("\n"))).await
    }

    /// Starts a daemon with this configuration, apart from its socket and state.
    /// `UID` stands for the user of this process.
    pub async fn start_with(configuration: &str) -> Self {
        let this = Self::prepare(configuration);
        this.start_again().await;
        this
    }

    /// Writes the configuration, and starts nothing yet.
    pub fn prepare(configuration: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("signerd-").tempdir().expect("a temporary folder can be made");
        let this = Self { folder, child: Mutex::new(None), wrapper: Vec::new(), environment: Vec::new() };
        this.configure(configuration);
        this
    }

    /// Puts a program and its arguments before `signerd` when it is started.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the configuration; a running daemon reads it on SIGHUP or when it is started again.
    pub fn configure(&self, configuration: &str) {
        let uid = rustix::process::getuid().as_raw().to_string();
        let log = if configuration.contains("[log]") { "" } else { "[log]\nlevel = \"debug\"\n" };
        let text = format!(
            "socket = {}\nstate = {}\n\n{log}\n{}",
            toml_path(&self.socket()),
            toml_path(&self.state()),
            configuration.replace("uid:UID", &format!("uid:{uid}"))
        );
        std::fs::write(self.configuration(), text).expect("the configuration can be written");
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("signerd.toml")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("signerd.sock")
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Its own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged and printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts it, and returns when it serves.
    pub async fn start_again(&self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it, and does not wait.
    pub fn launch(&self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log can be written");
        // It must not outlive a test that is killed. setpriv becomes the daemon: the process number is the daemon's.
        let mut command = Command::new(programs::system("setpriv", "util-linux"));
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.wrapper);
        command.arg(programs::ours("signerd")).arg("--config").arg(self.configuration());
        let child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn()
            .expect("signerd can be started");
        *self.child() = Some(child);
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        let start = Instant::now();
        while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
            let ended = self.child().as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                panic!("signerd ended with {status}; it said:\n{}", self.log());
            }
            assert!(
                start.elapsed() < START,
                "signerd does not serve after {START:?}; it said:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child().as_ref().expect("the daemon was started").id()
    }

    /// Its driver processes.
    pub fn drivers(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Kills it without a warning (SIGKILL).
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and waits.
    pub fn stop(&self) -> std::process::ExitStatus {
        let mut child = self.child().take().expect("the daemon was started");
        process::signal(child.id(), process::Signal::TERM);
        child.wait().expect("a child can be waited for")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self, patience: Duration) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child().as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// One of its backends, through a connection of its own.
    pub async fn backend(&self, name: &str) -> RemoteBackend {
        let name: BackendName = name.parse().expect("the name of a backend");
        let client = self.client().timeout(Duration::from_mins(1));
        // The daemon serves before each of its backends does.
        let started = eventually(START, async || {
            let backends = client.backends().await.unwrap_or_default();
            backends
                .iter()
                .find(|b| b.name == name)
                .is_some_and(|b| b.health.as_ref().is_none_or(|e| !e.what().contains("being started")))
        });
        assert!(started.await, "backend {name} does not start; the daemon said:\n{}", self.log());
        let backend = client.backend(&name).await;
        backend.unwrap_or_else(|e| panic!("backend {name}: {e:?}; the daemon said:\n{}", self.log()))
    }

    /// Makes a P-256 key in one of its backends.
    pub async fn make_key(&self, backend: &str, label: &str) -> KeyInfo {
        self.make_key_of(backend, label, KeyType::EcdsaP256).await
    }

    /// Makes a key of any kind in one of its backends.
    pub async fn make_key_of(&self, backend: &str, label: &str, key_type: KeyType) -> KeyInfo {
        let backend: BackendName = backend.parse().expect("the name of a backend");
        let name = KeyName::label(label).expect("a label");
        let request = GenerateRequest::new(name, key_type);
        let made = self.client().timeout(Duration::from_mins(1)).create(&backend, request).await;
        made.unwrap_or_else(|e| panic!("making {backend}/{label}: {e:?}; the daemon said:\n{}", self.log()))
    }

    /// The `signer` command, pointed at this daemon.
    pub fn signer(&self) -> Command {
        let mut command = Command::new(programs::ours("signer"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("SIGNERD_SOCKET", self.socket())
            .current_dir(self.folder.path());
        command
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("signerd said:\n{}", last_lines(&self.log(), 60));
        }
        self.kill();
    }
}

/// The end of a log, without lines that say the same as the one before.
fn last_lines(text: &str, count: usize) -> String {
    let message = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    let mut lines: Vec<_> = text.lines().collect();
    lines.dedup_by_key(|line| message(line));
    lines[lines.len().saturating_sub(count)..].join("\n")
}
