//! A virtual YubiKey in a virtual reader, behind `signerd-piv`.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use hwtests_piv_card::{CardOptions, Pcscd, VirtualCard};
use signer_contract::{Names, PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Error, KeyName, KeyType, Pin, Result, SignatureAlgorithm};
use signer_driver::{DriverBackend, DriverConfig};
use tempfile::TempDir;

use super::{Engine, PinFiles, private_file};
use crate::{programs, random_secret, toml_path};

/// A card of its own in a reader of its own.
pub struct Piv {
    // Dropped in this order: the card is pulled out of a reader that is there.
    card: VirtualCard,
    pcscd: Pcscd,
    folder: TempDir,
    serial: u32,
    pin: String,
    pins: PinFiles,
    names: Names,
}

/// What cards leave the factory with.
pub const DEFAULT_PIN: &str = "123456";
/// What cards leave the factory with.
pub const DEFAULT_MANAGEMENT_KEY: &str = "010203040506070801020304050607080102030405060708";

impl Piv {
    /// A new YubiKey with firmware 5.7.1 and a PIN of its own.
    pub fn start() -> Self {
        Self::with_firmware("5.7.1")
    }

    /// The same with another firmware.
    pub fn with_firmware(firmware: &str) -> Self {
        Self::in_reader(Pcscd::start().unwrap_or_else(|e| panic!("{e}")), 0, 12_345_678, firmware)
    }

    /// A card in one slot of a reader.
    fn in_reader(pcscd: Pcscd, slot: u16, serial: u32, firmware: &str) -> Self {
        let firmware = firmware.parse().expect("a firmware that the card has");
        let card = VirtualCard::start(pcscd.slot(slot), CardOptions::new(serial, firmware))
            .unwrap_or_else(|e| panic!("the virtual card does not start: {e}"));
        pcscd.wait_for_cards(1).unwrap_or_else(|e| panic!("{e}"));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let pin = random_pin();
        let this = Self {
            card,
            pins: PinFiles::new(folder.path(), &pin),
            folder,
            pcscd,
            serial,
            pin,
            names: Names::fixed(slots()),
        };
        private_file(&this.management_key_file(), DEFAULT_MANAGEMENT_KEY);
        programs::must(this.tool().args(["-a", "change-pin", "-P", DEFAULT_PIN, "-N", &this.pin]));
        this
    }

    /// The card, for whoever plays the user.
    pub fn card(&self) -> &VirtualCard {
        &self.card
    }

    /// The reader's service.
    pub fn pcscd(&self) -> &Pcscd {
        &self.pcscd
    }

    /// The card's serial number.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// `yubico-piv-tool`, for this card.
    pub fn tool(&self) -> Command {
        self.pcscd.command(programs::system("yubico-piv-tool", "yubico-piv-tool"))
    }

    /// The folder of the engine's files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The file with the management key.
    pub fn management_key_file(&self) -> PathBuf {
        self.folder.path().join("management-key")
    }

    /// The driver's options.
    pub fn options(&self) -> serde_json::Value {
        serde_json::json!({
            "serial": self.serial,
            "management_key_file": self.management_key_file(),
            "allow_defaults": true,
        })
    }

    /// How the driver is started with these options and this PIN.
    pub fn driver(&self, options: serde_json::Value, pin: Option<PathBuf>) -> DriverConfig {
        let loader = move || match &pin {
            None => Ok(None),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| Error::bad_request("the PIN file cannot be read").vendor(e))
                .and_then(|text| Pin::new(text).map(Some)),
        };
        DriverConfig {
            backend: "yubikey".into(),
            program: programs::ours("signerd-piv"),
            arguments: Vec::new(),
            environment: vec![self.environment()],
            options,
            processes: 1,
            threads: 1,
            spin: false,
            queue: 4096,
            pin: Some(Arc::new(loader)),
            pin_ttl: None,
        }
    }

    fn environment(&self) -> (String, String) {
        ("PCSCLITE_CSOCK_NAME".into(), self.pcscd.socket().display().to_string())
    }
}

/// The slots of a card.
pub(crate) fn slots() -> impl Iterator<Item = KeyName> {
    // Slot 9e last: by itself it wants no PIN, which most checks are about.
    [0x9a, 0x9c, 0x9d]
        .into_iter()
        .chain(0x82..=0x95)
        .chain([0x9e])
        .map(|slot: u8| KeyName::label(format!("{slot:02x}")).expect("slots have good names"))
}

/// Seven digits: with one more it is still a PIN, and a wrong one.
fn random_pin() -> String {
    let digits: String = random_secret().bytes().map(|b| char::from(b'0' + b % 10)).take(7).collect();
    if digits.starts_with(DEFAULT_PIN) { random_pin() } else { digits }
}

impl Engine for Piv {
    fn toml(&self, name: &str, pin: PinSetup) -> String {
        let pin = self.pins.of(pin);
        let pin = pin.map_or_else(|| "\"prompt\"".to_owned(), |p| format!("{{ file = {} }}", toml_path(&p)));
        let (variable, socket) = self.environment();
        format!(
            "[[backend]]\nname = {name:?}\nkind = \"driver\"\nprogram = {}\npin = {pin}\n\
             environment = {{ {variable} = {socket:?} }}\n\
             options = {{ serial = {}, management_key_file = {}, allow_defaults = true }}\n",
            toml_path(&programs::ours("signerd-piv")),
            self.serial,
            toml_path(&self.management_key_file()),
        )
    }

    fn direct(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let backend = DriverBackend::start(self.driver(self.options(), self.pins.of(pin))).await?;
            Ok(backend as Arc<dyn Backend>)
        })
    }

    fn profile(&self) -> Profile {
        profile(self.names.clone())
    }

    fn pin(&self) -> String {
        self.pin.clone()
    }

    fn pin_file(&self, pin: PinSetup) -> Option<PathBuf> {
        self.pins.of(pin)
    }

    fn logins(&self) -> Option<u64> {
        Some(self.card.state().counters.verifies)
    }
}

/// Firmware 5.7: no P-521 and no ML-DSA, pure Ed25519 only, and nothing like versions.
pub(crate) fn profile(names: Names) -> Profile {
    let mut profile = Profile::full()
        .without_types(&[KeyType::EcdsaP521, KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87])
        .without_algorithm(SignatureAlgorithm::Ed25519ph)
        .without(Ability::Rotate);
    profile.abilities.push(Ability::Attest);
    profile.identifiers = false;
    profile.names = names;
    profile.many_keys = slots().count();
    profile.open_within = Duration::from_secs(1);
    profile.signatures_a_task = 20;
    profile
}
