//! A real daemon with key files in a temporary folder, and `signer` run against it.

#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// What everybody may do in most tests.
pub const ALL: &str = r#"[[grant]]
callers = ["any"]
keys = ["*"]
operations = ["*"]
"#;

/// A daemon and its folder. Both go when it is dropped.
pub struct Daemon {
    pub folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// With a software backend `soft` and everything granted.
    pub fn start() -> Self {
        Self::with_grants(ALL)
    }

    /// With a software backend `soft` and these `[[grant]]` tables.
    pub fn with_grants(grants: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("signer").tempdir_in("/tmp").unwrap();
        let config = format!(
            "socket = \"{0}/s\"\nstate = \"{0}/state\"\n\n[[backend]]\nname = \"soft\"\nkind = \"software\"\n\n{grants}",
            folder.path().display()
        );
        fs::write(folder.path().join("signerd.toml"), config).unwrap();
        let mut daemon = Self { folder, child: None };
        daemon.begin();
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with this content; its path as an argument.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn begin(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = Command::new(program("signerd"))
            .arg("--config")
            .arg(self.path("signerd.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begin = Instant::now();
        while UnixStream::connect(self.path("s")).is_err() {
            let log = self.path("log");
            let log = || fs::read_to_string(&log).unwrap();
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("signerd ended: {status}\n{}", log());
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "signerd does not listen\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `signer` with these arguments, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = signer(arguments);
        command.env("SIGNERD_SOCKET", self.path("s")).current_dir(self.folder.path());
        command
    }

    /// Runs `signer`.
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(arguments, self.command(arguments).output().unwrap())
    }

    /// Runs `signer` with something on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Run::of(arguments, child.wait_with_output().unwrap())
    }

    /// Makes a key, and says where its public key is.
    pub fn create(&self, reference: &str, key_type: &str) -> String {
        self.run(&["keys", "create", reference, "--type", key_type]).done();
        let pem = self.run(&["keys", "show", reference, "--pem"]).done();
        self.file(&format!("{}.pem", reference.replace('/', "-")), pem)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a run of `signer` came to.
pub struct Run {
    what: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(arguments: &[&str], output: Output) -> Self {
        Self {
            what: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It must have worked: what it said.
    #[track_caller]
    pub fn done(self) -> String {
        self.exits(0).out
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "signer {}\n{}{}", self.what, self.out, self.err);
        self
    }

    /// It must have said this in one line on standard error.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part), "signer {}\n{}", self.what, self.err);
        self
    }

    /// What it said, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("signer {}: {e}\n{}{}", self.what, self.out, self.err))
    }
}

/// `signer` with these arguments, with nothing of the tester's own set-up.
pub fn signer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signer"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["SIGNERD_SOCKET", "SIGNERD_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        command.env_remove(variable);
    }
    command
}

/// A program of the workspace, beside `signer`.
pub fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_signer")).with_file_name(name);
    assert!(path.is_file(), "{} is missing: run `cargo build -p signerd` first", path.display());
    path
}

/// Runs openssl, which must succeed.
#[track_caller]
pub fn openssl(arguments: &[&str]) {
    let output =
        Command::new("openssl").args(arguments).stdin(Stdio::null()).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
