//! The text of `signerd.toml`, and how it becomes a [`Config`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use signer_core::{BackendName, KeyRef, PublicKey};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    BackendConfig, Config, Fault, Faults, GrantConfig, KeyConfig, Limits, Log, Metrics, Order, Overrides,
    audit::{self, AuditTable},
    backend::BackendTable,
    paths, text_hash,
    units::{Bytes, Mode, Span},
};
use crate::grants::{AlgorithmSet, CallerPattern, Glob, Operations};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    socket: Option<PathBuf>,
    socket_mode: Option<Mode>,
    socket_group: Option<String>,
    state: Option<PathBuf>,
    #[serde(default)]
    log: LogTable,
    #[serde(default)]
    metrics: MetricsTable,
    #[serde(default)]
    limits: LimitsTable,
    audit: Option<Spanned<AuditTable>>,
    #[serde(default)]
    key: Vec<Spanned<KeyTable>>,
    #[serde(default)]
    grant: Vec<Spanned<GrantTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LogTable {
    format: Option<Format>,
    level: Option<Level>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MetricsTable {
    listen: Option<SocketAddr>,
    #[serde(default)]
    key_labels: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    max_message: Option<Spanned<Bytes>>,
    max_memory: Option<Spanned<Bytes>>,
    max_connections: Option<Spanned<u32>>,
    max_calls: Option<Spanned<u32>>,
    stream_window: Option<Spanned<u32>>,
    queue: Option<Spanned<u32>>,
    default_deadline: Option<Spanned<Span>>,
    max_deadline: Option<Spanned<Span>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    name: Spanned<String>,
    members: Spanned<Vec<Spanned<String>>>,
    order: Option<OrderName>,
    public_key: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum OrderName {
    First,
    RoundRobin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantTable {
    callers: Spanned<Vec<Spanned<String>>>,
    keys: Spanned<Vec<Spanned<String>>>,
    operations: Spanned<Vec<Spanned<String>>>,
    algorithms: Option<Spanned<Vec<Spanned<String>>>>,
}

/// Collects what is wrong while the rest is looked at.
pub(super) struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.faults.push(Fault::new(self.path, self.text, Some(span), what));
    }

    /// The folder that relative paths begin at.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        Fault::new(self.path, self.text, Some(span.clone()), "").line().unwrap_or_default()
    }

    /// Reads a text, or notes why it cannot be read.
    pub(super) fn parsed<T>(&mut self, text: &Spanned<String>) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(e) => {
                self.fault(text.span(), e.to_string());
                None
            }
        }
    }

    /// A number of at least 1.
    pub(super) fn positive(&mut self, number: Option<&Spanned<u32>>) -> Option<u32> {
        let number = number?;
        if *number.get_ref() == 0 {
            self.fault(number.span(), "it must be at least 1");
            return None;
        }
        Some(*number.get_ref())
    }
}

pub(super) fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Config, Faults> {
    let broken = |e: toml::de::Error| Faults(vec![Fault::new(path, text, e.span(), e.message().to_owned())]);
    let mut root = DeTable::parse(text).map_err(broken)?;
    // Each kind of backend has settings of its own, so these tables are taken apart by hand.
    let tables = root.get_mut().remove("backend");
    let file = File::deserialize(toml::Deserializer::from(root)).map_err(broken)?;
    let mut reader = Reader { path, text, faults: Vec::new() };
    let folder = reader.folder().to_owned();
    let state = overrides
        .state
        .clone()
        .or_else(|| file.state.map(|s| folder.join(s)))
        .unwrap_or_else(paths::default_state);
    let mut warnings = Vec::new();

    let limits = limits(&mut reader, &file.limits);
    let backends = backends(&mut reader, tables, &state);
    let mut names = Vec::new();
    for (name, span) in backends.iter().map(|(backend, span)| (&backend.name, span)) {
        if names.contains(&name) {
            reader.fault(span.clone(), format!("two backends are called {name}"));
        }
        names.push(name);
    }
    let keys = keys(&mut reader, file.key, &names);
    let grants: Vec<_> = file.grant.into_iter().filter_map(|g| grant(&mut reader, &g)).collect();

    let audit = file.audit.and_then(|table| audit::audit(&mut reader, table, &state, &names, &keys, &grants));

    if backends.is_empty() {
        warnings.push("there is no [[backend]]: no keys can be used".to_owned());
    }
    if grants.is_empty() {
        warnings.push("there is no [[grant]]: nobody may do anything".to_owned());
    }
    if let Some(listen) = file.metrics.listen.filter(|l| !l.ip().is_loopback()) {
        warnings.push(format!("metrics are served on {listen}, to everybody who can reach it"));
    }
    if !reader.faults.is_empty() {
        return Err(Faults(reader.faults));
    }
    Ok(Config {
        file: Some(path.to_owned()),
        socket: overrides
            .socket
            .clone()
            .or_else(|| file.socket.map(|s| folder.join(s)))
            .unwrap_or_else(paths::default_socket),
        socket_mode: file.socket_mode.map_or(0o660, |m| m.0),
        socket_group: file.socket_group,
        state,
        log: Log {
            json: matches!(file.log.format, Some(Format::Json)),
            level: match file.log.level {
                Some(Level::Error) => tracing::Level::ERROR,
                Some(Level::Warn) => tracing::Level::WARN,
                Some(Level::Debug) => tracing::Level::DEBUG,
                Some(Level::Trace) => tracing::Level::TRACE,
                Some(Level::Info) | None => tracing::Level::INFO,
            },
        },
        metrics: Metrics { listen: file.metrics.listen, key_labels: file.metrics.key_labels },
        limits,
        audit,
        text_hash: text_hash(text),
        backends: backends.into_iter().map(|(backend, _)| backend).collect(),
        keys,
        grants,
        warnings,
    })
}

fn backends(
    reader: &mut Reader<'_>,
    tables: Option<Spanned<DeValue<'_>>>,
    state: &Path,
) -> Vec<(BackendConfig, Range<usize>)> {
    let Some(tables) = tables else { return Vec::new() };
    let span = tables.span();
    let DeValue::Array(tables) = tables.into_inner() else {
        reader.fault(span, "backends are tables with two brackets: [[backend]]");
        return Vec::new();
    };
    tables
        .into_iter()
        .filter_map(|table| BackendTable::new(table, reader)?.into_config(reader, state))
        .collect()
}

fn limits(reader: &mut Reader<'_>, table: &LimitsTable) -> Limits {
    let mut limits = Limits::default();
    for (bytes, limit) in
        [(&table.max_message, &mut limits.max_message), (&table.max_memory, &mut limits.max_memory)]
    {
        let Some(bytes) = bytes else { continue };
        match usize::try_from(bytes.get_ref().0) {
            Ok(n) if (1024..=1 << 40).contains(&n) => *limit = n,
            _ => reader.fault(bytes.span(), "it must be from 1 KiB to 1024 GiB"),
        }
    }
    for (duration, limit) in [
        (&table.default_deadline, &mut limits.default_deadline),
        (&table.max_deadline, &mut limits.max_deadline),
    ] {
        let Some(duration) = duration else { continue };
        if duration.get_ref().0.as_millis() == 0 || duration.get_ref().0.as_secs() > 86_400 {
            reader.fault(duration.span(), "it must be more than nothing and at most 24 h");
        } else {
            *limit = duration.get_ref().0;
        }
    }
    if let Some(n) = reader.positive(table.max_connections.as_ref()) {
        limits.max_connections = n as usize;
    }
    if let Some(n) = reader.positive(table.max_calls.as_ref()) {
        limits.max_calls = n;
    }
    if let Some(n) = reader.positive(table.stream_window.as_ref()) {
        limits.stream_window = n as usize;
    }
    if let Some(n) = reader.positive(table.queue.as_ref()) {
        limits.queue = n as usize;
    }
    limits.max_deadline = limits.max_deadline.max(limits.default_deadline);
    limits.max_memory = limits.max_memory.max(limits.max_message);
    limits
}

fn keys(
    reader: &mut Reader<'_>,
    tables: Vec<Spanned<KeyTable>>,
    backends: &[&BackendName],
) -> BTreeMap<BackendName, KeyConfig> {
    let mut keys = BTreeMap::new();
    for table in tables {
        let table = table.into_inner();
        let name: Option<BackendName> = reader.parsed(&table.name);
        if table.members.get_ref().is_empty() {
            reader.fault(table.members.span(), "members is empty: it names the key, as backend/key");
            continue;
        }
        let mut members = Vec::new();
        for text in table.members.get_ref() {
            let Some(member) = member(reader, text, backends) else { continue };
            if members.contains(&member) {
                reader.fault(text.span(), format!("{member} is a member already"));
            }
            members.push(member);
        }
        let order = match table.order {
            Some(OrderName::RoundRobin) => Order::RoundRobin,
            Some(OrderName::First) | None => Order::First,
        };
        let public_key = table.public_key.and_then(|path| public_key(reader, &path, members.len()));
        let Some(name) = name else { continue };
        if keys.insert(name.clone(), KeyConfig { members, order, public_key }).is_some() {
            reader.fault(table.name.span(), format!("two keys are called {name}"));
        }
    }
    keys
}

fn member(reader: &mut Reader<'_>, text: &Spanned<String>, backends: &[&BackendName]) -> Option<KeyRef> {
    let reference = reader.parsed::<KeyRef>(text)?;
    match &reference {
        KeyRef::Configured(other) => {
            let what = format!("{other} is no key of a backend: write backend/key, or an address");
            reader.fault(text.span(), what);
            None
        }
        KeyRef::InBackend { backend, .. } if !backends.contains(&backend) => {
            let what = format!("there is no [[backend]] with the name {backend}");
            reader.fault(text.span(), what);
            None
        }
        _ => Some(reference),
    }
}

/// The public key in a file, which all members must have.
fn public_key(reader: &mut Reader<'_>, path: &Spanned<PathBuf>, members: usize) -> Option<PublicKey> {
    if members < 2 {
        reader.fault(path.span(), "public_key is what several members are compared with: this key has one");
        return None;
    }
    let file = reader.folder().join(path.get_ref());
    let key = std::fs::read(&file).map_err(|e| e.to_string());
    match key.and_then(|bytes| PublicKey::from_pem_or_der(&bytes).map_err(|e| e.to_string())) {
        Ok(key) => Some(key),
        Err(e) => {
            reader.fault(path.span(), format!("the public key {} cannot be read: {e}", file.display()));
            None
        }
    }
}

fn grant(reader: &mut Reader<'_>, table: &Spanned<GrantTable>) -> Option<GrantConfig> {
    let line = reader.line(&table.span());
    let table = table.get_ref();
    for list in [&table.callers, &table.keys, &table.operations].into_iter().chain(&table.algorithms) {
        if list.get_ref().is_empty() {
            reader.fault(
                list.span(),
                "an empty list grants nothing: name something, or take the [[grant]] out",
            );
            return None;
        }
    }
    let callers: Vec<CallerPattern> =
        table.callers.get_ref().iter().filter_map(|c| reader.parsed(c)).collect();
    let keys = table.keys.get_ref().iter().filter_map(|k| reader.parsed::<Glob>(k)).collect();
    let mut operations = Operations::NONE;
    for operation in table.operations.get_ref() {
        operations |= reader.parsed::<Operations>(operation).unwrap_or(Operations::NONE);
    }
    let algorithms = match &table.algorithms {
        None => AlgorithmSet::ALL,
        Some(list) => {
            let mut set = AlgorithmSet::NONE;
            for algorithm in list.get_ref() {
                set |= reader.parsed::<AlgorithmSet>(algorithm).unwrap_or(AlgorithmSet::NONE);
            }
            set
        }
    };
    Some(GrantConfig { line, callers, keys, operations, algorithms })
}
