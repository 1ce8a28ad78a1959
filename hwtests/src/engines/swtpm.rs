//! swtpm: a TPM 2.0 in software, bare or behind the resource manager of the TPM2 software stack.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use signer_contract::{PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Error, KeyType, Pin, Result};
use signer_driver::{DriverBackend, DriverConfig};
use tempfile::TempDir;

use super::{Engine, PinFiles};
use crate::{
    process::{self, Signal},
    programs, random_secret, toml_path,
};

/// A TPM of its own.
pub struct SwTpm {
    folder: TempDir,
    /// Commands go there; swtpm's control port is the next.
    port: u16,
    running: Mutex<Option<Child>>,
    manager: Option<Manager>,
    pin: String,
    pins: PinFiles,
    /// Options of the backend beside `tcti` and `state`.
    options: Vec<(String, serde_json::Value)>,
    /// The last driver that was started without a daemon: a bare TPM serves one at a time.
    driver: Mutex<Option<Arc<DriverBackend>>>,
}

/// The resource manager, and the bus that it is reached over.
struct Manager {
    bus: Child,
    address: String,
    daemon: Child,
}

/// The TPM, its bus and its manager are up within this.
const PATIENCE: Duration = Duration::from_secs(10);

impl SwTpm {
    /// Starts a TPM. The keys of its backend have a PIN when nobody asks for something else.
    pub fn start() -> Self {
        Self::with_options(&[("pin_policy", "once".into())])
    }

    /// Starts a TPM whose backend has these options beside `tcti` and `state`.
    pub fn with_options(options: &[(&str, serde_json::Value)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("tpm")).expect("a folder can be made");
        Self::on(folder, options)
    }

    /// Starts a TPM with endorsement keys and their certificates, as a maker delivers it.
    pub fn with_certificates() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let place = |name: &str| folder.path().join(name);
        std::fs::create_dir(place("tpm")).expect("a folder can be made");
        std::fs::create_dir(place("ca")).expect("a folder can be made");
        let at = |name: &str| place(name).display().to_string();
        let write =
            |name: &str, text: String| std::fs::write(place(name), text).expect("a file can be written");
        write(
            "localca.conf",
            format!(
                "statedir = {ca}\nsigningkey = {ca}/key.pem\nissuercert = {ca}/issuer.pem\ncertserial = {ca}/serial\n",
                ca = at("ca")
            ),
        );
        write(
            "localca.options",
            "--platform-manufacturer signerd\n--platform-version 1\n--platform-model test\n".into(),
        );
        write(
            "setup.conf",
            format!(
                "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
                programs::system("swtpm_localca", "swtpm-tools").display(),
                at("localca.conf"),
                at("localca.options")
            ),
        );
        programs::must(
            without_inheritance(&programs::system("swtpm_setup", "swtpm-tools"))
                .args(["--tpm2", "--ecc", "--create-ek-cert", "--not-overwrite", "--tpm-state", &at("tpm")])
                .args(["--config", &at("setup.conf"), "--logfile", &at("setup.log")])
                .env("XDG_CONFIG_HOME", folder.path()),
        );
        Self::on(folder, &[])
    }

    /// Starts a TPM behind a resource manager, which several programs use at once.
    pub fn managed() -> Self {
        let mut this = Self::start();
        this.manager = Some(Manager::start(&this.bare_tcti(), this.folder.path()));
        this
    }

    fn on(folder: TempDir, options: &[(&str, serde_json::Value)]) -> Self {
        let pin = random_secret();
        let (port, child) = Self::somewhere(&folder.path().join("tpm"));
        Self {
            pins: PinFiles::new(folder.path(), &pin),
            folder,
            port,
            running: Mutex::new(Some(child)),
            manager: None,
            pin,
            options: options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            driver: Mutex::default(),
        }
    }

    /// Kills the TPM, as a power cut does.
    pub fn kill(&self) {
        if let Some(mut child) = self.running().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same state, at the same place.
    pub fn start_again(&self) {
        let child = Self::at(&self.folder.path().join("tpm"), self.port);
        *self.running() = Some(child.expect("swtpm starts again at its old port"));
    }

    /// Stops it from answering, without an end.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it answer again.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// How its backend reaches it.
    pub fn tcti(&self) -> String {
        if self.manager.is_some() { "tabrmd:bus_type=session".into() } else { self.bare_tcti() }
    }

    /// The backend's state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// The engine's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The options of its backend.
    pub fn options(&self) -> serde_json::Value {
        let mut options = serde_json::json!({ "tcti": self.tcti(), "state": self.state() });
        for (name, value) in &self.options {
            options[name] = value.clone();
        }
        options
    }

    /// A program of tpm2-tools that uses this TPM. On a bare TPM nobody else may be using it.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = without_inheritance(&programs::system(name, "tpm2-tools"));
        command.env("TPM2TOOLS_TCTI", self.tcti()).current_dir(self.folder.path());
        command.envs(self.environment());
        command
    }

    /// openssl, in the engine's folder; with `-provider tpm2` it uses this TPM. Nobody else may be using a bare one.
    pub fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = without_inheritance(&programs::system("openssl", "openssl"));
        command.env("TPM2OPENSSL_TCTI", self.tcti()).envs(self.environment());
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// What programs must have in their environment to reach it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let address = self.manager.as_ref().map(|m| m.address.clone());
        address.map(|a| ("DBUS_SESSION_BUS_ADDRESS".to_owned(), a)).into_iter().collect()
    }

    /// Ends the driver that was started last without a daemon.
    pub async fn end_driver(&self) {
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            driver.stop().await;
        }
    }

    /// The driver that was started last without a daemon.
    pub fn driver(&self) -> Option<Arc<DriverBackend>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn bare_tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.running() {
            process::signal(child.id(), signal);
        }
    }

    /// Two ports in a row can't be asked for, so some are tried until one pair is swtpm's: it ends when it can't have
    /// them, and nobody takes them from it once it has. They are below those that the kernel gives to connections.
    fn somewhere(state: &Path) -> (u16, Child) {
        for _ in 0..50 {
            let chance = u16::from_str_radix(&random_secret()[..4], 16).expect("secrets are hexadecimal");
            let port = 10_000 + chance % 11_000 * 2;
            if let Some(child) = Self::at(state, port) {
                return (port, child);
            }
        }
        panic!(
            "swtpm found no two free ports in a row: {}",
            std::fs::read_to_string(log(state)).unwrap_or_default()
        );
    }

    /// Starts it at a certain port; `None` if it did not get it.
    fn at(state: &Path, port: u16) -> Option<Child> {
        let mut child = without_inheritance(&programs::system("swtpm", "swtpm"))
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port}"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={}", port + 1))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log(state)).expect("a log can be written"))
            .spawn()
            .unwrap_or_else(|e| panic!("swtpm cannot be started: {e}"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if child.try_wait().expect("a child can be waited for").is_some() {
                return None;
            }
            if listens(child.id(), port) && listens(child.id(), port + 1) {
                return Some(child);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("swtpm does not listen after {PATIENCE:?}");
    }
}

/// What swtpm says, beside its state.
fn log(state: &Path) -> PathBuf {
    state.with_extension("log")
}

/// A program that inherits none of our files but standard input, output and error. The TSS opens its sockets without
/// `O_CLOEXEC`: a program that a test starts while another one talks to its TPM would hold that connection open, and a bare
/// TPM has only one.
fn without_inheritance(program: &Path) -> Command {
    const CLOSE: &str = "for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd < 3)) || eval \"exec $fd>&-\"; done; \
                         exec \"$@\"";
    let mut command = Command::new(programs::system("bash", "bash"));
    command.args(["-c", CLOSE, "bash"]).arg(program);
    command
}

/// Whether this very process listens at the port. Connecting would use up swtpm's only connection.
fn listens(pid: u32, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let wanted = format!(":{port:04X}");
    let sockets = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Local address, state (0A: listening), inode.
        (fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == "0A")
            .then(|| format!("socket:[{}]", fields[9]))
    });
    let ours: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .collect();
    sockets.into_iter().any(|socket| ours.iter().any(|fd| fd.as_os_str() == socket.as_str()))
}

impl Drop for SwTpm {
    fn drop(&mut self) {
        self.thaw();
        self.kill();
    }
}

impl Manager {
    fn start(tcti: &str, folder: &Path) -> Self {
        let socket = folder.join("bus");
        let address = format!("unix:path={}", socket.display());
        let mut bus = without_inheritance(&programs::system("dbus-daemon", "dbus"))
            .args(["--session", "--nofork", "--nopidfile", "--nosyslog", "--address", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("dbus-daemon cannot be started: {e}"));
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if start.elapsed() > PATIENCE {
                let _ = bus.kill();
                panic!("dbus-daemon does not listen after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let daemon = without_inheritance(&programs::system("tpm2-abrmd", "tpm2-abrmd"))
            .args(["--session", "--allow-root", "--tcti", tcti])
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("tpm2-abrmd cannot be started: {e}"));
        let this = Self { bus, address, daemon };
        let mut ready = false;
        while !ready {
            ready = programs::output(
                without_inheritance(&programs::system("tpm2_getrandom", "tpm2-tools"))
                    .arg("4")
                    .env("TPM2TOOLS_TCTI", "tabrmd:bus_type=session")
                    .env("DBUS_SESSION_BUS_ADDRESS", &this.address),
            )
            .status
            .success();
            assert!(start.elapsed() < PATIENCE, "tpm2-abrmd does not answer after {PATIENCE:?}");
        }
        this
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Engine for SwTpm {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        let pin = self.pins.of(pin);
        let pin = pin.map_or_else(|| "\"prompt\"".to_owned(), |p| format!("{{ file = {} }}", toml_path(&p)));
        let mut options =
            vec![format!("tcti = {:?}", self.tcti()), format!("state = {}", toml_path(&self.state()))];
        // Texts and truth values are written alike in JSON and TOML.
        options.extend(self.options.iter().map(|(name, value)| format!("{name} = {value}")));
        let environment: Vec<_> = self.environment().iter().map(|(n, v)| format!("{n} = {v:?}")).collect();
        format!(
            "[[backend]]\nname = {name:?}\nkind = \"driver\"\nprogram = {}\npin = {pin}\n\
             environment = {{ {} }}\noptions = {{ {} }}\n",
            toml_path(&programs::ours("signerd-tpm")),
            environment.join(", "),
            options.join(", ")
        )
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            self.end_driver().await;
            let pin = self.pins.of(pin);
            let loader = move || match &pin {
                None => Ok(None),
                Some(file) => std::fs::read_to_string(file)
                    .map_err(|e| Error::bad_request("the PIN file cannot be read").vendor(e))
                    .and_then(|text| Pin::new(text).map(Some)),
            };
            let config = DriverConfig {
                backend: "tpm".into(),
                program: programs::ours("signerd-tpm"),
                arguments: Vec::new(),
                environment: self.environment(),
                options: self.options(),
                processes: 1,
                threads: 1,
                spin: false,
                queue: 4096,
                pin: Some(Arc::new(loader)),
                pin_ttl: None,
            };
            let driver = DriverBackend::start(config).await?;
            *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(driver.clone());
            Ok(driver as Arc<dyn Backend>)
        })
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn pin(&self) -> String {
        self.pin.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.pins.of(pin)
    }
}

/// What libtpms has, which is less than the house knows: no RSA-4096, Ed25519 or ML-DSA. TPMs have no versions of keys,
/// no identifiers that a caller could choose, and no addresses that other programs know. It signs a thousand times a
/// second at best, and loads keys a hundred times a second, so there are fewer of both.
pub(crate) fn profile() -> Profile {
    let missing = [KeyType::Rsa4096, KeyType::Ed25519, KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87];
    let mut profile = Profile::full().without_types(&missing).without(Ability::Rotate);
    profile.abilities.push(Ability::Attest);
    Profile { identifiers: false, addresses: false, many_keys: 100, signatures_a_task: 20, ..profile }
}
