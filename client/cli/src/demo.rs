//! `signer demo`: the whole thing once, in a temporary place, with each command shown.

use std::{
    fmt::Display,
    fs,
    io::Write,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
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
        stage.play(&file.to_string_lossy(), context)?;
        let kept = self.keep.then_some(&stage.folder);
        if context.is_json() {
            context.answer("", &json!({ "demo": "done", "folder": kept }));
        } else if let Some(folder) = kept {
            say(context, format_args!("Everything is in {}.", folder.display()));
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
        // The path of a socket has little room.
        let temporary = Some(std::env::temp_dir()).filter(|d| d.as_os_str().len() < 60);
        let temporary = temporary.unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = temporary.join(format!("signer-demo-{:x}", now & 0xffff_ffff_ffff));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(|e| Failure::io(format!("{} cannot be made", folder.display()), &e))?;
        Ok(Self { folder, keep })
    }

    fn play(&self, file: &str, context: &Context) -> Result<(), Failure> {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        let bundle = format!("{name}.sigstore.json");

        say(context, "A daemon of its own, with encrypted key files:");
        let mut daemon = self.start_daemon(context)?;

        say(context, "\nA key, made inside it. It signs, and never leaves:");
        self.signer(&["keys", "create", "soft/demo"], context)?;

        say(context, "\nSign, and take the public key for those who verify:");
        self.signer(&["sign", file, "--key", "soft/demo", "--bundle", &bundle], context)?;
        self.save_public_key(context)?;

        say(context, "\nVerify, with the public key alone:");
        self.signer(&["verify", file, "--key", "demo.pem", "--bundle", &bundle], context)?;

        say(context, "\nOne byte more, and it is refused:");
        self.copy_and_change(file, context)?;
        self.must_be_refused(&["verify", "changed", "--key", "demo.pem", "--bundle", &bundle], context)?;

        daemon.stop();
        say(context, "\nAll as it should be. `signer init` sets you up for real.");
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("signerd.sock")
    }

    fn start_daemon(&self, context: &Context) -> Result<Daemon, Failure> {
        let program = programs::find("signerd").ok_or_else(|| {
            let what = "the program signerd is neither beside this one nor in PATH";
            Failure::failed(Error::new(ErrorKind::NotFound, what))
                .next("build it with `cargo build --release`")
        })?;
        say(context, format_args!("$ cd {}", self.folder.display()));
        if let Some(folder) = program.parent().filter(|_| !programs::is_in_path("signer")) {
            say(context, format_args!("$ export PATH={}:$PATH", shell_word(&folder.to_string_lossy())));
        }
        let config = format!(
            "socket = \"signerd.sock\"\nstate = \"state\"\n\n[[backend]]\nname = \"soft\"\nkind = \"software\"\n\n\
             [[grant]]\ncallers = [\"{}\"]\nkeys = [\"soft/*\"]\noperations = [\"*\"]\n",
            places::caller(),
        );
        self.write("signerd.toml", &config)?;
        say(context, "$ cat signerd.toml");
        say(context, config.trim_end());
        say(context, "$ signerd --config signerd.toml &");
        let log_path = self.folder.join("signerd.log");
        let log =
            fs::File::create(&log_path).map_err(|e| Failure::io("the daemon's log cannot be written", &e))?;
        let child = Command::new(&program)
            .args(["--config", "signerd.toml"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| Failure::io(format!("{} cannot be started", program.display()), &e))?;
        let mut daemon = Daemon(child);
        daemon.wait_ready(&self.socket(), &log_path)?;
        say(context, "$ export SIGNERD_SOCKET=$PWD/signerd.sock");
        Ok(daemon)
    }

    fn save_public_key(&self, context: &Context) -> Result<(), Failure> {
        let arguments = ["keys", "show", "soft/demo", "--pem"];
        say(context, format_args!("$ signer {} > demo.pem", arguments.join(" ")));
        match self.run(&arguments, context)? {
            (true, pem) => self.write("demo.pem", &pem),
            (false, said) => Err(Failure::failed(Error::internal("the demo ends here").vendor(said))),
        }
    }

    fn copy_and_change(&self, file: &str, context: &Context) -> Result<(), Failure> {
        say(context, format_args!("$ cp {} changed; echo >> changed", shell_word(file)));
        let changed = self.folder.join("changed");
        let change = || -> std::io::Result<()> {
            fs::copy(file, &changed)?;
            // The copy has the original's permissions, which may not allow writing.
            fs::set_permissions(&changed, fs::Permissions::from_mode(0o600))?;
            fs::OpenOptions::new().append(true).open(&changed)?.write_all(b"\n")
        };
        change().map_err(|e| Failure::io("the file cannot be copied", &e))
    }

    /// Writes a file that only the user may read.
    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder.join(name));
        file.and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| Failure::io(format!("{name} cannot be written"), &e))
    }

    /// Runs this program with `arguments` as the reader would, and shows the command and what it says.
    fn signer(&self, arguments: &[&str], context: &Context) -> Result<(), Failure> {
        let (ok, said) = self.shown(arguments, context)?;
        if ok {
            return Ok(());
        }
        let command = arguments.first().unwrap_or(&"");
        Err(Failure::failed(
            Error::internal(format!("the demo ends here: `signer {command}` failed")).vendor(said),
        ))
    }

    fn must_be_refused(&self, arguments: &[&str], context: &Context) -> Result<(), Failure> {
        let (accepted, _) = self.shown(arguments, context)?;
        if accepted {
            return Err(Failure::failed(Error::internal("a changed file was accepted")));
        }
        Ok(())
    }

    fn shown(&self, arguments: &[&str], context: &Context) -> Result<(bool, String), Failure> {
        let words: Vec<_> = arguments.iter().map(|a| shell_word(a)).collect();
        say(context, format_args!("$ signer {}", words.join(" ")));
        let (ok, text) = self.run(arguments, context)?;
        let text = text.trim_end().to_owned();
        say(context, &text);
        Ok((ok, text))
    }

    /// Whether it worked, and what it said.
    fn run(&self, arguments: &[&str], context: &Context) -> Result<(bool, String), Failure> {
        let me = std::env::current_exe().map_err(|e| Failure::io("this program cannot be found", &e))?;
        let output = Command::new(me)
            .args(arguments)
            .current_dir(&self.folder)
            .env("SIGNERD_SOCKET", self.socket())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::io("this program cannot be started again", &e))?;
        context.step(format_args!("({})", output.status));
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
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

fn say(context: &Context, text: impl Display) {
    if !context.is_json() {
        print(format_args!("{text}\n"));
    }
}

/// A word as a shell reads it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
