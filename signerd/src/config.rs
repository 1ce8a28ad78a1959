//! The daemon's configuration: what `signerd.toml` may say, and what it says nothing about.
//!
//! A file is read in two steps. [`file`] takes the text apart, with the place of everything in it; [`Config`] is what
//! is left when all of it makes sense. Whatever does not is a [`Fault`] with file, line and column.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use signer_aws_kms::AwsConfig;
use signer_azure_key_vault::AzureConfig;
use signer_core::{BackendName, Digest, HashAlgorithm, KeyRef, PublicKey};
use signer_google_kms::GoogleConfig;
use signer_vault_transit::VaultConfig;

use crate::grants::{AlgorithmSet, CallerPattern, Glob, Operations};

mod audit;
mod backend;
mod fault;
mod file;
mod paths;
mod secret;
mod units;

pub use audit::{AuditConfig, AuditKeyRef};
pub use fault::{Fault, Faults};
pub use paths::{config_file, default_socket, default_state};
pub use secret::SecretSource;

/// Everything that the daemon is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from; `None` when there is none.
    pub file: Option<PathBuf>,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// Permissions of the socket.
    pub socket_mode: u32,
    /// The group that owns the socket; the daemon's own if `None`.
    pub socket_group: Option<String>,
    /// Where the daemon keeps what must outlive it.
    pub state: PathBuf,
    /// What it logs.
    pub log: Log,
    /// Where it is measured.
    pub metrics: Metrics,
    /// What it takes on.
    pub limits: Limits,
    /// The audit log; `None` for none.
    pub audit: Option<AuditConfig>,
    /// SHA-256 of the text of the file.
    pub text_hash: String,
    /// Where keys are.
    pub backends: Vec<BackendConfig>,
    /// Names for keys that do not depend on where they are.
    pub keys: BTreeMap<BackendName, KeyConfig>,
    /// Who may do what.
    pub grants: Vec<GrantConfig>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<String>,
}

/// How the log looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A line of JSON for each event, instead of text.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
}

/// The Prometheus endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens; nowhere if `None`.
    pub listen: Option<SocketAddr>,
    /// Whether the names of keys are labels: one more time series for each key, for everybody to read.
    pub key_labels: bool,
}

/// How much the daemon takes on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the longest message.
    pub max_message: usize,
    /// Bytes of long messages that are held at once, over all callers.
    pub max_memory: usize,
    /// Connections at once; further ones are closed.
    pub max_connections: usize,
    /// Calls at once on one connection; further ones wait at the caller.
    pub max_calls: u32,
    /// Requests that one sign stream has in flight before it is not read any more.
    pub stream_window: usize,
    /// Requests that may wait for or be worked on by one backend; further ones are answered "busy".
    pub queue: usize,
    /// The deadline of calls that bring none.
    pub default_deadline: Duration,
    /// The most that a deadline is believed.
    pub max_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 128 << 20,
            max_memory: 512 << 20,
            max_connections: 4096,
            max_calls: 256,
            stream_window: 64,
            queue: 1024,
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_mins(10),
        }
    }
}

/// One configured place for keys. Two that are equal need no restart between them.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Its name.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// Its own `queue`, if it has one.
    pub queue: Option<usize>,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendKind {
    /// Encrypted key files.
    Software(SoftwareTable),
    /// A device in driver processes.
    Driver(DriverTable),
    /// The transit engine of Vault or OpenBao.
    Vault(Box<VaultConfig<SecretSource>>),
    /// AWS KMS.
    Aws(Box<AwsConfig>),
    /// Google Cloud KMS.
    Google(Box<GoogleConfig>),
    /// Azure Key Vault or Managed HSM.
    Azure(Box<AzureConfig>),
}

/// A `kind = "software"` table.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftwareTable {
    /// Where the key files are.
    pub directory: PathBuf,
    /// What they are encrypted with; made on first use and kept in the state folder if `None`.
    pub passphrase: Option<SecretSource>,
    /// How the passphrase becomes a key.
    pub kdf: signer_software::Kdf,
}

/// A table of a kind that runs in driver processes: `pkcs11`, `piv`, `tpm`, `driver`.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverTable {
    /// The kind as written.
    pub kind: String,
    /// The driver program, if the configuration names one: a path, or a name to be looked for.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What its environment has beside the usual.
    pub environment: BTreeMap<String, String>,
    /// What the driver is told of its table.
    pub options: serde_json::Value,
    /// How many processes there are at most.
    pub processes: usize,
    /// How many threads each has.
    pub threads: usize,
    /// Whether both sides spin for a moment before they sleep; `None` for: where there is a second processor.
    pub spin: Option<bool>,
    /// Where its PIN is.
    pub pin: Option<SecretSource>,
    /// How long a PIN that a person gave is kept after it served last; `None` for as long as the daemon runs.
    pub pin_ttl: Option<Duration>,
}

/// One `[[key]]` table: what a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// The key, or the places that hold the same key. Never empty.
    pub members: Vec<KeyRef>,
    /// Which of several is asked first.
    pub order: Order,
    /// The public key that each of several must have; without it, the one that the first of them has.
    pub public_key: Option<PublicKey>,
}

/// Which member of a key is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The first in the list that is healthy.
    #[default]
    First,
    /// Each in turn.
    RoundRobin,
}

impl Order {
    /// `first` or `round-robin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::RoundRobin => "round-robin",
        }
    }
}

/// One `[[grant]]` table.
#[derive(Clone, Debug)]
pub struct GrantConfig {
    /// The line that it begins on; 0 when there is no file.
    pub line: usize,
    /// Who.
    pub callers: Vec<CallerPattern>,
    /// Which keys.
    pub keys: Vec<Glob>,
    /// What.
    pub operations: Operations,
    /// With which algorithms, where something is signed.
    pub algorithms: AlgorithmSet,
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
}

impl Config {
    /// Reads the file that is found as the design says, or makes the configuration that holds without one.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Faults> {
        match config_file(file) {
            Some(path) => Self::read(&path, overrides),
            None => Ok(Self::built_in(overrides)),
        }
    }

    /// Reads one file.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Faults> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Faults::whole(path, format!("the configuration cannot be read: {e}")))?;
        Self::parse(path, &text, overrides)
    }

    /// Takes the text of a file apart. Relative paths in it begin at the file's folder.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, Faults> {
        file::parse(path, text, overrides)
    }

    /// What holds without any file: keys in the state folder, for the user who started the daemon.
    pub fn built_in(overrides: &Overrides) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let state = overrides.state.clone().unwrap_or_else(default_state);
        let name: BackendName = "soft".parse().expect("soft is a name");
        Self {
            file: None,
            socket: overrides.socket.clone().unwrap_or_else(default_socket),
            socket_mode: 0o660,
            socket_group: None,
            log: Log { json: false, level: tracing::Level::INFO },
            metrics: Metrics::default(),
            limits: Limits::default(),
            audit: None,
            text_hash: text_hash(""),
            backends: vec![BackendConfig {
                name,
                kind: BackendKind::Software(SoftwareTable {
                    directory: state.join("keys"),
                    passphrase: None,
                    kdf: signer_software::Kdf::Scrypt,
                }),
                queue: None,
            }],
            keys: BTreeMap::new(),
            grants: vec![GrantConfig {
                line: 0,
                callers: vec![CallerPattern::Uid(uid)],
                keys: vec![Glob::new("*")],
                operations: Operations::ALL,
                algorithms: AlgorithmSet::ALL,
            }],
            warnings: Vec::new(),
            state,
        }
    }
}

/// The hash by which the audit log names a configuration, as `sha256sum` gives it.
fn text_hash(text: &str) -> String {
    format!("{:?}", Digest::of(HashAlgorithm::Sha256, text.as_bytes()))
}

impl BackendConfig {
    /// The kind as written in the configuration.
    pub fn kind_name(&self) -> &str {
        match &self.kind {
            BackendKind::Software(_) => "software",
            BackendKind::Driver(table) => &table.kind,
            BackendKind::Vault(_) => "vault-transit",
            BackendKind::Aws(_) => "aws-kms",
            BackendKind::Google(_) => "google-kms",
            BackendKind::Azure(_) => "azure-key-vault",
        }
    }
}

impl fmt::Display for GrantConfig {
    /// One line for people: who may do what with which keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callers: Vec<_> = self.callers.iter().map(ToString::to_string).collect();
        let keys: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "{} may {} {}", callers.join(", "), self.operations, keys.join(", "))?;
        if self.algorithms != AlgorithmSet::ALL {
            write!(f, " with {}", self.algorithms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
