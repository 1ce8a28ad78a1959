//! `[[backend]]` tables: which settings each kind has.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use signer_aws_kms::AwsConfig;
use signer_azure_key_vault::AzureConfig;
use signer_core::BackendName;
use signer_google_kms::GoogleConfig;
use signer_software::Kdf;
use signer_vault_transit::VaultConfig;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{
    BackendConfig, BackendKind, DriverTable, SecretSource, SoftwareTable, file::Reader, units::Span,
};

/// A `[[backend]]` table as it was written. What is taken out is known; the rest is for the kind, which refuses what it
/// does not know.
pub(super) struct BackendTable<'t> {
    rest: DeTable<'t>,
    /// Where the table is.
    span: Range<usize>,
}

impl<'t> BackendTable<'t> {
    /// `None`, with a fault, for what is no table.
    pub(super) fn new(value: Spanned<DeValue<'t>>, reader: &mut Reader<'_>) -> Option<Self> {
        let span = value.span();
        if let DeValue::Table(rest) = value.into_inner() {
            return Some(Self { rest, span });
        }
        reader.fault(span, "a backend is a table: [[backend]]");
        None
    }

    /// The backend, and where its name is.
    pub(super) fn into_config(
        mut self,
        reader: &mut Reader<'_>,
        state: &Path,
    ) -> Option<(BackendConfig, Range<usize>)> {
        let name = self.needed::<String>(reader, "name", "a name, as in name = \"hsm\"")?;
        let kind = self.needed::<String>(reader, "kind", "a kind, as in kind = \"pkcs11\"")?;
        let queue = self.take::<u32>(reader, "queue");
        let queue = reader.positive(queue.as_ref()).map(|n| n as usize);
        let parsed: Option<BackendName> = reader.parsed(&name);
        let folder = reader.folder().to_owned();
        let settings = match kind.get_ref().as_str() {
            "software" => self.software(reader, &folder, state),
            "pkcs11" => self.pkcs11(reader, &folder, &kind),
            "piv" => self.piv(reader, &folder, &kind),
            "tpm" => self.tpm(reader, &folder, &kind, &state.join(name.get_ref())),
            "vault-transit" => self.vault(reader, &folder),
            "aws-kms" => self.aws(reader, &folder),
            "google-kms" => self.google(reader, &folder),
            "azure-key-vault" => self.azure(reader, &folder),
            "driver" => self.foreign_driver(reader, &folder, &kind),
            other => {
                reader.fault(
                    kind.span(),
                    format!("no kind of backend is called {other:?}: there are {}", KINDS.join(", ")),
                );
                return None;
            }
        };
        Some((BackendConfig { name: parsed?, kind: settings?, queue }, name.span()))
    }

    fn software(self, reader: &mut Reader<'_>, folder: &Path, state: &Path) -> Option<BackendKind> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            directory: Option<PathBuf>,
            passphrase: Option<SecretSource>,
            #[serde(default)]
            kdf: Kdf,
        }
        let Settings { directory, passphrase, kdf } = self.finish(reader)?;
        Some(BackendKind::Software(SoftwareTable {
            directory: directory.map_or_else(|| state.join("keys"), |d| folder.join(d)),
            passphrase: passphrase.map(|s| s.resolved(folder)),
            kdf,
        }))
    }

    fn pkcs11(
        mut self,
        reader: &mut Reader<'_>,
        folder: &Path,
        kind: &Spanned<String>,
    ) -> Option<BackendKind> {
        #[derive(Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            module: PathBuf,
            #[serde(skip_serializing_if = "Option::is_none")]
            token: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            serial: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            read_only: Option<bool>,
        }
        let driver = self.driver(reader, folder, kind, Some("signerd-pkcs11"), 2)?;
        if !self.rest.contains_key("module") {
            reader.fault(kind.span(), "a pkcs11 backend needs module: the path of the vendor's library");
            return None;
        }
        match (self.rest.get("token"), self.rest.get("serial")) {
            (Some(_), Some(serial)) => {
                let span = serial.span();
                reader.fault(span, "a token is named by token (its label) or by serial, not by both");
                return None;
            }
            (None, None) => {
                reader.fault(kind.span(), "a pkcs11 backend needs token (the token's label) or serial");
                return None;
            }
            _ => {}
        }
        let mut settings: Settings = self.finish(reader)?;
        // A name without a folder is looked for as the system does.
        if settings.module.components().count() > 1 {
            settings.module = folder.join(settings.module);
        }
        with_options(reader, kind, driver, &settings)
    }

    fn piv(mut self, reader: &mut Reader<'_>, folder: &Path, kind: &Spanned<String>) -> Option<BackendKind> {
        #[derive(Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            #[serde(skip_serializing_if = "Option::is_none")]
            serial: Option<Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            management_key_file: Option<PathBuf>,
            #[serde(default)]
            allow_defaults: bool,
            #[serde(default)]
            read_only: bool,
        }
        let driver = self.driver(reader, folder, kind, Some("signerd-piv"), 1)?;
        let mut settings: Settings = self.finish(reader)?;
        settings.management_key_file = settings.management_key_file.map(|path| folder.join(path));
        with_options(reader, kind, driver, &settings)
    }

    fn tpm(
        mut self,
        reader: &mut Reader<'_>,
        folder: &Path,
        kind: &Spanned<String>,
        keys: &Path,
    ) -> Option<BackendKind> {
        #[derive(Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            #[serde(skip_serializing_if = "Option::is_none")]
            tcti: Option<String>,
            state: Option<PathBuf>,
            #[serde(skip_serializing_if = "Option::is_none")]
            parent: Option<String>,
            #[serde(default)]
            parameter_encryption: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            owner_auth_file: Option<PathBuf>,
            #[serde(skip_serializing_if = "Option::is_none")]
            endorsement_auth_file: Option<PathBuf>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pin_policy: Option<String>,
            #[serde(default)]
            handles_with_pin: Vec<String>,
        }
        let driver = self.driver(reader, folder, kind, Some("signerd-tpm"), 1)?;
        let mut settings: Settings = self.finish(reader)?;
        settings.state = Some(settings.state.map_or_else(|| keys.to_owned(), |path| folder.join(path)));
        settings.owner_auth_file = settings.owner_auth_file.map(|path| folder.join(path));
        settings.endorsement_auth_file = settings.endorsement_auth_file.map(|path| folder.join(path));
        with_options(reader, kind, driver, &settings)
    }

    fn vault(self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        let mut config: VaultConfig<SecretSource> = self.finish(reader)?;
        for path in [&mut config.ca_file, &mut config.client_certificate, &mut config.client_key] {
            *path = path.take().map(|path| folder.join(path));
        }
        Some(BackendKind::Vault(Box::new(config.map_secrets(|source| source.resolved(folder)))))
    }

    fn aws(self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        let mut config: AwsConfig = self.finish(reader)?;
        for path in [&mut config.config_file, &mut config.credentials_file, &mut config.ca_file] {
            *path = path.take().map(|path| folder.join(path));
        }
        Some(BackendKind::Aws(Box::new(config)))
    }

    fn google(self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        Some(BackendKind::Google(Box::new(self.finish::<GoogleConfig>(reader)?.relative_to(folder))))
    }

    fn azure(self, reader: &mut Reader<'_>, folder: &Path) -> Option<BackendKind> {
        Some(BackendKind::Azure(Box::new(self.finish::<AzureConfig>(reader)?.relative_to(folder))))
    }

    fn foreign_driver(
        mut self,
        reader: &mut Reader<'_>,
        folder: &Path,
        kind: &Spanned<String>,
    ) -> Option<BackendKind> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let driver = self.driver(reader, folder, kind, None, 1)?;
        let Nothing {} = self.finish(reader)?;
        Some(BackendKind::Driver(driver))
    }

    /// What all kinds that run in driver processes have. `program` is the driver's own, `None` where the table must say.
    fn driver(
        &mut self,
        reader: &mut Reader<'_>,
        folder: &Path,
        kind: &Spanned<String>,
        program: Option<&str>,
        processes: usize,
    ) -> Option<DriverTable> {
        let given = self.take::<PathBuf>(reader, "program").map(Spanned::into_inner);
        // A program by its path, or by its name alone when it is to be looked for.
        let given = given.map(|p| if p.components().count() > 1 { folder.join(p) } else { p });
        let Some(program) = given.or_else(|| program.map(PathBuf::from)) else {
            reader.fault(kind.span(), "a driver backend needs program: the driver's path or name");
            return None;
        };
        let few = |n: Option<u32>, default| n.map_or(default, |n| n.min(64) as usize);
        let processes_given = self.take(reader, "processes");
        let threads_given = self.take(reader, "threads");
        let options = self.take::<toml::Table>(reader, "options").map(Spanned::into_inner);
        Some(DriverTable {
            kind: kind.get_ref().clone(),
            program,
            arguments: self.take_plain(reader, "arguments").unwrap_or_default(),
            environment: self
                .take_plain::<BTreeMap<String, String>>(reader, "environment")
                .unwrap_or_default(),
            options: serde_json::to_value(options.unwrap_or_default()).unwrap_or_default(),
            processes: few(reader.positive(processes_given.as_ref()), processes),
            threads: few(reader.positive(threads_given.as_ref()), 1),
            spin: self.take_plain(reader, "spin"),
            pin: self.take_plain::<SecretSource>(reader, "pin").map(|s| s.resolved(folder)),
            pin_ttl: self.pin_ttl(reader, kind),
        })
    }

    /// How long a PIN that a person gave is kept. A card belongs to a person who comes and goes; other devices to services.
    fn pin_ttl(&mut self, reader: &mut Reader<'_>, kind: &Spanned<String>) -> Option<Duration> {
        if let Some(DeValue::String(text)) = self.rest.get("pin_ttl").map(Spanned::get_ref)
            && text == "unlimited"
        {
            self.rest.remove("pin_ttl");
            return None;
        }
        let default = (kind.get_ref() == "piv").then_some(CARD_PIN_TTL);
        let Some(given) = self.take::<Span>(reader, "pin_ttl") else { return default };
        let ttl = given.get_ref().0;
        if ttl < Duration::from_secs(1) || ttl > MAX_PIN_TTL {
            reader.fault(given.span(), "it must be from 1 s to 168 h, or \"unlimited\"");
        }
        Some(ttl)
    }

    /// Takes one setting out; a fault when it cannot be read.
    fn take<T: DeserializeOwned>(&mut self, reader: &mut Reader<'_>, name: &str) -> Option<Spanned<T>> {
        let value = self.rest.remove(name)?;
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                reader.fault(error.span().unwrap_or(span), error.message());
                None
            }
        }
    }

    fn take_plain<T: DeserializeOwned>(&mut self, reader: &mut Reader<'_>, name: &str) -> Option<T> {
        self.take(reader, name).map(Spanned::into_inner)
    }

    fn needed<T: DeserializeOwned>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &str,
        what: &str,
    ) -> Option<Spanned<T>> {
        if !self.rest.contains_key(name) {
            reader.fault(self.span.clone(), format!("a backend needs {what}"));
            return None;
        }
        self.take(reader, name)
    }

    /// Reads what is left as the settings of the kind; what the kind does not have is a fault at its place.
    fn finish<T: DeserializeOwned>(self, reader: &mut Reader<'_>) -> Option<T> {
        let span = self.span.clone();
        let rest = DeValue::Table(self.rest);
        let mut values = Vec::new();
        texts(&rest, &mut values);
        match T::deserialize(ValueDeserializer::from(Spanned::new(span.clone(), rest))) {
            Ok(settings) => Some(settings),
            Err(error) => {
                // Somebody may have written a secret where only its place belongs.
                let hide = |message: String, value: &String| message.replace(value, "…");
                let message = values.iter().fold(error.message().to_owned(), hide);
                reader.fault(error.span().unwrap_or(span), message);
                None
            }
        }
    }
}

/// The texts and numbers in a value, as they may be repeated in a message.
fn texts(value: &DeValue<'_>, found: &mut Vec<String>) {
    match value {
        DeValue::String(text) if !text.is_empty() => found.push(text.to_string()),
        DeValue::Integer(number) => found.push(number.to_string()),
        DeValue::Float(number) => found.push(number.to_string()),
        DeValue::Array(values) => values.iter().for_each(|v| texts(v.get_ref(), found)),
        DeValue::Table(table) => table.values().for_each(|v| texts(v.get_ref(), found)),
        _ => {}
    }
}

/// The time of a card's PIN, where the table does not say.
const CARD_PIN_TTL: Duration = Duration::from_mins(15);
/// A week: who wants more wants no limit.
const MAX_PIN_TTL: Duration = Duration::from_hours(168);

const KINDS: [&str; 9] = [
    "software",
    "pkcs11",
    "piv",
    "tpm",
    "vault-transit",
    "aws-kms",
    "google-kms",
    "azure-key-vault",
    "driver",
];

/// Adds the settings of a kind to what its driver is told.
fn with_options(
    reader: &mut Reader<'_>,
    kind: &Spanned<String>,
    mut driver: DriverTable,
    settings: &impl Serialize,
) -> Option<BackendKind> {
    let (Ok(Value::Object(settings)), Some(options)) =
        (serde_json::to_value(settings), driver.options.as_object_mut())
    else {
        // JSON is text: a path that is none cannot be handed over.
        reader.fault(
            kind.span(),
            "a setting of this backend cannot be handed to its driver: a path is not UTF-8",
        );
        return None;
    };
    for (name, value) in settings {
        if options.insert(name.clone(), value).is_some() {
            reader.fault(kind.span(), format!("options must not repeat {name}"));
        }
    }
    Some(BackendKind::Driver(driver))
}
