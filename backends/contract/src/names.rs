//! What the keys of a place may be called.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use signer_core::KeyName;

use crate::{Failure, failure::Context};

/// What the keys of a place may be called.
///
/// The checks think of a name for each key that they make. Where the names are fixed, each is given one of them when it is
/// first thought of; clones share what was given.
#[derive(Clone, Debug)]
pub struct Names(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Free,
    Restricted { allowed: fn(&str) -> bool, ignores_case: bool },
    Fixed(Arc<Fixed>),
}

#[derive(Debug)]
struct Fixed {
    all: Vec<KeyName>,
    given: Mutex<BTreeMap<String, KeyName>>,
}

impl Names {
    /// Any label.
    pub fn free() -> Self {
        Self(Kind::Free)
    }

    /// What the service allows; everything else is `BadRequest` to a new key, and `NotFound` when it is looked for.
    /// Letters, digits and `-` up to 63 characters are always allowed. `ignores_case`: whether `KEY` is `key`.
    pub fn restricted(allowed: fn(&str) -> bool, ignores_case: bool) -> Self {
        Self(Kind::Restricted { allowed, ignores_case })
    }

    /// These and no others: the slots of a card.
    pub fn fixed(names: impl IntoIterator<Item = KeyName>) -> Self {
        Self(Kind::Fixed(Arc::new(Fixed { all: names.into_iter().collect(), given: Mutex::default() })))
    }

    /// The names that there are, where they are fixed.
    pub fn all(&self) -> Option<&[KeyName]> {
        match &self.0 {
            Kind::Fixed(fixed) => Some(&fixed.all),
            Kind::Free | Kind::Restricted { .. } => None,
        }
    }

    /// Whether a key may be called that.
    pub(crate) fn allow(&self, name: &str) -> bool {
        match &self.0 {
            Kind::Free => true,
            Kind::Restricted { allowed, .. } => allowed(name),
            Kind::Fixed(fixed) => fixed.all.iter().any(|n| n.as_label() == Some(name)),
        }
    }

    pub(crate) fn ignore_case(&self) -> bool {
        matches!(self.0, Kind::Restricted { ignores_case: true, .. })
    }

    /// The name for what a check calls `text`: always the same one.
    pub(crate) fn of(&self, text: &str) -> Result<KeyName, Failure> {
        let Kind::Fixed(fixed) = &self.0 else {
            return KeyName::label(text).context(format_args!("the label {text:?}"));
        };
        let mut given = fixed.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = given.get(text) {
            return Ok(name.clone());
        }
        let name = fixed.all.get(given.len()).cloned().ok_or_else(|| {
            Failure::new(format!(
                "the place has {} names for keys, and {text:?} is one more",
                fixed.all.len()
            ))
        })?;
        given.insert(text.to_owned(), name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_names_are_given_once_and_run_out() {
        let names = Names::fixed(["9a", "9c"].map(|n| KeyName::label(n).unwrap()));
        assert_eq!(names.of("one").unwrap().as_label(), Some("9a"));
        assert_eq!(names.clone().of("two").unwrap().as_label(), Some("9c"));
        assert_eq!(names.of("one").unwrap().as_label(), Some("9a"));
        assert!(names.of("three").is_err());
        assert_eq!(Names::free().of("three").unwrap().as_label(), Some("three"));
    }
}
