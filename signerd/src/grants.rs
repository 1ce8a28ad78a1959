//! Who may do what with which keys: the one place where that is decided.
//!
//! A grant is a permission; there are no prohibitions, and what no grant allows is denied. A grant on any name of a
//! key is a grant on the key: its reference with or without a version, and the configured names that point at it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use signer_core::{BackendName, Error, ErrorKind, KeyName, KeyRef, SignatureAlgorithm};

use crate::{
    config::{GrantConfig, KeyConfig},
    identity::Identity,
};

mod caller;
mod explain;
mod glob;
mod sets;

pub use caller::CallerPattern;
pub use explain::explain;
pub use glob::Glob;
pub use sets::{AlgorithmSet, Operations};

use caller::CallerRule;

/// All grants, with names of users and groups resolved.
#[derive(Debug)]
pub struct Grants {
    rules: Vec<Rule>,
    /// Configured names of keys, and the keys that they stand for.
    names: Arc<BTreeMap<BackendName, KeyConfig>>,
}

#[derive(Debug)]
struct Rule {
    /// From 1, in the order of the configuration.
    number: usize,
    config: GrantConfig,
    callers: Vec<CallerRule>,
}

/// One grant's part in what a caller may sign with.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    pub(crate) algorithms: AlgorithmSet,
    /// `grant 2 on line 31`.
    pub(crate) place: Arc<str>,
}

/// All names of one key: a grant on any of them is a grant on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNames(Vec<String>);

impl Grants {
    /// Resolves the names of users and groups. Unknown ones match nobody, and are told as warnings.
    pub fn compile(grants: &[GrantConfig], names: &BTreeMap<BackendName, KeyConfig>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let rules = grants
            .iter()
            .enumerate()
            .map(|(n, config)| Rule {
                number: n + 1,
                callers: config.callers.iter().map(|c| c.resolve(&mut warnings)).collect(),
                config: config.clone(),
            })
            .collect();
        (Self { rules, names: Arc::new(names.clone()) }, warnings)
    }

    /// All names of a key of a backend.
    pub fn names(&self, backend: &BackendName, key: &KeyName) -> KeyNames {
        let full = format!("{backend}/{key}");
        let plain = key.version().map(|_| format!("{backend}/{}", key.clone().without_version()));
        let configured = self.names.iter().filter(|(_, key)| {
            key.members.iter().any(|member| {
                let member = member.to_string();
                member == full || Some(&member) == plain.as_ref()
            })
        });
        let configured: Vec<_> = configured.map(|(name, _)| name.to_string()).collect();
        KeyNames([full].into_iter().chain(plain).chain(configured).collect())
    }

    /// All names of a key as far as its reference says them, without asking any device. An address has only itself
    /// and the configured names for it.
    pub fn names_as_asked(&self, reference: &KeyRef) -> KeyNames {
        match reference {
            KeyRef::InBackend { backend, key } => self.names(backend, key),
            KeyRef::Configured(name) => {
                let members = self.names.get(name).map_or(&[][..], |key| &key.members);
                let members = members.iter().filter(|member| !matches!(member, KeyRef::Configured(_)));
                let names = members.fold(KeyNames(Vec::new()), |all, m| all.and(self.names_as_asked(m)));
                names.and(KeyNames(vec![name.to_string()]))
            }
            KeyRef::Address(_) => {
                let configured = self.names.iter().filter(|(_, key)| key.members.contains(reference));
                KeyNames(configured.map(|(name, _)| name.to_string()).collect())
            }
        }
    }

    /// The algorithms with which a caller may sign with a key; none if the caller may not sign at all.
    pub fn algorithms(&self, caller: &Identity, key: &KeyNames) -> AlgorithmSet {
        self.matching(caller, Operations::SIGN, key)
            .fold(AlgorithmSet::NONE, |set, rule| set | rule.config.algorithms)
    }

    /// The same, grant by grant.
    pub(crate) fn permissions(&self, caller: &Identity, key: &KeyNames) -> Vec<Permission> {
        let matching = self.matching(caller, Operations::SIGN, key);
        matching
            .map(|rule| Permission { algorithms: rule.config.algorithms, place: rule.place().into() })
            .collect()
    }

    /// The first grant that lets a caller do something with a key.
    pub(crate) fn which(&self, caller: &Identity, operation: Operations, key: &KeyNames) -> Option<Arc<str>> {
        Some(self.matching(caller, operation, key).next()?.place().into())
    }

    /// Whether a caller may do something with a key. For [`Operations::SIGN`] see [`Self::algorithms`].
    pub fn allow(&self, caller: &Identity, operation: Operations, key: &KeyNames) -> bool {
        self.matching(caller, operation, key).next().is_some()
    }

    /// Whether a caller may know that a key exists: whoever may do anything with it may.
    pub fn see(&self, caller: &Identity, key: &KeyNames) -> bool {
        self.matching(caller, Operations::ALL, key).next().is_some()
    }

    /// Whether a caller may do something that concerns a whole backend, such as unlocking it: a grant of the
    /// operation on some key there is enough.
    pub fn allow_backend(&self, caller: &Identity, operation: Operations, backend: &BackendName) -> bool {
        let prefix = format!("{backend}/");
        let configured: Vec<_> = self
            .names
            .iter()
            .filter(|(_, key)| {
                let here = |m: &KeyRef| matches!(m, KeyRef::InBackend { backend: b, .. } if b == backend);
                key.members.iter().any(here)
            })
            .map(|(name, _)| name.as_str())
            .collect();
        self.rules.iter().any(|rule| {
            rule.config.operations.intersects(operation)
                && rule.is_for(caller)
                && rule.config.keys.iter().any(|glob| {
                    glob.may_begin_with(&prefix) || configured.iter().any(|name| glob.matches(name))
                })
        })
    }

    /// Whether a caller may know that a backend exists.
    pub fn see_backend(&self, caller: &Identity, backend: &BackendName) -> bool {
        self.allow_backend(caller, Operations::ALL, backend)
    }

    /// Whether a caller may do something with every key of a backend, and so may be told which there are not.
    pub fn allow_whole_backend(
        &self,
        caller: &Identity,
        operation: Operations,
        backend: &BackendName,
    ) -> bool {
        let all = format!("{backend}/*");
        self.rules.iter().any(|rule| {
            rule.config.operations.intersects(operation)
                && rule.is_for(caller)
                && rule.config.keys.iter().any(|glob| glob.as_str() == "*" || glob.as_str() == all)
        })
    }

    /// Whether a caller may do something with anything at all.
    pub fn allow_anything(&self, caller: &Identity, operation: Operations) -> bool {
        self.rules.iter().any(|rule| rule.config.operations.intersects(operation) && rule.is_for(caller))
    }

    fn matching<'a>(
        &'a self,
        caller: &'a Identity,
        operation: Operations,
        key: &'a KeyNames,
    ) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| {
            rule.config.operations.intersects(operation) && rule.covers(key) && rule.is_for(caller)
        })
    }
}

impl Rule {
    fn is_for(&self, caller: &Identity) -> bool {
        self.callers.iter().any(|c| c.matches(caller))
    }

    fn covers(&self, key: &KeyNames) -> bool {
        self.config.keys.iter().any(|glob| key.0.iter().any(|name| glob.matches(name)))
    }

    fn place(&self) -> String {
        match self.config.line {
            0 => "the built-in grant".to_owned(),
            line => format!("grant {} on line {line}", self.number),
        }
    }
}

impl KeyNames {
    /// These names and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        for name in others.0 {
            if !self.0.contains(&name) {
                self.0.push(name);
            }
        }
        self
    }
}

impl fmt::Display for KeyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// What a caller is told who may not do something. It is the same whether or not there is such a key.
pub fn denied(
    caller: &str,
    operation: Operations,
    asked: &str,
    algorithm: Option<SignatureAlgorithm>,
) -> Error {
    let with = algorithm.map(|a| format!(" with {a}")).unwrap_or_default();
    Error::new(
        ErrorKind::Denied,
        format!("no grant lets {caller} {} {asked}{with}", operation.verb()),
    )
    .key(asked)
    .next(format!(
        "a [[grant]] in the daemon's configuration has to name this caller, the key and the operation \"{operation}\"; \
         `signerd explain` shows which grants there are"
    ))
}

#[cfg(test)]
mod tests;
