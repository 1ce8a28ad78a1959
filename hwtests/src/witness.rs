//! Witnesses of logs: ours beside a mirror, and litewitness with its key in an ssh-agent.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::{KeyType, PublicKey};
use signer_log_engine::{NoteKey, NoteKind};
use tokio::net::TcpStream;

use crate::programs;

/// A witness that answers. Dropping it kills it.
pub struct Witness {
    folder: PathBuf,
    address: SocketAddr,
    command: Box<dyn Fn(SocketAddr) -> Command + Send>,
    key: NoteKey,
    child: Option<Child>,
    /// What it needs beside itself.
    beside: Option<Child>,
}

const START: Duration = Duration::from_secs(20);

impl Witness {
    /// litewitness, not started yet.
    pub fn lite(folder: &Path, name: &str) -> Self {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let key_file = folder.join("key");
        programs::must(
            Command::new(programs::system("ssh-keygen", "openssh-client"))
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key_file),
        );
        let public = std::fs::read_to_string(folder.join("key.pub")).expect("ssh-keygen wrote it");
        let blob = STANDARD.decode(public.split(' ').nth(1).expect("three words")).expect("base64");
        let raw = PublicKey::from_raw(KeyType::Ed25519, &blob[blob.len() - 32..]).expect("a key");
        let key = NoteKey::new(name, NoteKind::Cosignature, raw).expect("a name");
        let socket = folder.join("agent");
        let agent = guarded(&programs::system("ssh-agent", "openssh-client"))
            .args(["-D", "-a"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent can be started");
        let began = Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < START, "ssh-agent does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        programs::must(
            Command::new(programs::system("ssh-add", "openssh-client"))
                .arg("-q")
                .arg(&key_file)
                .env("SSH_AUTH_SOCK", &socket),
        );
        let said = programs::must(
            Command::new(programs::system("ssh-keygen", "openssh-client"))
                .arg("-lf")
                .arg(folder.join("key.pub")),
        );
        let fingerprint = said.split(' ').nth(1).expect("a fingerprint").to_owned();
        let (database, name) = (folder.join("litewitness.db"), name.to_owned());
        let command = move |address: SocketAddr| {
            let mut command = guarded(&programs::litewitness());
            command.args(["-name", &name, "-key", &fingerprint, "-listen", &address.to_string(), "-db"]);
            command.arg(&database).arg("-ssh-agent").arg(&socket);
            command
        };
        Self::new(folder, key, Box::new(command), Some(agent))
    }

    /// Ours: `signer-log mirror --cosign` with these arguments, not started yet.
    pub fn ours(
        folder: &Path,
        key: NoteKey,
        command: impl Fn(SocketAddr) -> Command + Send + 'static,
    ) -> Self {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        Self::new(folder, key, Box::new(command), None)
    }

    fn new(
        folder: &Path,
        key: NoteKey,
        command: Box<dyn Fn(SocketAddr) -> Command + Send>,
        beside: Option<Child>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        Self { folder: folder.to_owned(), address, command, key, child: None, beside }
    }

    /// Answers at this address instead.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        let out = std::fs::File::options().create(true).append(true).open(self.folder.join("out"));
        let out = out.expect("a file can be written");
        let mut command = (self.command)(self.address);
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a file can be opened twice")).stderr(out);
        self.child = Some(command.spawn().expect("the witness can be started"));
        let began = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            assert!(began.elapsed() < START, "the witness does not answer; it said:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it without a warning (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets litewitness know a log.
    pub fn knows(&self, log: &NoteKey) {
        let database = rusqlite::Connection::open(self.folder.join("litewitness.db")).expect("its database");
        let empty = STANDARD.encode(signer_log_engine::empty_root());
        let vkey = log.to_vkey().expect("an ed25519 key");
        database
            .execute(
                "INSERT INTO log (origin, tree_size, tree_hash) VALUES (?1, 0, ?2)",
                [log.name(), &empty],
            )
            .and_then(|_| {
                database.execute("INSERT INTO key (origin, key) VALUES (?1, ?2)", [log.name(), &vkey])
            })
            .expect("a row can be put in");
    }

    /// The key that its cosignatures are verified with.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its line in a policy.
    pub fn line(&self, name: &str) -> String {
        format!("witness {name} {} http://{}\n", self.key.to_vkey().expect("a cosigner"), self.address)
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.child.as_mut()?.try_wait().ok().flatten() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the witness said:\n{}", self.output());
        }
        self.kill();
        if let Some(mut beside) = self.beside.take() {
            let _ = beside.kill();
            let _ = beside.wait();
        }
    }
}

/// A program that dies with the test.
pub fn guarded(program: &Path) -> Command {
    let mut command = Command::new(programs::system("setpriv", "util-linux"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
