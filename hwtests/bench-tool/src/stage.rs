//! What is measured: a folder with a token, daemons on it, and the processes that measure them.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::measure::Load;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The folder, and where the programs are.
pub(crate) struct Stage {
    folder: TempDir,
    programs: PathBuf,
    /// SoftHSM's module, as setup.sh found it.
    pub(crate) module: PathBuf,
    /// Which window every load generator gets: warm-up and length in seconds.
    pub(crate) window: (f64, f64),
}

/// Label of the token.
pub(crate) const TOKEN: &str = "signerd";

/// How long anything may take to start.
const START: Duration = Duration::from_secs(20);

impl Stage {
    /// Makes the token with `softhsm/setup.sh`. `programs` is cargo's folder of the profile.
    pub(crate) fn new(programs: &Path, setup: &Path, window: (f64, f64)) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("signer-bench-").tempdir()?;
        eprintln!("making a token");
        must(Command::new(setup).arg("--dir").arg(folder.path()))?;
        let configuration = fs::read_to_string(folder.path().join("signerd.toml"))?;
        let module = configuration
            .lines()
            .find_map(|line| line.strip_prefix("module = \"")?.strip_suffix('"'))
            .ok_or("setup.sh wrote a configuration without a module")?;
        Ok(Self { folder, programs: programs.into(), module: module.into(), window })
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of this workspace, set up for the token.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.foreign(&self.programs.join(name))
    }

    /// A program of somebody else's, set up for the token.
    pub(crate) fn foreign(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env_remove("SIGNERD_SOCKET")
            .env_remove("SIGNERD_CONFIG")
            .env_remove("RUST_LOG")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// A daemon for the token, with the configuration that setup.sh wrote.
    pub(crate) fn daemon(&self) -> Result<Server> {
        self.signerd("signerd.toml", "signerd.sock", "hsm/p256")
    }

    /// The same with `spin = false`.
    pub(crate) fn daemon_without_spinning(&self) -> Result<Server> {
        let text = fs::read_to_string(self.path("signerd.toml"))?
            .replace("kind = \"pkcs11\"\n", "kind = \"pkcs11\"\nspin = false\n")
            .replace("/signerd.sock\"", "/sleepy.sock\"")
            .replace("/state\"", "/sleepy-state\"");
        fs::write(self.path("sleepy.toml"), text)?;
        self.signerd("sleepy.toml", "sleepy.sock", "hsm/p256")
    }

    /// The same with an audit log in the folder, whose key `other` has made on the token.
    pub(crate) fn audited_daemon(&self, other: &Server) -> Result<Server> {
        let directory = self.path("audit").display().to_string();
        let text = fs::read_to_string(self.path("signerd.toml"))?
            .replace("/signerd.sock\"", "/audited.sock\"")
            .replace("/state\"", "/audited-state\"");
        let table =
            format!("\n[audit]\ndirectory = {directory:?}\nkey = \"hsm/audit\"\norigin = \"audit.bench\"\n");
        fs::write(self.path("audited.toml"), text + &table)?;
        if !self.path("audit").exists() {
            let mut create = self.program("signer");
            must(create.arg("--socket").arg(&other.socket).args(["keys", "create", "hsm/audit"]))?;
        }
        self.signerd("audited.toml", "audited.sock", "hsm/p256")
    }

    /// A daemon with the software backend and the key soft/p256.
    pub(crate) fn software_daemon(&self) -> Result<Server> {
        self.write_software_configuration()?;
        let daemon = self.start_signerd("software.toml", "software.sock")?;
        daemon.wait()?;
        if !self.path("keys-made").exists() {
            must(self.program("signer").arg("--socket").arg(&daemon.socket).args([
                "keys",
                "create",
                "soft/p256",
            ]))?;
            fs::write(self.path("keys-made"), "")?;
        }
        daemon.wait_for_key("soft/p256")?;
        Ok(daemon)
    }

    fn write_software_configuration(&self) -> Result<()> {
        let at = |name| self.path(name).display().to_string();
        let user = rustix::process::getuid().as_raw();
        fs::write(
            self.path("software.toml"),
            format!(
                "socket = {:?}\nstate = {:?}\n\n[[backend]]\nname = \"soft\"\nkind = \"software\"\ndirectory = {:?}\n\
                 passphrase = {{ file = {:?} }}\n\n\
                 [[grant]]\ncallers = [\"uid:{user}\"]\nkeys = [\"soft/*\"]\noperations = [\"*\"]\n",
                at("software.sock"),
                at("software-state"),
                at("software-keys"),
                at("pin"),
            ),
        )?;
        Ok(())
    }

    fn signerd(&self, configuration: &str, socket: &str, key: &str) -> Result<Server> {
        let daemon = self.start_signerd(configuration, socket)?;
        daemon.wait()?;
        daemon.wait_for_key(key)?;
        Ok(daemon)
    }

    /// Starts a daemon, and does not wait.
    pub(crate) fn start_signerd(&self, configuration: &str, socket: &str) -> Result<Server> {
        let mut command = self.program("signerd");
        command.arg("--config").arg(self.path(configuration));
        self.server(command, socket)
    }

    /// Starts a server that listens on a socket of the folder, and does not wait.
    pub(crate) fn server(&self, mut command: Command, socket: &str) -> Result<Server> {
        let log = self.path(&format!("{socket}.log"));
        let output = fs::File::options().create(true).append(true).open(&log)?;
        let socket = self.path(socket);
        let _ = fs::remove_file(&socket);
        let child = command.stdout(output.try_clone()?).stderr(output).spawn();
        let child =
            child.map_err(|e| format!("{} cannot be started: {e}", command.get_program().display()))?;
        Ok(Server { child, socket, log })
    }

    /// The baseline: the module in a process of its own. `module` may be another one that leads to the same token.
    pub(crate) fn raw(&self, module: &Path, key: &str, threads: usize, watch: Option<&Server>) -> Command {
        let mut command = self.load_generator("raw", watch);
        command.arg("--module").arg(module).args(["--token", TOKEN, "--key", key]);
        command.arg("--pin-file").arg(self.path("pin")).arg("--threads").arg(threads.to_string());
        command
    }

    /// Clients of a daemon.
    pub(crate) fn drive(&self, server: &Server, key: &str, clients: usize) -> Command {
        let mut command = self.load_generator("drive", Some(server));
        command
            .arg("--socket")
            .arg(&server.socket)
            .args(["--key", key])
            .arg("--clients")
            .arg(clients.to_string());
        command
    }

    fn load_generator(&self, what: &str, watch: Option<&Server>) -> Command {
        let mut command = self.program("signer-bench");
        command.arg(what);
        self.timing(&mut command, watch);
        command
    }

    /// Adds the options of the measuring window.
    pub(crate) fn timing(&self, command: &mut Command, watch: Option<&Server>) {
        let (warm_up, seconds) = self.window;
        command.arg("--warm-up").arg(warm_up.to_string()).arg("--seconds").arg(seconds.to_string());
        if let Some(server) = watch {
            command.arg("--watch").arg(server.pid().to_string());
        }
    }
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until somebody listens on its socket.
    pub(crate) fn wait(&self) -> Result<()> {
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            if start.elapsed() > START {
                return Err(format!("nobody listens on {}: {}", self.socket.display(), self.said()).into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Waits until it has signed with a key: the drivers are started, the token is open.
    fn wait_for_key(&self, key: &str) -> Result<()> {
        let digest = signer_core::Digest::new(signer_core::HashAlgorithm::Sha256, &crate::DIGEST)?;
        let start = Instant::now();
        crate::drive::runtime(1)?.block_on(async {
            let client = signerd_api::Client::connect(&self.socket).await?;
            loop {
                match client.sign(key, None, signer_core::Input::Digest(digest)).await {
                    Ok(_) => return Ok(()),
                    Err(e) if start.elapsed() > START => {
                        return Err(format!("{key}: {e}; {}", self.said()).into());
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
    }

    /// What it has logged last.
    fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("it said:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a load generator to its end.
pub(crate) fn load(command: &mut Command) -> Result<Load> {
    Ok(serde_json::from_str(&must(command)?)?)
}

/// Runs two load generators at once.
pub(crate) fn load_both(first: &mut Command, second: &mut Command) -> Result<Load> {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| load(first));
        let second = load(second);
        (first.join(), second)
    });
    Ok(first.map_err(|_| "a load generator panicked")??.and(&second?))
}

/// Runs a program to its end and gives what it printed; an error has all that it said.
pub(crate) fn must(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_os_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{} cannot be run: {e}", name.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}: {text}{said}", name.display(), output.status).into());
    }
    Ok(text)
}
