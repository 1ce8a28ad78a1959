//! What people type.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use signer_core::ErrorKind;

use crate::{
    commands,
    location::{Location, S3Options},
    place::Kind,
    serve::ServeOptions,
};

/// The transparency logs: signatures (Rekor v2) and certificates (static-ct-api).
#[derive(Debug, Parser)]
#[command(name = "signer-log", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new, empty log.
    Init(Init),
    /// Serve a log.
    Serve(Box<Serve>),
    /// Read a whole log and prove it: every tile, every hash, every entry.
    Check(Check),
    /// Prove that an entry is in a log.
    Prove(Prove),
    /// Close a log for ever: its last checkpoint says that it is the last.
    Freeze(Freeze),
    /// Follow another log and keep a checked copy of it.
    Mirror(Mirror),
    /// Follow a log, prove that it only grows, and report the entries that you ask for.
    Monitor(Box<Monitor>),
}

/// Where the daemon is.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// The daemon's socket.
    #[arg(long, env = "SIGNERD_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where the new log is kept: a folder, or objects in an S3 bucket.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub(crate) storage: Location,
    #[command(flatten)]
    pub(crate) s3: S3Options,
    /// What it is for.
    #[arg(long)]
    pub(crate) kind: Kind,
    /// Its name, the first line of each checkpoint: the host name of its URL, without port and path.
    #[arg(long)]
    pub(crate) origin: String,
    /// Its key, as the daemon knows it: backend/key.
    #[arg(long)]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where the log is kept.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub(crate) storage: Location,
    #[command(flatten)]
    pub(crate) s3: S3Options,
    /// For s3://: a folder for the index of entries, which is made again when it is lost; default below ~/.cache/signer-log.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Who must cosign each checkpoint before it is published: a file in C2SP's tlog-policy form.
    #[arg(long, value_name = "FILE")]
    pub(crate) witness_policy: Option<PathBuf>,
    /// How many milliseconds the witnesses have.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    pub(crate) witness_timeout: u64,
    /// For witnesses with https: the certificate authorities to trust instead of the system's, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) witness_ca_file: Option<PathBuf>,
    /// Where to answer HTTP and gRPC; may be given several times.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Where to give figures for Prometheus.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// The key, if the daemon knows it by another name now.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// How many entries may wait; more are refused with 503.
    #[arg(long, value_name = "COUNT", default_value_t = 8192)]
    pub(crate) max_waiting: usize,
    /// How many requests a second one address may send; more are refused with 429.
    #[arg(long, value_name = "COUNT")]
    pub(crate) rate_limit: Option<u32>,
    /// How many seconds a caller waits at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) timeout: u64,
    /// Certificate log: the roots that it accepts, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) roots: Option<PathBuf>,
    /// Certificate log: extended key usages, one of which a certificate must have; `Any` for all.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "CodeSigning")]
    pub(crate) ext_key_usages: Vec<String>,
    /// Signature log: what may have signed, by sigstore's names (PKIX_…); default as Rekor.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) algorithms: Vec<String>,
    /// Signature log: take on no `dsseRequestV002`, the older form that sigstore-js sends.
    #[arg(long)]
    pub(crate) no_dsse: bool,
    /// Signature log: what an entry gets that is in the log already.
    #[arg(long, value_name = "HOW", default_value = "refuse")]
    pub(crate) duplicates: Duplicates,
    /// Serve no page for people at / and below /ui/.
    #[arg(long)]
    pub(crate) no_page: bool,
    /// Keep no index by which the page finds entries by hash and identity.
    #[arg(long)]
    pub(crate) no_search_index: bool,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

/// What an entry gets that is in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Duplicates {
    /// 409 and its index, as Rekor does.
    Refuse,
    /// 201 and its proof: whoever lost the first answer gets it again.
    Answer,
}

/// What a log is, for one that does not say so itself.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Expected {
    /// The log's public key, PEM, or a verifier key (name+hash+base64).
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,
    /// The log's name.
    #[arg(long)]
    pub(crate) origin: Option<String>,
    /// What the log is for.
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
    /// For https: the certificate authorities to trust instead of the system's, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Which log: a folder says itself what it is, a URL has to be told.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The log: a folder, s3://BUCKET/PREFIX, or the URL under which its checkpoint is.
    #[arg(value_name = "DIR|URL")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) expected: Expected,
    #[command(flatten)]
    pub(crate) s3: S3Options,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How many to read at a time.
    #[arg(long, default_value_t = 4)]
    pub(crate) threads: usize,
    #[arg(long, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Prove {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The index of the entry.
    pub(crate) index: u64,
    #[arg(long, default_value = "text")]
    pub(crate) output: Output,
}

/// How to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Freeze {
    /// Where the log is kept; no server may be running on a folder.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub(crate) storage: Location,
    #[command(flatten)]
    pub(crate) s3: S3Options,
    /// The key, if the daemon knows it by another name now.
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
pub(crate) struct Mirror {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The folder of the copy.
    #[arg(long, value_name = "DIR")]
    pub(crate) storage: PathBuf,
    /// Go on for ever, looking every so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) follow: Option<u64>,
    /// Be a witness of the log (C2SP tlog-witness): cosign its checkpoints with this Ed25519 key, as the daemon knows it.
    #[arg(long, value_name = "KEY", requires = "witness_name")]
    pub(crate) cosign: Option<String>,
    /// The witness's name: a URL without scheme, such as witness.example.com/one.
    #[arg(long, value_name = "NAME", requires = "cosign")]
    pub(crate) witness_name: Option<String>,
    /// Where the witness answers add-checkpoint.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7380")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Args)]
#[command(after_long_help = MONITOR_EXAMPLES)]
pub(crate) struct Monitor {
    /// The log: a folder, or the URL under which its checkpoint is.
    #[arg(value_name = "DIR|URL")]
    pub(crate) log: Option<String>,
    /// Rules and places for reports, TOML. What the command line says comes first, and rules come together.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to keep how far the log was read, and reports that have not arrived: a SQLite file.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Where to keep what proves that the log is not consistent [default: the state's name with .evidence].
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) expected: Expected,
    /// Where to begin when there is no state yet: start, now, or the index of an entry [default: start].
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<String>,
    /// Look once, read up to the newest checkpoint, and end: for cron and CI.
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: exit code 6 when something new was reported.
    #[arg(long, requires = "once")]
    pub(crate) fail_on_match: bool,
    /// How often to look: 90s, 15m [default: 10s].
    #[arg(long, value_name = "TIME")]
    pub(crate) interval: Option<String>,
    /// Report when the newest checkpoint is older: 90s, 2h, 1d.
    #[arg(long, value_name = "TIME")]
    pub(crate) max_age: Option<String>,
    /// Where to give figures for Prometheus.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Names in certificates, with * and ?: e-mail address, URI, host name; may be given several times.
    #[arg(long, value_name = "GLOB", help_heading = "What to report")]
    pub(crate) certificate_identity: Vec<String>,
    /// The same as a regular expression.
    #[arg(long, value_name = "REGEX", help_heading = "What to report")]
    pub(crate) certificate_identity_regexp: Vec<String>,
    /// Who has said who it is (Fulcio's issuer extension), with * and ?.
    #[arg(long, value_name = "GLOB", help_heading = "What to report")]
    pub(crate) certificate_oidc_issuer: Vec<String>,
    /// The same as a regular expression.
    #[arg(long, value_name = "REGEX", help_heading = "What to report")]
    pub(crate) certificate_oidc_issuer_regexp: Vec<String>,
    /// The certificate's subject, CN=…, with * and ?.
    #[arg(long, value_name = "GLOB", help_heading = "What to report")]
    pub(crate) certificate_subject: Vec<String>,
    /// An extension of the certificate and its text, with * and ?: the OID with dots, or Fulcio's name of it.
    #[arg(long, value_name = "OID=VALUE", help_heading = "What to report")]
    pub(crate) extension: Vec<String>,
    /// A public key: the SHA-256 of its SubjectPublicKeyInfo.
    #[arg(long, value_name = "HEX", help_heading = "What to report")]
    pub(crate) fingerprint: Vec<String>,
    /// What was signed: sha256:…, sha384:…, sha512:….
    #[arg(long, value_name = "DIGEST", help_heading = "What to report")]
    pub(crate) digest: Vec<String>,
    /// Write reports to standard output, a JSON object a line. The default when no other place is given.
    #[arg(long, help_heading = "Where reports go")]
    pub(crate) stdout: bool,
    /// Append reports to a file, a JSON object a line, each exactly once.
    #[arg(long, value_name = "FILE", help_heading = "Where reports go")]
    pub(crate) file: Vec<PathBuf>,
    /// Post each report to this URL, until it answers 2xx.
    #[arg(long, value_name = "URL", help_heading = "Where reports go")]
    pub(crate) webhook: Vec<String>,
    /// The secret that the webhook's requests are signed with (standardwebhooks.com).
    #[arg(long, value_name = "FILE", requires = "webhook", help_heading = "Where reports go")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Say whether the configuration is in order, and end.
    #[arg(long)]
    pub(crate) check_config: bool,
}

const MONITOR_EXAMPLES: &str = "\
Examples:
  Whatever anybody signs with an address of our domain, from now on, as JSON lines:
    signer-log monitor https://log.example.com --kind signature --origin log.example.com --public-key log.pem \\
      --state monitor.sqlite --from now --certificate-identity '*@example.com'
  In CI, once a night; exit code 6 when there is something new, 4 when the log is not consistent:
    signer-log monitor --config monitor.toml --once --fail-on-match
  Every use of a key, to a file and a webhook:
    signer-log monitor /var/lib/signer-log/2026 --state monitor.sqlite --fingerprint 3f5b… \\
      --file matches.jsonl --webhook https://hooks.example.com/log --webhook-secret-file hook.secret

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the log or a place for reports cannot be reached, 4 the log is not consistent
(the evidence is kept), 5 with --once: the checkpoint is older than --max-age, 6 with --fail-on-match: something was reported.";

impl Serve {
    pub(crate) fn options(&self) -> ServeOptions {
        ServeOptions {
            listen: self.listen.clone(),
            metrics: self.metrics_listen,
            waiting: self.max_waiting.max(1),
            rate: self.rate_limit,
            patience: Duration::from_secs(self.timeout.max(1)),
            roots: self.roots.clone(),
            usages: self.ext_key_usages.clone(),
            algorithms: self.algorithms.clone(),
            dsse: !self.no_dsse,
            answer_duplicates: self.duplicates == Duplicates::Answer,
            page: !self.no_page,
            search: !self.no_search_index,
            witnesses: None,
        }
    }
}

/// Does what the command line says. Exit codes: 0 done, 1 failed or not proven, 2 wrong usage, 3 the daemon or a log cannot
/// be reached, 4 denied.
pub fn run(cli: Cli) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SIGNER_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    more_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("signer-log: the runtime cannot be started: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(cli.command));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("signer-log: {e}");
            ExitCode::from(match e.kind() {
                ErrorKind::BadRequest | ErrorKind::Unsupported => 2,
                ErrorKind::DeviceGone | ErrorKind::TimedOut | ErrorKind::Busy { .. } => 3,
                ErrorKind::Denied => 4,
                _ => 1,
            })
        }
    }
}

/// Each connection is a file: as many as the system allows, not the thousand that is usual for programs that use `select`.
fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays as it is: {e}");
    }
}
