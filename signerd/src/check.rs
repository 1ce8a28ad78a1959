//! `signerd check-config`: what a configuration means, and what on this machine does not fit it.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use signer_core::{Error, KeyRef};

use crate::{
    config::{AuditConfig, BackendConfig, BackendKind, Config, Order, SecretSource},
    events::Events,
    grants::Grants,
    metrics::Metrics,
    run, start,
};

/// Prints what the daemon would do. The exit code is 2 when something would not work.
pub(crate) fn print(config: &Config, devices: bool) -> ExitCode {
    match &config.file {
        Some(file) => println!("{} is well formed.", file.display()),
        None => println!("There is no configuration file: this is what holds without one."),
    }
    let group = config.socket_group.as_ref().map(|g| format!(", group {g}")).unwrap_or_default();
    println!("\nlistens on  {} (mode {:04o}{group})", config.socket.display(), config.socket_mode);
    println!("keeps state in  {}", config.state.display());
    if let Some(listen) = config.metrics.listen {
        println!("serves metrics on  http://{listen}/metrics");
    }
    let mut problems = Vec::new();
    if let Some(audit) = &config.audit {
        println!(
            "records the use of keys in  {} ({}, signed by {})",
            audit.directory.display(),
            audit.origin,
            audit.key
        );
        problems.extend(look_at_audit(audit).err());
    }
    println!("\nbackends:");
    for backend in &config.backends {
        println!("  {} ({}): {}", backend.name, backend.kind_name(), describe(backend, config));
        problems.extend(look(backend).err().map(|e| format!("backend {}: {e}", backend.name)));
    }
    if let Some(group) = &config.socket_group
        && crate::identity::gid_of(group).is_none()
    {
        problems.push(format!("socket_group: no group is called {group:?}"));
    }
    if !config.keys.is_empty() {
        println!("\nnames of keys:");
        for (name, key) in &config.keys {
            let members: Vec<_> = key.members.iter().map(ToString::to_string).collect();
            let order = match (members.len(), key.order) {
                (1, _) => "",
                (_, Order::First) => ", whichever is healthy, in this order",
                (_, Order::RoundRobin) => ", whichever is healthy, in turn",
            };
            println!("  {name} is {}{order}", members.join(" or "));
        }
    }
    if devices {
        problems.extend(compare(config).err());
    }
    println!("\ngrants:");
    for grant in &config.grants {
        println!("  {grant}");
    }
    let (_, warnings) = Grants::compile(&config.grants, &config.keys);
    for warning in config.warnings.iter().chain(&warnings) {
        println!("\nwarning: {warning}");
    }
    for problem in &problems {
        eprintln!("\nsignerd: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Starts what is configured, and compares the public keys of the members of each key.
fn compare(config: &Config) -> Result<(), String> {
    let several = config.keys.values().filter(|key| key.members.len() > 1);
    let mut config = config.clone();
    let wanted: Vec<_> = several.flat_map(|key| key.members.clone()).collect();
    config.backends.retain(|backend| {
        wanted.iter().any(|member| match member {
            KeyRef::InBackend { backend: name, .. } => *name == backend.name,
            KeyRef::Address(address) => [address.backend_kind(), "driver"].contains(&backend.kind_name()),
            KeyRef::Configured(_) => false,
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let result = runtime.block_on(async {
        let metrics = Arc::new(Metrics::new(false));
        let state = run::make_state(config, 1, &BTreeMap::new(), None, &Events::new(), &metrics).await;
        let result = run::compare_members(&state).await;
        println!("\nmembers of keys:");
        for group in state.groups.values() {
            for (member, compared) in group.compared() {
                let word = match compared {
                    Ok(()) => "the right key".to_owned(),
                    Err(Some(error)) => format!("not used: {error}"),
                    Err(None) => "not reached in time".to_owned(),
                };
                println!("  {} in {member}: {word}", group.name());
            }
        }
        for place in state.places.values() {
            place.stop().await;
        }
        result
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

fn describe(backend: &BackendConfig, config: &Config) -> String {
    match &backend.kind {
        BackendKind::Software(table) => {
            let passphrase = if let Some(source) = &table.passphrase {
                format!("passphrase from {source}")
            } else {
                let file = start::passphrase_file(backend, &config.state);
                format!("passphrase made on first use, in {}", file.display())
            };
            format!("key files in {}, {passphrase}, {}", table.directory.display(), table.kdf.name())
        }
        BackendKind::Driver(table) => {
            let program = start::find_program(&table.program).unwrap_or_else(|_| table.program.clone());
            let pin = table.pin.as_ref().map_or_else(|| "no PIN".to_owned(), |s| format!("PIN from {s}"));
            let processes = if table.processes == 1 { "process" } else { "processes" };
            format!("{} in {} {processes} at most, {pin}", program.display(), table.processes)
        }
        BackendKind::Vault(config) => {
            let address = config.address.as_deref().unwrap_or("the address in VAULT_ADDR");
            format!("the transit engine at {address}")
        }
        BackendKind::Aws(config) => {
            let region = config.region.as_deref().unwrap_or("the region that the environment says");
            format!("AWS KMS in {region}")
        }
        BackendKind::Google(config) => {
            let ring = config.key_ring.as_deref().unwrap_or("keys by their address alone");
            format!("Google Cloud KMS, {ring}")
        }
        BackendKind::Azure(config) => format!("the key vault {}", config.vault),
    }
}

/// Whether the folder of the audit log can be one: there, or in a folder that is there.
fn look_at_audit(audit: &AuditConfig) -> Result<(), String> {
    if let Some(group) = &audit.group
        && crate::identity::gid_of(group).is_none()
    {
        return Err(format!("[audit] group: no group is called {group:?}"));
    }
    let shown = audit.directory.display();
    let existing = audit.directory.ancestors().find(|folder| folder.exists());
    match existing.map(std::fs::metadata) {
        Some(Ok(metadata)) if metadata.is_dir() => Ok(()),
        _ => Err(format!("[audit] directory: {shown} cannot be a folder")),
    }
}

/// What of it can be seen from here: programs and secrets. Devices are left alone.
fn look(backend: &BackendConfig) -> Result<(), Error> {
    let secret = match &backend.kind {
        // Services are left alone, as devices are.
        BackendKind::Vault(_) | BackendKind::Aws(_) | BackendKind::Google(_) | BackendKind::Azure(_) => {
            return Ok(());
        }
        BackendKind::Software(table) => &table.passphrase,
        BackendKind::Driver(table) => {
            start::find_program(&table.program)?;
            if let Some(module) = table.options.get("module").and_then(|m| m.as_str())
                && module.contains('/')
                && !std::path::Path::new(module).is_file()
            {
                return Err(Error::bad_request(format!("there is no module {module}"))
                    .next("install the vendor's library, or correct module"));
            }
            &table.pin
        }
    };
    match secret {
        // What the service manager gives is not there when a person asks.
        None | Some(SecretSource::Prompt | SecretSource::Credential(_) | SecretSource::Env(_)) => Ok(()),
        Some(source @ SecretSource::File(_)) => source.load().map(drop),
    }
}
