//! `signer-log monitor` in a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::{process, programs};

/// A monitor with its state. Dropping it kills it.
pub struct Monitor {
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Monitor {
    /// A monitor with these arguments, and with its state in this folder.
    pub fn new(folder: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { folder: folder.to_owned(), arguments, child: None }
    }

    /// The arguments that name a log of ours, or of the same kind, from outside.
    pub fn log(location: &str, kind: &str, origin: &str, public_key: &Path) -> Vec<String> {
        let key = public_key.to_str().expect("temporary paths are text");
        [location, "--kind", kind, "--origin", origin, "--public-key", key].map(str::to_owned).into()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(programs::system("setpriv", "util-linux"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(programs::ours("signer-log")).arg("monitor");
        command.arg("--state").arg(self.state()).args(&self.arguments);
        command
    }

    /// Its state.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The folders with evidence.
    pub fn evidence(&self) -> Vec<PathBuf> {
        let Ok(found) = std::fs::read_dir(self.folder.join("state.evidence")) else { return Vec::new() };
        let mut found: Vec<_> = found.flatten().map(|entry| entry.path()).collect();
        found.sort();
        found
    }

    /// Looks once; gives what it wrote.
    pub fn once(&self, more: &[&str]) -> Output {
        programs::output(self.command().arg("--once").args(more))
    }

    /// Looks once, and must find everything in order; gives the reports.
    pub fn reports(&self) -> Vec<Value> {
        let output = self.once(&[]);
        assert!(output.status.success(), "{}", programs::text(&output));
        lines(&String::from_utf8_lossy(&output.stdout))
    }

    /// Starts to follow.
    pub fn launch(&mut self) {
        let out = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("out"))
            .expect("a file can be written");
        let mut command = self.command();
        command.args(["--interval", "1s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        self.child = Some(command.spawn().expect("signer-log can be started"));
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
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

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.take().expect("it was started").wait().expect("a child can be waited for")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("signer-log monitor said:\n{}", self.output());
        }
        self.kill();
    }
}

/// Reports, a JSON object a line.
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
