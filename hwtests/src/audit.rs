//! A daemon with an audit log, and the log as a stranger reads it.

use std::{path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use signer_core::{Input, KeyType, SignatureAlgorithm};

use crate::{
    daemon::{Daemon, GRANT_ALL},
    eventually, programs, toml_path,
};

/// What the log is called.
pub const ORIGIN: &str = "audit.example.com";

/// The `[audit]` table for a folder and a key.
pub fn table(directory: &std::path::Path, key: &str, more: &str) -> String {
    format!(
        "[audit]\ndirectory = {}\nkey = {key:?}\norigin = {ORIGIN:?}\ncheckpoint_every = \"50 ms\"\n{more}\n",
        toml_path(directory)
    )
}

/// A daemon that records what it does.
pub struct Audited {
    /// The daemon itself.
    pub daemon: Daemon,
    /// The folder of the log.
    pub directory: PathBuf,
    key: String,
}

impl Audited {
    /// Starts a daemon with these backends, everything granted, and a log whose key it makes.
    pub async fn start(backends: &[String], key: &str, more: &str) -> Self {
        let daemon = Daemon::prepare("");
        let directory = daemon.folder().join("audit");
        daemon.configure(&format!("{}\n{}{GRANT_ALL}", backends.join("\n"), table(&directory, key, more)));
        Self::begin(daemon, directory, key).await
    }

    /// Starts a daemon that is configured already, and makes the log's key.
    pub async fn begin(daemon: Daemon, directory: PathBuf, key: &str) -> Self {
        daemon.start_again().await;
        let (backend, label) = key.split_once('/').expect("backend/key");
        daemon.backend(backend).await;
        daemon.make_key_of(backend, label, KeyType::EcdsaP256).await;
        let this = Self { daemon, directory, key: key.to_owned() };
        std::fs::write(this.public_key(), this.pem().await).expect("the public key can be written");
        this.healthy().await;
        this
    }

    async fn pem(&self) -> String {
        let (_, info) = self.daemon.client().key_info(&self.key).await.expect("the log's key is there");
        info.public_key.to_pem()
    }

    /// Waits until the log can be written.
    pub async fn healthy(&self) {
        let healthy = eventually(Duration::from_secs(20), async || {
            let status = self.daemon.client().status().await;
            status.is_ok_and(|(_, audit)| audit.is_some_and(|audit| audit.health.is_none()))
        });
        assert!(healthy.await, "the audit log is not written; the daemon said:\n{}", self.daemon.log());
    }

    /// Why nothing is signed, when that is so.
    pub async fn trouble(&self) -> Option<signer_core::Error> {
        let (_, audit) = self.daemon.client().status().await.expect("the daemon answers");
        audit.expect("there is an audit log").health
    }

    /// The file with the public key of the log.
    pub fn public_key(&self) -> PathBuf {
        self.daemon.folder().join("audit.pem")
    }

    /// `signer audit WHAT --log …`.
    pub fn audit(&self, what: &str) -> Command {
        let mut command = self.daemon.signer();
        command.args(["audit", what, "--log"]).arg(&self.directory);
        command
    }

    /// All records that a checkpoint covers.
    pub fn records(&self) -> Vec<Value> {
        let text = programs::must(self.audit("show").args(["--output", "json"]));
        text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }

    /// All records, once the newest checkpoint covers everything.
    pub async fn settled(&self) -> Vec<Value> {
        let settled = eventually(Duration::from_secs(20), async || {
            let (_, audit) = self.daemon.client().status().await.expect("the daemon answers");
            audit.is_some_and(|audit| audit.signed == audit.records)
        });
        assert!(settled.await, "the log is not signed for; the daemon said:\n{}", self.daemon.log());
        self.records()
    }

    /// What `signer audit check` finds wrong.
    pub fn wrong(&self) -> Vec<String> {
        let mut command = self.audit("check");
        command.arg("--key").arg(self.public_key()).args(["--output", "json"]);
        let output = programs::output(&mut command);
        let text = String::from_utf8_lossy(&output.stdout);
        match serde_json::from_str::<Value>(&text) {
            Ok(answer) => {
                let wrong = answer["wrong"].as_array().expect("findings").clone();
                assert_eq!(output.status.success(), wrong.is_empty(), "{}", programs::text(&output));
                wrong.iter().map(|w| w.as_str().unwrap_or_default().to_owned()).collect()
            }
            Err(_) => vec![programs::text(&output)],
        }
    }

    /// Signs a message with a key of the daemon.
    pub async fn sign(&self, key: &str, message: &str) -> Result<Vec<u8>, signer_core::Error> {
        let algorithm = SignatureAlgorithm::Ecdsa(signer_core::HashAlgorithm::Sha256);
        let input: Input = crate::load::input(algorithm, message);
        let signed = self.daemon.client().sign(key, Some(algorithm), input).await?;
        Ok(signed.signature.into_bytes())
    }
}
