//! What was asked, counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

/// Counters of requests by operation, and of connections.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    connections: u64,
    operations: BTreeMap<String, u64>,
}

impl Seen {
    pub(crate) fn connection(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
    }

    pub(crate) fn operation(&self, name: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.operations.entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn of(&self, operation: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.operations.get(operation).copied().unwrap_or(0)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connections
    }

    pub(crate) fn to_json(&self) -> Value {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: u64 = counts.operations.values().sum();
        json!({"connections": counts.connections, "total": total, "operations": counts.operations})
    }
}
