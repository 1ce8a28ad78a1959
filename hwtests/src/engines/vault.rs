//! HashiCorp Vault itself, in memory, with a transit engine.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, KeyType, Pin, Result, SignatureAlgorithm};
use signer_vault_transit::{Login, SecretLoader, VaultBackend, VaultConfig};
use tempfile::TempDir;

use super::{Engine, PinFiles};
use crate::{programs, toml_path};

/// A Vault server of its own. It ends when this is dropped, or the test's process dies.
pub struct Vault {
    folder: TempDir,
    process: Child,
    address: String,
    root: String,
    unseal: String,
    tokens: PinFiles,
    http: reqwest::Client,
}

impl Vault {
    /// Starts a server over plain HTTP.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server over TLS.
    pub fn with_tls(certificate: &Path, key: &Path) -> Self {
        let path = |p: &Path| p.to_str().expect("temporary paths are text").to_owned();
        Self::start_with(&["-tls-cert", &path(certificate), "-tls-key", &path(key)])
    }

    /// Starts a server that listens on a Unix socket, too.
    pub fn with_socket(socket: &Path) -> Self {
        Self::start_with(&["-unix", socket.to_str().expect("temporary paths are text")])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let program = programs::vault();
        let mut process = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be started: {e}", program.display()));
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("Vault says where it listens");
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("Vault did not start: {line}"));
        let text = |name: &str| said[name].as_str().expect("it is a text").to_owned();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self {
            tokens: PinFiles::new(folder.path(), &text("root")),
            folder,
            process,
            address: text("address"),
            root: text("root"),
            unseal: text("unseal"),
            http: reqwest::Client::new(),
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The token that may do everything.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// A configuration with the root token.
    pub fn config(&self) -> VaultConfig<SecretLoader> {
        VaultConfig {
            address: Some(format!("http://{}", self.address)),
            login: token(secret(&self.root)),
            allow_deletion: true,
            ..VaultConfig::default()
        }
    }

    /// Asks the server for something as its administrator; gives the status and the JSON.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self
            .http
            .request(method, format!("http://{}/v1/{path}", self.address))
            .header("X-Vault-Token", &self.root);
        if !body.is_null() {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("Vault answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("Vault answers");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The same, which must succeed.
    pub async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Writes a policy.
    pub async fn policy(&self, name: &str, rules: &str) {
        self.must("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": rules })).await;
    }

    /// A token with these policies.
    pub async fn token(&self, body: Value) -> String {
        let made = self.must("POST", "auth/token/create", body).await;
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// Seals it: nothing is served until [`Vault::unseal`].
    pub async fn seal(&self) {
        self.must("PUT", "sys/seal", json!({})).await;
    }

    /// Opens it again.
    pub async fn unseal(&self) {
        self.must("PUT", "sys/unseal", json!({ "key": self.unseal })).await;
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A login with that token.
pub fn token(token: SecretLoader) -> Option<Login<SecretLoader>> {
    Some(Login::Token { token })
}

/// A secret that is known already.
pub fn secret(text: &str) -> SecretLoader {
    let pin = Pin::new(text.to_owned()).expect("a secret");
    Arc::new(move || Ok(Some(pin.clone())))
}

/// A secret in a file, read afresh each time.
pub fn secret_file(path: PathBuf) -> SecretLoader {
    Arc::new(move || {
        let text = std::fs::read_to_string(&path)
            .map_err(|e| signer_core::Error::bad_request("a secret cannot be read").vendor(e))?;
        Pin::new(text).map(Some)
    })
}

impl Engine for Vault {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        let token = self.tokens.of(pin);
        let login = |p: PathBuf| {
            format!("login = {{ method = \"token\", token = {{ file = {} }} }}\n", toml_path(&p))
        };
        let token = token.map_or_else(String::new, login);
        format!(
            "[[backend]]\nname = {name:?}\nkind = \"vault-transit\"\naddress = \"http://{}\"\nallow_deletion = true\n{token}",
            self.address
        )
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let login = self.tokens.of(pin).and_then(|file| token(secret_file(file)));
            let config = VaultConfig { login, ..self.config() };
            Ok(Arc::new(VaultBackend::new("vault", config)?) as Arc<dyn Backend>)
        })
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn pin(&self) -> String {
        self.root.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.tokens.of(pin)
    }
}

/// The open-source server has neither ML-DSA nor Ed25519ph. Keys come in by `vault transit import` only, and there is no
/// place for certificates.
pub(crate) fn profile() -> Profile {
    let profile = Profile::full()
        .without_types(&[KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87])
        .without_algorithm(SignatureAlgorithm::Ed25519ph)
        .without(Ability::Import)
        .without(Ability::StoreCertificate)
        .without(Ability::Unlock);
    Profile { imports: Vec::new(), identifiers: false, pins: false, many_keys: 300, ..profile }
}
