//! AWS KMS: ministack, a server of AWS's API whose KMS signs with real keys, and the project's own engine, which has what
//! ministack lacks and fails on command.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hwtests_kms_engine::{AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY};
use signer_aws_kms::{AwsBackend, AwsConfig};
use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, HashAlgorithm, KeyType, Result, SignatureAlgorithm};
use tempfile::TempDir;

use super::{Engine, private_file};
use crate::{programs, random_secret, toml_path};

/// A ministack of its own. It ends when this is dropped, or the test's process dies.
pub struct MiniStack {
    folder: TempDir,
    process: Child,
    port: u16,
}

/// What ministack 1.5.33 has not, of what AWS has.
const LACKS: [&str; 4] = ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87", "ed25519ph"];

impl MiniStack {
    /// Starts a server.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        private_file(
            &folder.path().join("credentials"),
            &format!(
                "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = {}\n",
                random_secret()
            ),
        );
        private_file(&folder.path().join("config"), "[default]\nregion = us-east-1\n");
        // The shell ends the server when its own input ends, which it does with this process.
        let port = free_port();
        let process = Command::new("/bin/sh")
            .args(["-c", r#""$0" >"$1" 2>&1 & read -r _; kill $!; wait"#])
            .arg(programs::ministack())
            .arg(folder.path().join("log"))
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("MINISTACK_HOST", "127.0.0.1")
            .env("SERVICES", "kms")
            .env("IOT_MTLS_ENABLED", "0")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh can be run");
        let this = Self { folder, process, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = this.folder.path().join("log");
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "ministack does not start: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration for it.
    pub fn config(&self) -> AwsConfig {
        AwsConfig {
            endpoint: Some(format!("http://{}", self.address())),
            config_file: Some(self.folder.path().join("config")),
            credentials_file: Some(self.folder.path().join("credentials")),
            lacks: LACKS.map(str::to_owned).to_vec(),
            ..AwsConfig::default()
        }
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Drop for MiniStack {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The project's own engine with its AWS face. It ends when this is dropped.
pub struct AwsFace {
    folder: TempDir,
    engine: hwtests_kms_engine::Engine,
}

impl AwsFace {
    /// Starts an engine.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = hwtests_kms_engine::Engine::start();
        let credentials = format!(
            "[default]\naws_access_key_id = {AWS_ACCESS_KEY_ID}\naws_secret_access_key = {AWS_SECRET_ACCESS_KEY}\n"
        );
        private_file(&folder.path().join("credentials"), &credentials);
        private_file(&folder.path().join("config"), "[default]\nregion = us-east-1\n");
        private_file(&folder.path().join("ca.pem"), engine.ca_pem());
        Self { folder, engine }
    }

    /// The engine: faults, counters.
    pub fn engine(&self) -> &hwtests_kms_engine::Engine {
        &self.engine
    }

    /// The engine's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration for it.
    pub fn config(&self) -> AwsConfig {
        AwsConfig {
            endpoint: Some(self.engine.url()),
            config_file: Some(self.folder.path().join("config")),
            credentials_file: Some(self.folder.path().join("credentials")),
            ..AwsConfig::default()
        }
    }

    /// The same over TLS.
    pub fn tls_config(&self) -> AwsConfig {
        AwsConfig {
            endpoint: Some(self.engine.tls_url()),
            ca_file: Some(self.folder.path().join("ca.pem")),
            ..self.config()
        }
    }

    /// Ends the engine.
    pub fn stop(&mut self) {
        self.engine.stop();
    }
}

impl Engine for MiniStack {
    fn toml(&self, name: &str, _: PinSetup) -> String {
        let lacks = LACKS.map(|l| format!("{l:?}")).join(", ");
        format!(
            "{}lacks = [{lacks}]\n",
            toml(name, &format!("http://{}", self.address()), self.folder.path())
        )
    }

    fn direct(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { Ok(Arc::new(AwsBackend::new("aws", self.config())?) as Arc<dyn Backend>) })
    }

    /// ministack lists Ed25519ph, but does not sign with it.
    fn profile(&self) -> Profile {
        let profile = profile()
            .without_types(&[KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87])
            .without_algorithm(SignatureAlgorithm::Ed25519ph);
        Profile { imports: Vec::new(), ..profile }
    }

    fn pin(&self) -> String {
        String::new()
    }

    fn pin_file(&self, _: PinSetup) -> Option<PathBuf> {
        None
    }
}

impl Engine for AwsFace {
    fn toml(&self, name: &str, _: PinSetup) -> String {
        toml(name, &self.engine.url(), self.folder.path())
    }

    fn direct(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { Ok(Arc::new(AwsBackend::new("aws", self.config())?) as Arc<dyn Backend>) })
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn pin(&self) -> String {
        String::new()
    }

    fn pin_file(&self, _: PinSetup) -> Option<PathBuf> {
        None
    }
}

fn toml(name: &str, endpoint: &str, folder: &Path) -> String {
    format!(
        "[[backend]]\nname = {name:?}\nkind = \"aws-kms\"\nendpoint = {endpoint:?}\nconfig_file = {}\ncredentials_file = {}\n",
        toml_path(&folder.join("config")),
        toml_path(&folder.join("credentials")),
    )
}

/// What AWS KMS does. Each curve has its one hash function; keys are named by aliases, are not rotated and have no
/// certificates; no empty message is signed.
pub(crate) fn profile() -> Profile {
    let mut profile = Profile::full()
        .without(Ability::Import)
        .without(Ability::Rotate)
        .without(Ability::StoreCertificate)
        .without(Ability::Unlock);
    for (key_type, hash) in [
        (KeyType::EcdsaP256, HashAlgorithm::Sha256),
        (KeyType::EcdsaP384, HashAlgorithm::Sha384),
        (KeyType::EcdsaP521, HashAlgorithm::Sha512),
    ] {
        profile.algorithms.insert(key_type, vec![SignatureAlgorithm::Ecdsa(hash)]);
    }
    Profile {
        imports: Vec::new(),
        identifiers: false,
        pins: false,
        signs_nothing: false,
        many_keys: 150,
        signatures_a_task: 40,
        ..profile
    }
}
