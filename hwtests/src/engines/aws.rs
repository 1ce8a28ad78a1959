//! ministack: a server of AWS's API whose KMS signs with real keys.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

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
            &format!("[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = {}\n", random_secret()),
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

impl Engine for MiniStack {
    fn toml(&self, name: &str, _: PinSetup) -> String {
        let lacks = LACKS.map(|l| format!("{l:?}")).join(", ");
        format!(
            "[[backend]]\nname = {name:?}\nkind = \"aws-kms\"\nendpoint = \"http://{}\"\nconfig_file = {}\n\
             credentials_file = {}\nlacks = [{lacks}]\n",
            self.address(),
            toml_path(&self.folder.path().join("config")),
            toml_path(&self.folder.path().join("credentials")),
        )
    }

    fn direct(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move { Ok(Arc::new(AwsBackend::new("aws", self.config())?) as Arc<dyn Backend>) })
    }

    /// In KMS each curve has its one hash function, keys are named by themselves, are not rotated and have no certificates;
    /// and it signs no empty message.
    fn profile(&self) -> Profile {
        let mut profile = Profile::full()
            .without_types(&[KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87])
            .without_algorithm(SignatureAlgorithm::Ed25519ph)
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

    fn pin(&self) -> String {
        String::new()
    }

    fn pin_file(&self, _: PinSetup) -> Option<PathBuf> {
        None
    }
}
