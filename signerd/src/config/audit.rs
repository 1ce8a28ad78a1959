//! The `[audit]` table.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use signer_core::{BackendName, KeyName, KeyRef};
use toml::Spanned;

use super::{GrantConfig, KeyConfig, file::Reader, units::Span};
use crate::grants::Operations;

/// Where the audit log is, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Its folder.
    pub directory: PathBuf,
    /// The key that signs its checkpoints.
    pub key: AuditKeyRef,
    /// Its name, the first line of each checkpoint.
    pub origin: String,
    /// How long records may be without a signed checkpoint before nothing is signed any more.
    pub max_unsigned: Duration,
    /// The least time between two checkpoints.
    pub checkpoint_every: Duration,
    /// Whether denials are recorded.
    pub denied: bool,
    /// Whether it is recorded who lists and looks at keys.
    pub reads: bool,
    /// Who may read it beside the daemon's user.
    pub group: Option<String>,
}

/// A key of a backend, by its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditKeyRef {
    /// Which backend.
    pub backend: BackendName,
    /// Its name.
    pub key: KeyName,
}

impl fmt::Display for AuditKeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.key)
    }
}

impl AuditConfig {
    /// What stays as it is until the daemon is started again.
    pub(crate) fn fixed(&self) -> impl PartialEq + '_ {
        (&self.directory, self.key.to_string(), &self.origin, &self.group)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditTable {
    directory: Option<PathBuf>,
    key: Spanned<String>,
    origin: Spanned<String>,
    max_unsigned: Option<Spanned<Span>>,
    checkpoint_every: Option<Spanned<Span>>,
    #[serde(default = "yes")]
    denied: bool,
    #[serde(default)]
    reads: bool,
    group: Option<String>,
}

fn yes() -> bool {
    true
}

/// The longest name of a log.
const LONGEST_ORIGIN: usize = 200;

/// Makes sense of the table, or notes what is wrong with it.
pub(super) fn audit(
    reader: &mut Reader<'_>,
    table: Spanned<AuditTable>,
    state: &Path,
    backends: &[&BackendName],
    keys: &BTreeMap<BackendName, KeyConfig>,
    grants: &[GrantConfig],
) -> Option<AuditConfig> {
    let (whole, table) = (table.span(), table.into_inner());
    let key = match reader.parsed::<KeyRef>(&table.key)? {
        KeyRef::InBackend { backend, key } if backends.contains(&&backend) => AuditKeyRef { backend, key },
        KeyRef::InBackend { backend, .. } => {
            reader.fault(table.key.span(), format!("there is no [[backend]] with the name {backend}"));
            return None;
        }
        KeyRef::Configured(_) | KeyRef::Address(_) => {
            reader.fault(table.key.span(), "the audit log's key is written as backend/key");
            return None;
        }
    };
    let origin = table.origin.get_ref();
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    if origin.is_empty() || origin.len() > LONGEST_ORIGIN || !origin.chars().all(fits) {
        let what = "the name of a log has no blanks and no +: audit.example.com, for one";
        reader.fault(table.origin.span(), what);
    }
    let mut span = |given: &Option<Spanned<Span>>, default: Duration, most: Duration| {
        let Some(given) = given else { return default };
        let span = given.get_ref().0;
        if span < Duration::from_millis(10) || span > most {
            reader.fault(given.span(), format!("it must be from 10 ms to {} min", most.as_secs() / 60));
        }
        span
    };
    let checkpoint_every = span(&table.checkpoint_every, Duration::from_secs(1), Duration::from_hours(1));
    let max_unsigned = span(
        &table.max_unsigned,
        Duration::from_mins(1).max(checkpoint_every * 10),
        Duration::from_hours(24),
    );
    if max_unsigned < checkpoint_every * 2 {
        let at = table.max_unsigned.as_ref().map_or(whole, Spanned::span);
        reader.fault(
            at,
            "max_unsigned must be at least twice checkpoint_every, or nothing is signed in between",
        );
    }
    let named = key.to_string();
    let has_it = |key: &KeyConfig| key.members.iter().any(|member| member.to_string() == named);
    for (name, _) in keys.iter().filter(|(_, key)| has_it(key)) {
        let what = format!("the [[key]] {name} is the audit log's key, which nobody else uses: take it out");
        reader.fault(table.key.span(), what);
    }
    for grant in grants.iter().filter(|g| g.operations.intersects(Operations::SIGN)) {
        if grant.operations != Operations::ALL && grant.keys.iter().any(|glob| glob.as_str() == named) {
            let what = format!(
                "the grant on line {} lets somebody sign with the audit log's key, which is refused whatever grants say",
                grant.line
            );
            reader.fault(table.key.span(), what);
        }
    }
    Some(AuditConfig {
        directory: match table.directory {
            Some(directory) => reader.folder().join(directory),
            None => state.join("audit"),
        },
        key,
        origin: table.origin.into_inner(),
        max_unsigned,
        checkpoint_every,
        denied: table.denied,
        reads: table.reads,
        group: table.group,
    })
}
