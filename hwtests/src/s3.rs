//! S3 servers of others, each with a folder and an address of its own.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::programs;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// MinIO.
    Minio,
    /// versitygw, over a folder.
    Versitygw,
}

/// A server with one bucket. It ends when this is dropped, or the test's process dies.
pub struct S3 {
    make: Make,
    folder: TempDir,
    address: String,
    secret: String,
    child: Option<Child>,
}

/// The name of the bucket, and of the one who may do everything.
const BUCKET: &str = "transparency";
const USER: &str = "operator";
/// How long a start may take.
const START: Duration = Duration::from_secs(30);

impl S3 {
    /// Starts a server and makes the bucket.
    pub async fn start(make: Make) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut secret = [0; 16];
        aws_lc_rs::rand::fill(&mut secret).expect("there are random numbers");
        let mut this = Self { make, folder, address: free(), secret: hex::encode(secret), child: None };
        std::fs::create_dir(this.folder.path().join("data")).expect("a folder can be made");
        this.launch();
        this.ready().await;
        this.curl(&["--request", "PUT", &format!("http://{}/{BUCKET}", this.address)]);
        this
    }

    /// Starts it again where it was, and does not wait.
    pub fn launch(&mut self) {
        let data = self.folder.path().join("data");
        let out = std::fs::File::options().create(true).append(true).open(self.output_file());
        let out = out.expect("a file can be written");
        let mut command = Command::new(programs::system("setpriv", "util-linux"));
        command.args(["--pdeathsig", "KILL", "--"]);
        match self.make {
            Make::Minio => {
                command.arg(programs::minio()).args(["server", "--quiet", "--address", &self.address]);
                command.args(["--console-address", &free()]).arg(data);
                command.env("MINIO_ROOT_USER", USER).env("MINIO_ROOT_PASSWORD", &self.secret);
                command.env("MINIO_UPDATE", "off").env("HOME", self.folder.path());
            }
            Make::Versitygw => {
                command.arg(programs::versitygw()).args(["--port", &self.address, "posix"]).arg(data);
                command.env("ROOT_ACCESS_KEY", USER).env("ROOT_SECRET_KEY", &self.secret);
            }
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a file can be opened twice")).stderr(out);
        self.child = Some(command.spawn().expect("the S3 server can be started"));
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            // MinIO accepts before it serves.
            let answers = TcpStream::connect(&self.address).await.is_ok()
                && self.try_curl(&[&format!("http://{}/", self.address)]).starts_with('2');
            if answers {
                return;
            }
            assert!(began.elapsed() < START, "the S3 server does not answer; it said:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it without a warning (SIGKILL). What it has acknowledged is in its folder.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A place in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The variables for a program that is to reach it, at this address or that of a proxy.
    pub fn environment(&self, address: &str) -> Vec<(String, String)> {
        let nowhere = self.folder.path().join("none").display().to_string();
        let endpoint = format!("http://{address}");
        let variables: [(&str, &str); 6] = [
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("AWS_CONFIG_FILE", &nowhere),
            ("AWS_SHARED_CREDENTIALS_FILE", &nowhere),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// The names of the objects in the bucket.
    pub fn objects(&self) -> String {
        self.curl(&[&format!("http://{}/{BUCKET}?list-type=2&max-keys=1000", self.address)])
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn output_file(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// A signed request that must succeed.
    fn curl(&self, arguments: &[&str]) -> String {
        programs::must(self.signed().args(["--fail-with-body", "--silent", "--show-error"]).args(arguments))
    }

    /// The status of a signed request.
    fn try_curl(&self, arguments: &[&str]) -> String {
        let command = &mut self.signed();
        command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]).args(arguments);
        String::from_utf8_lossy(&programs::output(command).stdout).into_owned()
    }

    fn signed(&self) -> Command {
        let mut command = Command::new(programs::system("curl", "curl"));
        command.args(["--max-time", "10", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        command.args(["--user", &format!("{USER}:{}", self.secret)]);
        // The hash of no body, which curl does not send by itself and versitygw asks for.
        let nothing = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b""));
        command.args(["--header", &format!("x-amz-content-sha256: {nothing}")]);
        command
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} said:\n{}", self.make, self.output());
        }
        self.kill();
    }
}

fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").to_string()
}
