//! `signerd explain`: which grant decides, and why the others do not.

use std::fmt::Write as _;

use signer_core::{KeyRef, SignatureAlgorithm};

use super::{Grants, Operations};
use crate::identity::Identity;

/// Whether the request is granted, and an account of why, one line for each grant.
pub fn explain(
    grants: &Grants,
    caller: &Identity,
    operation: Operations,
    key: &KeyRef,
    algorithm: Option<SignatureAlgorithm>,
) -> (bool, String) {
    let names = grants.names_as_asked(key);
    let mut deciding = None;
    let mut text = String::new();
    for rule in &grants.rules {
        let mut missing = Vec::new();
        if !rule.is_for(caller) {
            missing.push("the caller".to_owned());
        }
        if !rule.covers(&names) {
            missing.push("the key".to_owned());
        }
        if !rule.config.operations.intersects(operation) {
            missing.push("the operation".to_owned());
        }
        if operation == Operations::SIGN && algorithm.is_some_and(|a| !rule.config.algorithms.contains(a)) {
            missing.push("the algorithm".to_owned());
        }
        let verdict = if missing.is_empty() {
            deciding.get_or_insert_with(|| rule.place());
            "allows it".to_owned()
        } else {
            format!("does not name {}", missing.join(" nor "))
        };
        let _ = writeln!(text, "  {} {verdict}: {}", rule.place(), rule.config);
    }
    let with = algorithm.map(|a| format!(" with {a}")).unwrap_or_default();
    let mut head = match &deciding {
        Some(place) => format!("allowed by {place}: {caller} may {} {key}{with}\n", operation.verb()),
        None => format!("denied: no grant lets {caller} {} {key}{with}\n", operation.verb()),
    };
    if matches!(key, KeyRef::Address(_)) {
        head.push_str(
            "  an address is decided by the name of the key that it leads to: ask for that, as backend/key\n",
        );
    } else {
        let _ = writeln!(head, "  names of the key: {names}");
    }
    if grants.rules.is_empty() {
        head.push_str("  there are no grants\n");
    }
    (deciding.is_some(), head + &text)
}
