//! Starting what is configured.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use signer_aws_kms::AwsBackend;
use signer_azure_key_vault::AzureKeyVault;
use signer_core::{Backend, Error, ErrorKind, Pin, Result};
use signer_driver::{DriverBackend, DriverConfig, PinLoader};
use signer_google_kms::GoogleKms;
use signer_software::{SoftwareBackend, SoftwareConfig};
use signer_vault_transit::{SecretLoader, VaultBackend};

use crate::{
    compose::blocking,
    config::{BackendConfig, BackendKind, DriverTable, SecretSource, SoftwareTable},
    place::{Running, Settings},
};

/// Starts a backend.
pub(crate) async fn backend(config: &BackendConfig, settings: &Settings) -> Result<Running> {
    match &config.kind {
        BackendKind::Software(table) => {
            let (config, table, state) = (config.clone(), table.clone(), settings.state.clone());
            blocking(move || {
                let passphrase = passphrase(&config, &table, &state)?;
                software(&config, &table, passphrase)
            })
            .await
        }
        BackendKind::Driver(table) => {
            let driver = DriverBackend::start(driver_config(config, table, settings.queue)?).await?;
            Ok(Running::Up { backend: driver.clone(), driver: Some(driver) })
        }
        BackendKind::Vault(table) => {
            let loader = |source: SecretSource| -> SecretLoader { Arc::new(move || source.load()) };
            Ok(remote(VaultBackend::new(config.name.as_str(), (**table).clone().map_secrets(loader))?))
        }
        BackendKind::Aws(table) => Ok(remote(AwsBackend::new(config.name.as_str(), (**table).clone())?)),
        BackendKind::Google(table) => Ok(remote(GoogleKms::new(config.name.as_str(), (**table).clone())?)),
        BackendKind::Azure(table) => Ok(remote(AzureKeyVault::new(config.name.as_str(), (**table).clone())?)),
    }
}

/// A service that is spoken to from here. It connects when it is first asked for something.
fn remote(backend: impl Backend + 'static) -> Running {
    Running::Up { backend: Arc::new(backend), driver: None }
}

/// Starts a software backend with the passphrase that somebody gave.
pub(crate) async fn software_with(config: &BackendConfig, passphrase: Pin) -> Result<Running> {
    let config = config.clone();
    blocking(move || match &config.kind {
        BackendKind::Software(table) => software(&config, table, passphrase),
        _ => Err(Error::internal("this backend has no passphrase")),
    })
    .await
}

fn software(config: &BackendConfig, table: &SoftwareTable, passphrase: Pin) -> Result<Running> {
    let backend = SoftwareBackend::open(SoftwareConfig {
        directory: table.directory.clone(),
        passphrase,
        kdf: table.kdf,
        name: config.name.to_string(),
    })?;
    Ok(Running::Up { backend: Arc::new(backend), driver: None })
}

fn passphrase(config: &BackendConfig, table: &SoftwareTable, state: &Path) -> Result<Pin> {
    match &table.passphrase {
        None => signer_software::load_or_create_passphrase(&passphrase_file(config, state)),
        Some(source) => source.load()?.ok_or_else(|| {
            Error::new(ErrorKind::PinRequired, "nobody has given the passphrase of the key files yet")
                .next(format!("signer keys unlock {}", config.name))
        }),
    }
}

/// Where the passphrase of a software backend is kept that has none configured.
pub(crate) fn passphrase_file(config: &BackendConfig, state: &Path) -> PathBuf {
    state.join(format!("{}.passphrase", config.name))
}

fn driver_config(config: &BackendConfig, table: &DriverTable, queue: usize) -> Result<DriverConfig> {
    let pin: Option<PinLoader> = table.pin.clone().map(|source: SecretSource| {
        let loader: PinLoader = Arc::new(move || source.load());
        loader
    });
    let more_than_one_core = || std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    Ok(DriverConfig {
        backend: config.name.to_string(),
        program: find_program(&table.program)?,
        arguments: table.arguments.clone(),
        environment: table.environment.clone().into_iter().collect(),
        options: table.options.clone(),
        processes: table.processes,
        threads: table.threads,
        spin: table.spin.unwrap_or_else(more_than_one_core),
        queue,
        pin,
        pin_ttl: table.pin_ttl,
    })
}

/// Where a driver program is: its path, or for a name alone beside the daemon's own program, then in `PATH`.
pub(crate) fn find_program(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        return if program.is_file() {
            Ok(program.to_owned())
        } else {
            Err(missing(program, "it is not there"))
        };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(program)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(program));
    beside
        .into_iter()
        .chain(in_path)
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(program, "it is neither beside signerd nor in PATH"))
}

fn missing(program: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::DeviceGone,
        format!("the driver program {} cannot be started: {why}", program.display()),
    )
    .next("install it beside signerd, or set program in the [[backend]] table")
}
