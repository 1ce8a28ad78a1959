//! The configuration: found, readable, and accepted by the daemon itself.

use std::{fs, path::PathBuf, process::Command};

use super::Finding;
use crate::programs;

/// What the other checks need of a configuration.
pub(super) struct Config {
    pub(super) socket: Option<PathBuf>,
    pub(super) backends: Vec<Backend>,
}

/// What the other checks need of a `[[backend]]` table.
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) module: Option<PathBuf>,
    pub(super) token: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) pin_file: Option<PathBuf>,
    /// What the driver's environment has in addition.
    pub(super) environment: Vec<(String, String)>,
}

pub(super) fn check(path: Option<PathBuf>, findings: &mut Vec<Finding>) -> Option<Config> {
    let Some(path) = path else {
        findings.push(Finding::problem(
            "there is no configuration, neither yours nor /etc/signerd/signerd.toml",
            "run `signer init`, or name it with --config",
        ));
        return None;
    };
    let at = path.display();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => {
            findings.push(Finding::problem(
                format!("the configuration {at} cannot be read ({e})"),
                "run `signer init`, name another with --config, or ask its owner",
            ));
            return None;
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(e) => {
            findings.push(Finding::problem(
                format!("{at} is not TOML: {}", e.to_string().trim()),
                "correct the line",
            ));
            return None;
        }
    };
    findings.push(ask_daemon(&path));
    Some(read(&table))
}

/// The daemon's own opinion: nobody else knows all its options.
fn ask_daemon(path: &PathBuf) -> Finding {
    let at = path.display();
    let Some(signerd) = programs::find("signerd") else {
        return Finding::problem(
            "the program signerd is neither beside this one nor in PATH",
            "install it, or add its folder to PATH",
        );
    };
    match Command::new(&signerd).arg("check-config").arg("--config").arg(path).output() {
        Err(e) => {
            Finding::problem(format!("{} cannot be started ({e})", signerd.display()), "install it again")
        }
        Ok(output) if output.status.success() => Finding::ok(format!("the configuration {at} is valid")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Finding::problem(format!("the configuration {at} is not valid: {said}"), "correct it")
        }
    }
}

fn read(table: &toml::Table) -> Config {
    let text = |t: &toml::Table, name: &str| t.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let backends = table.get("backend").and_then(toml::Value::as_array).into_iter().flatten();
    Config {
        socket: text(table, "socket").map(PathBuf::from),
        backends: backends
            .filter_map(toml::Value::as_table)
            .map(|b| Backend {
                name: text(b, "name").unwrap_or_default(),
                kind: text(b, "kind").unwrap_or_default(),
                module: text(b, "module").map(PathBuf::from),
                token: text(b, "token"),
                serial: text(b, "serial"),
                pin_file: b
                    .get("pin")
                    .and_then(toml::Value::as_table)
                    .and_then(|p| text(p, "file"))
                    .map(PathBuf::from),
                environment: environment(b),
            })
            .collect(),
    }
}

fn environment(backend: &toml::Table) -> Vec<(String, String)> {
    let table = backend.get("environment").and_then(toml::Value::as_table);
    let pairs = table.into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
