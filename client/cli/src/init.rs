//! `signer init`: a configuration for a daemon of one's own.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use crate::{
    atomic,
    context::Context,
    failure::{Exit, Failure},
    places, programs,
};

/// Set up a daemon of your own
///
/// Writes a signerd.toml with one backend: encrypted key files, or a PKCS#11 token. Nothing that exists is overwritten
/// unless --force is given.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer init
  signer init --systemd
  signer init --pkcs11 /usr/lib/softhsm/libsofthsm2.so --token release --pin-file ~/.config/signerd/hsm.pin")]
pub(crate) struct Init {
    /// Where to write the configuration [default: $XDG_CONFIG_HOME/signerd/signerd.toml]
    #[arg(long, env = "SIGNERD_CONFIG", hide_env_values = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Use a PKCS#11 token through this module, instead of key files
    #[arg(long, value_name = "MODULE", requires = "token")]
    pkcs11: Option<PathBuf>,
    /// The token's label
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    token: Option<String>,
    /// Where the token's PIN is; without it the daemon asks for it: `signer keys unlock hsm`
    #[arg(long, value_name = "PATH", requires = "pkcs11")]
    pin_file: Option<PathBuf>,
    /// Write a systemd user unit too, which starts the daemon with your session
    #[arg(long)]
    systemd: bool,
    /// Replace a configuration that is already there
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(crate) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = match &self.config {
            Some(path) => absolute(path)?,
            None => places::user_config()?.join("signerd/signerd.toml"),
        };
        if config.exists() && !self.force {
            return Err(Failure::failed(signer_core::Error::new(
                signer_core::ErrorKind::AlreadyExists,
                format!("{} is already there", config.display()),
            ))
            .next("edit it, or replace it with --force"));
        }
        let place = self.place()?;
        write_new(&config, &place.document(), 0o600)?;
        let mut written = vec![config.clone()];
        if self.systemd {
            written.push(write_unit(&config, self.force)?);
        }
        let steps = self.next_steps(&config, &place);
        let mut text: Vec<_> = written.iter().map(|p| format!("wrote {}", p.display())).collect();
        text.push("\nNext:\n".to_owned());
        text.extend(steps.iter().map(|step| format!("  {step}")));
        context.result(text.join("\n"), &json!({ "written": written, "next": steps }));
        Ok(Exit::Done)
    }

    fn place(&self) -> Result<Place, Failure> {
        let (Some(module), Some(token)) = (&self.pkcs11, &self.token) else { return Ok(Place::KeyFiles) };
        let pin = self.pin_file.as_deref().map(absolute).transpose()?;
        Ok(Place::Token { module: absolute(module)?, label: token.clone(), pin })
    }

    fn next_steps(&self, config: &Path, place: &Place) -> Vec<String> {
        let name = place.name();
        let mut steps = Vec::new();
        if self.systemd {
            steps.push("systemctl --user daemon-reload".to_owned());
            steps.push("systemctl --user enable --now signerd".to_owned());
        } else if places::daemon_config().as_deref() == Some(config) {
            steps.push("signerd &".to_owned());
        } else {
            steps.push(format!("signerd --config {} &", config.display()));
        }
        if matches!(place, Place::Token { pin: None, .. }) {
            steps.push(format!("signer keys unlock {name}"));
        }
        steps.push(format!("signer keys create {name}/release"));
        steps.push(format!("signer sign FILE --key {name}/release"));
        steps.push(format!("signer verify FILE --key {name}/release"));
        steps
    }
}

/// Where the keys are to be.
enum Place {
    KeyFiles,
    Token { module: PathBuf, label: String, pin: Option<PathBuf> },
}

impl Place {
    fn name(&self) -> &'static str {
        match self {
            Self::KeyFiles => "soft",
            Self::Token { .. } => "hsm",
        }
    }

    /// The `[[backend]]` table.
    fn table(&self) -> String {
        match self {
            Self::KeyFiles => "\
# Keys in encrypted files, in the folder `keys` of the daemon's state. Their passphrase is made when it is first
# needed and kept beside them; docs/configuration.md says how to keep it elsewhere.
[[backend]]
name = \"soft\"
kind = \"software\"
"
            .to_owned(),
            Self::Token { module, label, pin } => {
                let pin = match pin {
                    Some(path) => format!("{{ file = {} }}", quoted(path)),
                    None => "\"prompt\" # given with `signer keys unlock hsm`".to_owned(),
                };
                format!(
                    "# A PKCS#11 token, by its label.\n[[backend]]\nname = \"hsm\"\nkind = \"pkcs11\"\nmodule = {}\n\
                     token = {}\npin = {pin}\n",
                    quoted(module),
                    toml::Value::from(label.as_str()),
                )
            }
        }
    }

    fn document(&self) -> String {
        format!(
            "# Written by `signer init`. `signerd check-config` checks it; docs/configuration.md explains every option.\n\n\
             {}\n# Who used which key, written down before anybody gets a signature; without its log nothing is signed.\n\
             # First make its key: signer keys create {}/audit --type ed25519. docs/audit.md has the rest.\n\
             #[audit]\n#key = \"{}/audit\"\n#origin = \"audit.example.com\"\n\n# Who may do what. Everything that is not granted is denied.\n[[grant]]\ncallers = [{}]\n\
             keys = [\"{}/*\"]\noperations = [\"*\"]\n",
            self.table(),
            self.name(),
            self.name(),
            toml::Value::from(places::caller()),
            self.name(),
        )
    }
}

fn write_unit(config: &Path, force: bool) -> Result<PathBuf, Failure> {
    let path = places::user_config()?.join("systemd/user/signerd.service");
    if path.exists() && !force {
        return Err(
            Failure::usage(format!("{} is already there", path.display())).next("replace it with --force")
        );
    }
    let daemon = programs::find("signerd").unwrap_or_else(|| PathBuf::from("/usr/bin/signerd"));
    let unit = format!(
        "[Unit]\nDescription=signerd, the signing daemon\n\n\
         [Service]\nType=notify\nExecStart={} --config {}\nExecReload=kill -HUP $MAINPID\nRestart=on-failure\n\
         WatchdogSec=30\nLimitCORE=0\nNoNewPrivileges=yes\n\n\
         [Install]\nWantedBy=default.target\n",
        unit_word(&daemon),
        unit_word(config),
    );
    write_new(&path, &unit, 0o644)?;
    Ok(path)
}

/// A path as a word of a systemd command line.
fn unit_word(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Writes a file of this mode, and its folder, which only the user may look into.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failure = |e: std::io::Error| Failure::io(format!("{} cannot be written", path.display()), &e);
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        fs::create_dir_all(folder).map_err(failure)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failure)?;
    }
    if path.exists() {
        atomic::write(path, text.as_bytes())?;
        return fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failure);
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(failure)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::io(format!("{} is not a path", path.display()), &e))
}

fn quoted(path: &Path) -> String {
    toml::Value::from(path.display().to_string()).to_string()
}
