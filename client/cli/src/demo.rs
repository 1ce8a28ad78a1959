//! `signer demo`: the whole thing once, in a temporary place, with each command shown.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use signer_core::{Error, ErrorKind};

use crate::{
    context::{Context, print},
    failure::{Exit, Failure},
    places, programs,
};

/// Try everything in a temporary place
///
/// Starts a daemon with key files in a temporary folder, makes a key, signs FILE, verifies it, shows that a changed file
/// is refused, and stops the daemon. Each command is printed as you would type it. Nothing is written beside FILE.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer demo README.md
  signer demo README.md --keep     leave the folder, to look into it")]
pub(crate) struct Demo {
    /// Any file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Leave the temporary folder; the daemon is stopped all the same
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let file = fs::canonicalize(&self.file)
            .map_err(|e| Failure::io(format!("{} cannot be read", self.file.display()), &e))?;
        let stage = Stage::new(self.keep)?;
        stage.play(&file, context)?;
        if self.keep {
            context.result(format_args!("\nEverything is in {}.", stage.folder.display()), &());
        }
        Ok(Exit::Done)
    }
}

/// The temporary folder; deleted when dropped, unless it is to be kept.
struct Stage {
    folder: PathBuf,
    keep: bool,
}

impl Stage {
    fn new(keep: bool) -> Result<Self, Failure> {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let folder = std::env::temp_dir().join(format!("signer-demo-{}-{now:x}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(|e| Failure::io(format!("{} cannot be made", folder.display()), &e))?;
        Ok(Self { folder, keep })
    }

    fn play(&self, file: &Path, context: &Context) -> Result<(), Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pem = self.folder.join("demo.pem");
        let bundle = self.folder.join(format!("{name}.sigstore.json"));
        let (pem_text, bundle_text) = (pem.display().to_string(), bundle.display().to_string());
        let file_text = file.display().to_string();

        say(context, "A daemon with encrypted key files:\n");
        let mut daemon = self.start_daemon(context)?;
        say(context, &format!("$ export SIGNERD_SOCKET={}\n", self.socket().display()));

        say(context, "\nA key, made inside it. It signs, and never leaves:\n");
        self.signer(&["keys", "create", "soft/demo"], context)?;

        say(context, "\nSign, and take the public key for those who verify:\n");
        self.signer(&["sign", &file_text, "--key", "soft/demo", "--bundle", &bundle_text], context)?;
        let public_key = self.signer(&["keys", "show", "soft/demo", "--pem"], context)?;
        Self::write(&pem, &public_key)?;

        say(context, &format!("\nVerify, with the public key alone (saved as {pem_text}):\n"));
        self.signer(&["verify", &file_text, "--key", &pem_text, "--bundle", &bundle_text], context)?;

        say(context, "\nOne byte more, and it is refused:\n");
        let tampered = self.folder.join(&name);
        fs::copy(file, &tampered).map_err(|e| Failure::io("the file cannot be copied", &e))?;
        append(&tampered, b"!").map_err(|e| Failure::io("the copy cannot be changed", &e))?;
        let tampered_text = tampered.display().to_string();
        self.must_be_refused(
            &["verify", &tampered_text, "--key", &pem_text, "--bundle", &bundle_text],
            context,
        )?;

        daemon.stop();
        say(context, "\nAll as it should be. `signer init` sets you up for real.\n");
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("signerd.sock")
    }

    fn start_daemon(&self, context: &Context) -> Result<Daemon, Failure> {
        let program = programs::find("signerd").ok_or_else(|| {
            Failure::failed(Error::new(
                ErrorKind::NotFound,
                "the program signerd is neither beside this one nor in PATH",
            ))
            .next("build it with `cargo build --release`")
        })?;
        let config = self.folder.join("signerd.toml");
        let quoted = |path: PathBuf| toml::Value::from(path.display().to_string());
        Self::write(
            &config,
            &format!(
                "socket = {}\nstate = {}\n\n[[backend]]\nname = \"soft\"\nkind = \"software\"\n\n\
                 [[grant]]\ncallers = [\"{}\"]\nkeys = [\"soft/*\"]\noperations = [\"*\"]\n",
                quoted(self.socket()),
                quoted(self.folder.join("state")),
                places::caller(),
            ),
        )?;
        say(context, &format!("$ {} --config {} &\n", program.display(), config.display()));
        let log_path = self.folder.join("signerd.log");
        let log =
            fs::File::create(&log_path).map_err(|e| Failure::io("the daemon's log cannot be written", &e))?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.map_err(|e| Failure::io(format!("{} cannot be started", program.display()), &e))?;
        let mut daemon = Daemon(child);
        daemon.wait_ready(&self.socket(), &log_path)?;
        Ok(daemon)
    }

    /// Writes a file that only the user may read.
    fn write(path: &Path, text: &str) -> Result<(), Failure> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| Failure::io(format!("{} cannot be written", path.display()), &e))
    }

    /// Runs this program with `arguments` as the reader would, and shows the command and what it says.
    fn signer(&self, arguments: &[&str], context: &Context) -> Result<String, Failure> {
        let (ok, text) = self.run(arguments, context)?;
        if ok {
            return Ok(text);
        }
        Err(Failure::failed(Error::internal(format!("the demo failed at `signer {}`", arguments.join(" ")))))
    }

    fn must_be_refused(&self, arguments: &[&str], context: &Context) -> Result<(), Failure> {
        let (ok, _) = self.run(arguments, context)?;
        if ok {
            return Err(Failure::failed(Error::internal("a changed file was accepted")));
        }
        Ok(())
    }

    fn run(&self, arguments: &[&str], context: &Context) -> Result<(bool, String), Failure> {
        let words: Vec<_> = arguments.iter().map(|a| shell_word(a)).collect();
        say(context, &format!("$ signer {}\n", words.join(" ")));
        let me = std::env::current_exe().map_err(|e| Failure::io("this program cannot be found", &e))?;
        let output = Command::new(me)
            .args(arguments)
            .env("SIGNERD_SOCKET", self.socket())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::io("this program cannot be started again", &e))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        say(context, &text);
        say(context, &String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A running daemon; stopped when dropped.
struct Daemon(Child);

impl Daemon {
    fn wait_ready(&mut self, socket: &Path, log: &Path) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if UnixStream::connect(socket).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.0.try_wait() {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(Failure::failed(Error::internal(format!(
                    "signerd ended at once ({status}): {last}"
                ))));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Failure::failed(Error::new(ErrorKind::TimedOut, "signerd did not listen within 10 s")))
    }

    /// Asks it to end, and makes it end if it does not.
    fn stop(&mut self) {
        if let Some(id) = rustix::process::Pid::from_raw(self.0.id().cast_signed())
            && matches!(self.0.try_wait(), Ok(None))
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            for _ in 0..1000 {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn say(context: &Context, text: &str) {
    if !context.is_json() {
        print(text);
    }
}

fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    // The copy has the original's permissions, which may not allow writing.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

/// A word as a shell reads it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
