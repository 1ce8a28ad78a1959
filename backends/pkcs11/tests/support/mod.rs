//! Real tokens for tests. A module and its configuration belong to a whole process, so each test runs in one of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses some of it, and tests may panic

use std::{
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use signer_core::{
    Backend, BoxFuture, Delete, Digest, Error, ErrorKind, Generate, GenerateRequest, Input, KeyInfo, KeyType,
    ListRequest, Pin, PinLease, PinOutcome, PinPrompt, PinSource, Result, SignRequest, SignatureAlgorithm,
    Signer,
};
use signer_pkcs11::{Pkcs11Backend, Pkcs11Config};

pub const TOKEN: &str = "test token";
pub const PIN: &str = "123456";
pub const SO_PIN: &str = "87654321";

/// Which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    SoftHsm,
    Kryoptic,
}

/// A token of its own, in a folder of its own.
pub struct Bench {
    pub engine: Engine,
    pub folder: PathBuf,
    pub module: PathBuf,
}

/// Runs `body` in a process of its own with a new token. `name` is the test's name, as `cargo test` shows it.
pub fn in_own_process(name: &str, engine: Engine, body: impl FnOnce(&Bench)) {
    const FOLDER: &str = "SIGNER_PKCS11_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return body(&Bench { engine, folder: folder.into(), module: engine.module() });
    }
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench { engine, folder: folder.path().to_owned(), module: engine.module() };
    bench.make_token(TOKEN);
    let output = bench
        .environment(&mut Command::new(std::env::current_exe().unwrap()))
        .env(FOLDER, folder.path())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{}", output.status, told(&output.stdout), told(&output.stderr));
    assert!(told(&output.stdout).contains("1 passed"), "no test has the name {name:?}");
}

impl Engine {
    pub fn module(self) -> PathBuf {
        match self {
            Self::SoftHsm => "/usr/lib/softhsm/libsofthsm2.so".into(),
            Self::Kryoptic => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hwtests/engines/kryoptic.sh");
                let output = Command::new(script).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
            }
        }
    }
}

impl Bench {
    /// A token for a driver process; the folder goes with the first value.
    pub fn for_a_driver(engine: Engine) -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { engine, folder: folder.path().to_owned(), module: engine.module() };
        bench.make_token(TOKEN);
        (folder, bench)
    }

    pub fn make_token(&self, label: &str) {
        std::fs::create_dir_all(self.folder.join("tokens")).unwrap();
        let softhsm = format!(
            "directories.tokendir = {}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n",
            self.folder.display()
        );
        std::fs::write(self.folder.join("softhsm2.conf"), softhsm).unwrap();
        let kryoptic = format!(
            "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}/kryoptic.sql\"\n",
            self.folder.display()
        );
        std::fs::write(self.folder.join("kryoptic.conf"), kryoptic).unwrap();
        match self.engine {
            Engine::SoftHsm => self.run(
                "softhsm2-util",
                &["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN],
            ),
            Engine::Kryoptic => {
                self.tool(&["--init-token", "--label", label, "--so-pin", SO_PIN]);
                self.tool(&[
                    "--login",
                    "--login-type",
                    "so",
                    "--so-pin",
                    SO_PIN,
                    "--init-pin",
                    "--new-pin",
                    PIN,
                ]);
            }
        }
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("SOFTHSM2_CONF", self.folder.join("softhsm2.conf"))
            .env("KRYOPTIC_CONF", self.folder.join("kryoptic.conf"))
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.environment(&mut Command::new(program)).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Calls OpenSC's pkcs11-tool on the module.
    pub fn tool(&self, arguments: &[&str]) {
        let module = self.module.to_str().unwrap();
        self.run("pkcs11-tool", &[&["--module", module], arguments].concat());
    }

    /// The same, logged in.
    pub fn user_tool(&self, arguments: &[&str]) {
        self.tool(&[&["--token-label", TOKEN, "--login", "--pin", PIN], arguments].concat());
    }

    pub fn config(&self) -> Pkcs11Config {
        let options = serde_json::json!({ "module": self.module, "token": TOKEN });
        Pkcs11Config::from_json(options).unwrap()
    }

    pub fn backend(&self) -> Pkcs11Backend {
        self.backend_with(&TestPins::new(PIN))
    }

    pub fn backend_with(&self, pins: &Arc<TestPins>) -> Pkcs11Backend {
        Pkcs11Backend::new(&self.config(), "hsm", pins.clone()).unwrap()
    }
}

/// Hands out one PIN, as the daemon does: none any more after it was refused.
pub struct TestPins {
    pin: Mutex<Pin>,
    state: Arc<Mutex<PinState>>,
}

#[derive(Default)]
struct PinState {
    refused: Option<Error>,
    seen: Vec<(PinPrompt, PinOutcome)>,
}

impl TestPins {
    pub fn new(pin: &str) -> Arc<Self> {
        Arc::new(Self { pin: Mutex::new(pin_of(pin)), state: Arc::default() })
    }

    /// Has another PIN from now on.
    pub fn set(&self, pin: &str) {
        *self.pin.lock().unwrap() = pin_of(pin);
    }

    /// What was asked for, and how it ended.
    pub fn seen(&self) -> Vec<(PinPrompt, PinOutcome)> {
        self.state.lock().unwrap().seen.clone()
    }
}

impl PinSource for TestPins {
    fn lease<'a>(&'a self, prompt: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>> {
        Box::pin(async move {
            if let Some(error) = &self.state.lock().unwrap().refused {
                return Err(Error::new(ErrorKind::Locked, "the PIN was refused before").vendor(error));
            }
            let (pin, state) = (self.pin.lock().unwrap().clone(), self.state.clone());
            Ok(Box::new(Lease { pin, state, prompt: prompt.clone() }) as Box<dyn PinLease>)
        })
    }
}

struct Lease {
    pin: Pin,
    state: Arc<Mutex<PinState>>,
    prompt: PinPrompt,
}

impl PinLease for Lease {
    fn pin(&self) -> &Pin {
        &self.pin
    }

    fn may_use_last_try(&self) -> bool {
        false
    }

    fn report(self: Box<Self>, outcome: PinOutcome) {
        let mut state = self.state.lock().unwrap();
        if let PinOutcome::Refused(error) = &outcome {
            state.refused = Some(error.clone());
        }
        state.seen.push((self.prompt.clone(), outcome));
    }
}

pub fn pin_of(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

/// The value of a future that is ready at the first poll, as every one of this backend is.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future was not ready at the first poll"),
    }
}

pub fn generate(backend: &Pkcs11Backend, name: &str, key_type: KeyType) -> Result<KeyInfo> {
    make(backend, GenerateRequest::new(name.parse().unwrap(), key_type))
}

pub fn make(backend: &Pkcs11Backend, request: GenerateRequest) -> Result<KeyInfo> {
    now(Generate::generate(backend, request))
}

pub fn delete(backend: &Pkcs11Backend, key: &str) -> Result<()> {
    now(Delete::delete(backend, &key.parse().unwrap()))
}

pub fn open(backend: &Pkcs11Backend, key: &str) -> Result<Arc<dyn Signer>> {
    now(backend.open(&key.parse().unwrap()))
}

pub fn list(backend: &Pkcs11Backend) -> Vec<KeyInfo> {
    now(backend.list(ListRequest { page_size: 100_000, page_token: None })).unwrap().keys
}

pub fn names(backend: &Pkcs11Backend) -> Vec<String> {
    list(backend).iter().map(|k| k.name.to_string()).collect()
}

/// Signs and verifies, as message and as digest.
pub fn sign(signer: &dyn Signer, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<()> {
    let mut inputs = vec![Input::Message(message.to_vec().into())];
    inputs.extend(algorithm.prehash().map(|hash| Input::Digest(Digest::of(hash, message))));
    for input in inputs {
        let signature = now(signer.sign(SignRequest::new(algorithm, input.clone()).unwrap()))?;
        signer.info().public_key.verify(algorithm, &input, signature.as_bytes()).unwrap();
    }
    Ok(())
}

/// Signs and verifies with every algorithm that the key has.
pub fn sign_every_way(signer: &dyn Signer) {
    for algorithm in &signer.info().algorithms {
        for message in [vec![], b"message".to_vec(), vec![7; 100_000]] {
            sign(signer, *algorithm, &message).unwrap_or_else(|e| panic!("{algorithm}: {e:?}"));
        }
    }
}

/// Makes a test for each engine, in a process of its own.
#[macro_export]
macro_rules! on_every_token {
    ($($(#[$meta:meta])* fn $name:ident($bench:ident: &Bench) $body:block)*) => {
        $(
            mod $name {
                use super::*;
                fn body($bench: &Bench) $body
                #[test]
                fn softhsm() {
                    in_own_process(concat!(stringify!($name), "::softhsm"), Engine::SoftHsm, body);
                }
                #[test]
                fn kryoptic() {
                    in_own_process(concat!(stringify!($name), "::kryoptic"), Engine::Kryoptic, body);
                }
            }
        )*
    };
}
