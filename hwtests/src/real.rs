//! The contract over what is plugged in: a real card, TPM or token, or an account of a real service, through a daemon of its own.
//!
//! What is there already is hidden from the checks, which expect an empty place, and so cannot be changed by them. What a check
//! makes is deleted when it ends.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signer_contract::{Check, Fixture, Names, Outcome, PinSetup, Profile, checks};
use signer_core::{
    Ability, Backend, BackendInfo, BoxFuture, Error, GenerateRequest, KeyInfo, KeyName, KeySelector,
    ListRequest, Pin, Result,
};

use crate::{
    daemon::{Daemon, GRANT_ALL},
    engines, random_secret, toml_path,
};

mod scoped;

use scoped::Scoped;

/// What is to be checked, as it is written after `--real`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// `yubikey:SERIAL`
    Yubikey(u32),
    /// `tpm`
    Tpm,
    /// `pkcs11:MODULE`
    Pkcs11(PathBuf),
    /// `awskms:` or `awskms:ARN`, of which the region counts
    Aws(Option<String>),
    /// `gcpkms:projects/P/locations/L/keyRings/R`
    Google(String),
    /// `azurekms:NAME.vault.azure.net`
    Azure(String),
    /// `hashivault:`
    Vault,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let rest = rest.trim_start_matches("//");
        match kind {
            "yubikey" => rest.parse().map(Self::Yubikey).map_err(|_| {
                format!("{rest:?} is not a serial number: write yubikey:SERIAL, as `ykman list` shows it")
            }),
            "tpm" if rest.is_empty() => Ok(Self::Tpm),
            "pkcs11" if !rest.is_empty() => Ok(Self::Pkcs11(rest.into())),
            "awskms" if rest.is_empty() => Ok(Self::Aws(None)),
            "awskms" => {
                // arn:PARTITION:kms:REGION:ACCOUNT:…
                let fields: Vec<_> = rest.trim_start_matches('/').split(':').collect();
                match fields[..] {
                    ["arn", _, "kms", region, ..] if !region.is_empty() => Ok(Self::Aws(Some(region.into()))),
                    _ => Err(format!(
                        "{rest:?} is not an ARN of KMS: write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID"
                    )),
                }
            }
            "gcpkms" => {
                let ring: Vec<_> = rest.split('/').collect();
                match ring[..] {
                    ["projects", _, "locations", _, "keyRings", _, ..] => {
                        Ok(Self::Google(ring[..6].join("/")))
                    }
                    _ => Err(format!(
                        "{rest:?} names no key ring: write gcpkms:projects/P/locations/L/keyRings/R"
                    )),
                }
            }
            "azurekms" if !rest.is_empty() => {
                Ok(Self::Azure(rest.split('/').next().unwrap_or_default().to_owned()))
            }
            "hashivault" if rest.is_empty() => Ok(Self::Vault),
            _ => Err(format!(
                "{text:?} is none of yubikey:SERIAL, tpm, pkcs11:MODULE, awskms:[ARN], \
                 gcpkms:projects/P/locations/L/keyRings/R, azurekms:VAULT, hashivault:"
            )),
        }
    }
}

/// What else is said of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where its PIN is.
    pub pin_file: Option<PathBuf>,
    /// The token's label.
    pub token: Option<String>,
    /// Further lines of the `[[backend]]` table.
    pub settings: Vec<String>,
    /// Whether checks may spend tries of the PIN.
    pub wrong_pins: bool,
}

/// A real place behind a daemon.
pub struct Real {
    spec: Spec,
    options: Options,
    daemon: Daemon,
    profile: Profile,
    info: BackendInfo,
    /// What was there before.
    hidden: Vec<KeyName>,
    pin: Option<String>,
}

/// The backend's name in the daemon's configuration.
const NAME: &str = "real";

/// The checks that give a wrong PIN.
const WRONG_PINS: [&str; 3] =
    ["a_wrong_pin_is_tried_once", "a_wrong_unlock_is_tried_once", "an_unlock_while_open_is_no_trap"];

impl Real {
    /// Starts a daemon on it, and looks what is there. Nothing is written.
    pub async fn start(spec: Spec, options: Options) -> Result<Self> {
        let pin = match (&options.pin_file, &spec) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    Error::bad_request(format!("{} cannot be read", file.display())).vendor(e)
                })?;
                Some(text.trim_end_matches('\n').to_owned())
            }
            // The PIN of keys that are made here, and go again.
            (None, Spec::Tpm) => Some(random_secret()),
            (None, Spec::Yubikey(_) | Spec::Pkcs11(_)) => {
                return Err(Error::bad_request("the device wants its PIN")
                    .next("name a file that holds it with --pin-file"));
            }
            (None, _) => None,
        };
        // The makers' clients find their credentials as they always do.
        let inherited = std::env::vars().filter(|(name, _)| !name.starts_with("SIGNERD_"));
        let daemon = inherited.fold(Daemon::prepare(""), |d, (name, value)| d.environment(&name, &value));
        let info = BackendInfo::default();
        let profile = spec.profile();
        let mut this = Self { spec, options, daemon, profile, info, hidden: Vec::new(), pin };
        let backend = this.serve(PinSetup::Right).await?;
        this.info = backend.describe().await?;
        let there: Vec<_> = list(&*backend).await?;
        this.hidden = there.into_iter().map(|key| key.name).collect();
        this.narrow(&*backend);
        Ok(this)
    }

    /// Makes a key of each kind to see what it signs with, where no document says what this device can: the checks then
    /// demand it of every key. Call it when somebody has agreed to it.
    pub async fn learn(&mut self) -> Result<()> {
        let Spec::Pkcs11(_) = self.spec else { return Ok(()) };
        let backend = self.daemon.backend(NAME).await;
        for key_type in self.profile.generates.clone() {
            let name = KeyName::label(format!("learn-{}-{}", key_type.name(), &random_secret()[..6]))?;
            let generate = Ability::Generate.require(backend.generate(), NAME)?;
            let made = generate.generate(GenerateRequest::new(name, key_type)).await?;
            self.profile.algorithms.insert(key_type, made.algorithms);
        }
        self.clean_up().await
    }

    /// Reduces what is expected to what this device says that it can do: older firmware and other editions do less.
    fn narrow(&mut self, backend: &dyn Backend) {
        let offered = backend.abilities();
        let profile = &mut self.profile;
        profile.abilities.retain(|a| offered.contains(a));
        profile.generates.retain(|t| self.info.generates.contains(t));
        profile.imports.retain(|t| self.info.imports.contains(t));
        let types = profile.types();
        profile.algorithms.retain(|t, _| types.contains(t));
        // Each key costs money, or wears memory.
        profile.many_keys = profile.many_keys.min(12);
        profile.signatures_a_task = 3;
        profile.open_within = Duration::from_secs(10);
        profile.pins &= self.options.wrong_pins;
        profile.denies_unknown_addresses = true;
        if let Spec::Yubikey(_) = self.spec {
            let taken: Vec<_> = self.hidden.iter().filter_map(KeyName::as_label).collect();
            let free: Vec<_> = engines::piv_slots()
                .filter(|slot| slot.as_label().is_some_and(|label| !taken.contains(&label)))
                .collect();
            profile.many_keys = profile.many_keys.min(free.len());
            profile.names = Names::fixed(free);
        }
    }

    /// The device as it describes itself.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// The keys that are there, and are left alone.
    pub fn hidden(&self) -> &[KeyName] {
        &self.hidden
    }

    /// What will be written, in sentences.
    pub fn consequences(&self) -> Vec<String> {
        let mut said = vec![match self.hidden.len() {
            0 => "There is no key now.".to_owned(),
            1 => "The key that is there is neither used nor changed.".to_owned(),
            n => format!("The {n} keys that are there are neither used nor changed."),
        }];
        said.push(match &self.spec {
            Spec::Yubikey(_) => {
                let free = self.profile.names.all().unwrap_or_default();
                let free: Vec<_> = free.iter().map(ToString::to_string).collect();
                format!("Keys and certificates are made in the empty slots {} and deleted again.", free.join(", "))
            }
            Spec::Tpm => "A storage key is made at a persistent handle, if it is not there; keys are made in files of a \
                          temporary folder."
                .to_owned(),
            Spec::Aws(_) => "Keys and aliases are made; AWS destroys the keys after its waiting time, and bills them until \
                             they are scheduled for it."
                .to_owned(),
            Spec::Google(_) => "Keys are made, whose names Google keeps for ever, and their versions destroyed.".to_owned(),
            Spec::Azure(_) => "Keys are made and deleted; the vault keeps them as deleted for its waiting time.".to_owned(),
            Spec::Pkcs11(_) | Spec::Vault => "Keys are made and deleted again.".to_owned(),
        });
        if !self.profile.abilities.contains(&Ability::Delete) {
            said.push("This one cannot delete keys: WHAT IS MADE STAYS.".to_owned());
        }
        if self.pin.is_some() && !self.options.wrong_pins {
            said.push(
                "No wrong PIN is given; --wrong-pins also runs the checks that spend tries of it.".to_owned(),
            );
        }
        said
    }

    /// The checks that are run, and those that are not, with the reason.
    pub fn checks(&self, filters: &[String]) -> (Vec<&'static Check>, Vec<(&'static str, &'static str)>) {
        let (mut run, mut left_out) = (Vec::new(), Vec::new());
        for check in checks() {
            if !filters.is_empty() && !filters.iter().any(|f| check.name.contains(f)) {
                continue;
            }
            if WRONG_PINS.contains(&check.name) && self.pin.is_some() && !self.options.wrong_pins {
                left_out.push((check.name, "it spends tries of the PIN: --wrong-pins"));
            } else {
                run.push(check);
            }
        }
        (run, left_out)
    }

    /// Runs one check, and deletes what it has made.
    pub async fn check(self: &Arc<Self>, check: &'static Check) -> Outcome {
        let names = match self.profile.names.all() {
            Some(all) => Names::fixed(all.to_vec()),
            None => self.profile.names.clone(),
        };
        let prefix = self.spec.keeps_names().then(|| format!("c{}-", &random_secret()[..6]));
        let backend = self.scoped(self.daemon.backend(NAME).await, prefix.clone());
        let fixture = RealFixture {
            real: self.clone(),
            profile: Profile { names, ..self.profile.clone() },
            prefix,
            backend: Mutex::new(backend),
        };
        let outcome = signer_contract::run(Arc::new(fixture), check).await;
        let cleaned = self.clean_up().await;
        outcome?;
        Ok(cleaned?)
    }

    /// Deletes every key that was not there at first.
    async fn clean_up(&self) -> Result<()> {
        let backend = self.serve(PinSetup::Right).await?;
        let Some(delete) = backend.delete() else { return Ok(()) };
        for key in list(&*backend).await? {
            if !self.hidden.contains(&key.name) {
                // All its versions.
                let name = KeySelector::Name(key.name.without_version());
                match delete.delete(&name).await {
                    Err(e) if e.kind() != signer_core::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Starts the daemon anew, and the backend in it.
    async fn serve(&self, pin: PinSetup) -> Result<Arc<dyn Backend>> {
        self.daemon.kill();
        self.daemon.configure(&format!("{}\n{GRANT_ALL}", self.table(pin)));
        self.daemon.start_again().await;
        Ok(Arc::new(self.daemon.backend(NAME).await))
    }

    fn scoped(&self, backend: impl Backend + 'static, prefix: Option<String>) -> Arc<dyn Backend> {
        Arc::new(Scoped { inner: Arc::new(backend), hidden: self.hidden.clone(), prefix })
    }

    fn table(&self, setup: PinSetup) -> String {
        let mut lines = vec!["[[backend]]".to_owned(), format!("name = {NAME:?}")];
        lines.extend(self.spec.settings(&self.options));
        if let Some(pin) = &self.pin {
            let (name, pin) = match setup {
                PinSetup::Right => ("pin", Some(pin.clone())),
                PinSetup::Wrong => ("wrong-pin", Some(format!("{pin}1"))),
                PinSetup::Missing => ("", None),
            };
            lines.push(match pin {
                Some(pin) => {
                    let file = self.daemon.folder().join(name);
                    engines::private_file(&file, &pin);
                    format!("pin = {{ file = {} }}", toml_path(&file))
                }
                None => "pin = \"prompt\"".to_owned(),
            });
        }
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n")
    }
}

impl Spec {
    /// The lines of its `[[backend]]` table.
    fn settings(&self, options: &Options) -> Vec<String> {
        let text = |name: &str, value: &str| format!("{name} = {value:?}");
        let path = |name: &str, value: &Path| format!("{name} = {}", toml_path(value));
        match self {
            Self::Yubikey(serial) => vec![text("kind", "piv"), format!("serial = {serial}")],
            Self::Tpm => {
                let mut lines = vec![text("kind", "tpm"), text("pin_policy", "once")];
                let tcti = ["TCTI", "TPM2TOOLS_TCTI"].iter().find_map(|name| std::env::var(name).ok());
                lines.extend(tcti.map(|tcti| text("tcti", &tcti)));
                lines
            }
            Self::Pkcs11(module) => {
                let mut lines = vec![text("kind", "pkcs11"), path("module", module)];
                lines.extend(options.token.as_ref().map(|token| text("token", token)));
                lines
            }
            Self::Aws(region) => {
                let mut lines = vec![text("kind", "aws-kms")];
                lines.extend(region.as_ref().map(|region| text("region", region)));
                lines
            }
            Self::Google(ring) => vec![text("kind", "google-kms"), text("key_ring", ring)],
            Self::Azure(vault) => {
                vec![text("kind", "azure-key-vault"), text("vault", &format!("https://{vault}"))]
            }
            Self::Vault => vec![text("kind", "vault-transit"), "allow_deletion = true".to_owned()],
        }
    }

    /// What a device or service of this kind can do at most.
    fn profile(&self) -> Profile {
        match self {
            Self::Yubikey(_) => engines::piv_profile(Names::fixed(engines::piv_slots())),
            Self::Tpm => engines::tpm_profile(),
            Self::Pkcs11(_) => engines::pkcs11_profile(),
            Self::Aws(_) => engines::aws_profile(),
            Self::Google(_) => engines::google_profile(),
            Self::Azure(_) => engines::azure_profile(),
            Self::Vault => engines::vault_profile(),
        }
    }

    /// Whether the name of a deleted key is not free again: then no check may use a name that another one has used.
    fn keeps_names(&self) -> bool {
        matches!(self, Self::Google(_) | Self::Azure(_))
    }
}

async fn list(backend: &dyn Backend) -> Result<Vec<KeyInfo>> {
    let (mut keys, mut page_token) = (Vec::new(), None);
    loop {
        let page = backend.list(ListRequest { page_size: 100, page_token }).await?;
        keys.extend(page.keys);
        page_token = page.next;
        if page_token.is_none() {
            return Ok(keys);
        }
    }
}

/// One check's view.
struct RealFixture {
    real: Arc<Real>,
    profile: Profile,
    prefix: Option<String>,
    backend: Mutex<Arc<dyn Backend>>,
}

impl Fixture for RealFixture {
    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn restart(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let inner = self.real.serve(pin).await?;
            let (hidden, prefix) = (self.real.hidden.clone(), self.prefix.clone());
            let backend: Arc<dyn Backend> = Arc::new(Scoped { inner, hidden, prefix });
            *self.backend.lock().unwrap_or_else(PoisonError::into_inner) = backend.clone();
            Ok(backend)
        })
    }

    fn pin(&self) -> Option<Pin> {
        let pin = self.real.pin.clone().filter(|_| self.profile.pins);
        pin.map(|pin| Pin::new(pin).expect("it was used before"))
    }
}
