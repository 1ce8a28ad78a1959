//! A whole `signer-log` in a folder of its own, with its key behind a daemon, and callers of it.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signer_core::{Digest, HashAlgorithm, KeyType, PublicKey};
use signer_log_engine::{Hash, leaf_hash};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{daemon::Daemon, process, programs};

/// A log that is being served. Dropping it kills it.
pub struct LogServer {
    socket: PathBuf,
    storage: PathBuf,
    address: SocketAddr,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    log: PathBuf,
}

/// How long a start may take, until it answers.
const START: Duration = Duration::from_secs(20);

impl LogServer {
    /// Makes a log with a key of the daemon's, and serves it.
    pub async fn start(daemon: &Daemon, name: &str, kind: &str, key: &str, arguments: &[&str]) -> Self {
        let mut this = Self::make(daemon, name, kind, key, arguments);
        this.launch();
        this.ready().await;
        this
    }

    /// Makes a log, and serves it not yet.
    pub fn make(daemon: &Daemon, name: &str, kind: &str, key: &str, arguments: &[&str]) -> Self {
        let storage = daemon.folder().join(format!("{name}.d"));
        let this = Self::at(daemon, name, storage, Vec::new(), arguments);
        this.init(kind, key);
        this
    }

    /// A server for a log that is there, or that [`LogServer::init`] makes: in a folder, or a bucket that the variables lead to.
    pub fn at(
        daemon: &Daemon,
        name: &str,
        storage: PathBuf,
        environment: Vec<(String, String)>,
        arguments: &[&str],
    ) -> Self {
        Self {
            socket: daemon.socket(),
            log: daemon.folder().join(format!("{name}.out")),
            storage,
            address: free_address(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            wrapper: Vec::new(),
            environment,
            child: None,
        }
    }

    /// The same log in another folder, as it is now: two histories may begin here. It must not be running.
    #[must_use]
    pub fn copied(&self, name: &str) -> Self {
        assert!(self.child.is_none(), "a log that runs cannot be copied");
        let storage = self.storage.with_file_name(format!("{name}.d"));
        programs::must(Command::new("cp").arg("-a").arg(&self.storage).arg(&storage));
        Self {
            socket: self.socket.clone(),
            log: self.log.with_file_name(format!("{name}.out")),
            storage,
            address: free_address(),
            arguments: self.arguments.clone(),
            wrapper: Vec::new(),
            environment: self.environment.clone(),
            child: None,
        }
    }

    /// A file with its public key.
    pub fn public_key(&self) -> PathBuf {
        let description = std::fs::read(self.storage.join(".state/log.json")).expect("a log says what it is");
        let description: Value = serde_json::from_slice(&description).expect("in JSON");
        let path = self.storage.with_extension("pem");
        std::fs::write(&path, description["public_key"].as_str().expect("a key"))
            .expect("a file can be written");
        path
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes the log.
    pub fn init(&self, kind: &str, key: &str) {
        programs::must(
            self.command()
                .args(["init", "--kind", kind, "--origin", "log.example", "--key", key, "--storage"])
                .arg(&self.storage),
        );
    }

    /// Puts a program and its arguments before `signer-log` when it is started.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self) {
        let out = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a file can be written");
        let mut command = Command::new(programs::system("setpriv", "util-linux"));
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.wrapper).arg(programs::ours("signer-log"));
        command
            .arg("serve")
            .arg("--storage")
            .arg(&self.storage)
            .arg("--listen")
            .arg(self.address.to_string());
        command.arg("--socket").arg(&self.socket).args(&self.arguments);
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a file can be opened twice")).stderr(out);
        self.child = Some(command.spawn().expect("signer-log can be started"));
    }

    /// Waits until it answers; gives how long that took.
    pub async fn ready(&mut self) -> Duration {
        let began = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("signer-log ended with {status}; it said:\n{}", self.output());
            }
            assert!(began.elapsed() < START, "signer-log does not answer; it said:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        began.elapsed()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// Kills it without a warning (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and waits.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it was started");
        process::signal(child.id(), process::Signal::TERM);
        child.wait().expect("a child can be waited for")
    }

    /// `signer-log` with some other command.
    pub fn command(&self) -> Command {
        let mut command = Command::new(programs::ours("signer-log"));
        command.env("SIGNERD_SOCKET", &self.socket).envs(self.environment.iter().cloned());
        command
    }

    /// What `signer-log check` says of the folder: what is wrong, and how many entries there are.
    pub fn check(&self) -> (Vec<String>, u64) {
        let output = programs::output(self.command().args(["check", "--output", "json"]).arg(&self.storage));
        let found: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", programs::text(&output)));
        let wrong = found["wrong"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|w| w.as_str().unwrap_or_default().to_owned());
        (wrong.collect(), found["size"].as_u64().expect("a number"))
    }

    /// A caller with a connection of its own.
    pub fn caller(&self) -> Caller {
        Caller::to(self.address)
    }
}

impl Drop for LogServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("signer-log said:\n{}", self.output());
        }
        self.kill();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address")
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, as they came, in lower case.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// One of its headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

/// Speaks HTTP/1.1 over one connection, and over another when that one breaks.
pub struct Caller {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Caller {
    /// A caller of any server.
    pub fn to(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Reads a path.
    pub async fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: log\r\n\r\n").as_bytes()).await
    }

    /// Posts JSON.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.post_as(path, "application/json", body).await
    }

    /// Posts anything.
    pub async fn post_as(&mut self, path: &str, kind: &str, body: &[u8]) -> std::io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: log\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }

    async fn send(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            stream
        };
        stream.write_all(request).await?;
        let mut read = Vec::new();
        let mut piece = vec![0; 64 << 10];
        let mut head = String::new();
        let (end, length) = loop {
            let n = stream.read(&mut piece).await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            read.extend_from_slice(&piece[..n]);
            let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else { continue };
            if head.is_empty() {
                head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            }
            if head.contains("transfer-encoding: chunked") {
                if read.ends_with(b"0\r\n\r\n") {
                    let body = unchunk(&read[end..]);
                    read.truncate(end);
                    read.extend_from_slice(&body);
                    break (end, body.len());
                }
                continue;
            }
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0);
            if read.len() >= end + length {
                break (end, length);
            }
        };
        let headers = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let status = headers.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        if !headers.contains("connection: close") {
            self.stream = Some(stream);
        }
        Ok(Answer { status, headers, body: read[end..end + length].to_vec() })
    }
}

/// Takes the lengths out of a chunked body.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
        let length =
            std::str::from_utf8(&body[..at]).ok().and_then(|l| usize::from_str_radix(l.trim(), 16).ok());
        let Some(length) = length.filter(|l| *l > 0 && body.len() >= at + 4 + l) else { break };
        out.extend_from_slice(&body[at + 2..at + 2 + length]);
        body = &body[at + 4 + length..];
    }
    out
}

/// Somebody who signs: makes requests for the signature log.
pub struct Signatory {
    pair: EcdsaKeyPair,
    spki: String,
}

impl Default for Signatory {
    fn default() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key can be made");
        let key = PublicKey::from_ec_point(KeyType::EcdsaP256, pair.public_key().as_ref()).expect("a point");
        Self { pair, spki: STANDARD.encode(key.as_der()) }
    }
}

impl Signatory {
    /// The SHA-256 of the key (SubjectPublicKeyInfo), in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let spki = STANDARD.decode(&self.spki).expect("it was encoded here");
        hex::encode(Digest::of(HashAlgorithm::Sha256, &spki).as_bytes())
    }

    /// A request that is in order, for this artifact.
    pub fn request(&self, artifact: &[u8]) -> Value {
        let digest = Digest::of(HashAlgorithm::Sha256, artifact);
        let signature = self.pair.sign(&SystemRandom::new(), artifact).expect("a key signs");
        json!({"hashedRekordRequestV002": {
            "digest": STANDARD.encode(digest.as_bytes()),
            "signature": {
                "content": STANDARD.encode(signature.as_ref()),
                "verifier": {"publicKey": {"rawBytes": self.spki}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"},
            },
        }})
    }
}

/// What callers were told is in a signature log, whatever happens to its servers meanwhile.
#[derive(Clone, Default)]
pub struct Acknowledged {
    stop: Arc<AtomicBool>,
    /// The leaf's hash of each index.
    entries: Arc<Mutex<HashMap<u64, Hash>>>,
}

impl Acknowledged {
    /// Writes one entry after the other until it is told to stop; gives how many were acknowledged. An index that is given
    /// twice is a failure, and an answer that is neither 201 nor 5xx.
    pub async fn write(self, mut caller: Caller, name: usize) -> usize {
        let signatory = Signatory::default();
        let mut mine = 0;
        for round in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let request = signatory.request(format!("{name} {round}").as_bytes()).to_string();
            match caller.post(ENTRIES, request.as_bytes()).await {
                Ok(answer) if answer.status == 201 => {
                    let answer = answer.json();
                    let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
                    let index: u64 = text("logIndex").parse().expect("a number");
                    let body = STANDARD.decode(text("canonicalizedBody")).expect("base64");
                    let before = self.lock().insert(index, leaf_hash(&body));
                    assert!(before.is_none(), "index {index} was given twice");
                    mine += 1;
                }
                Ok(answer) => assert!(answer.status >= 500, "{answer:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        mine
    }

    /// Ends [`Self::write`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The leaf's hash of each index.
    pub fn entries(&self) -> HashMap<u64, Hash> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Hash>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of the signature log that takes entries on.
pub const ENTRIES: &str = "/api/v2/log/entries";
