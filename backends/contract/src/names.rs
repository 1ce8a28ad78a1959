//! What the keys of a place may be called.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use signer_core::KeyName;

use crate::{Failure, failure::Context};

/// What the keys of a place may be called: anything, or a few names that the place has (the slots of a card).
///
/// The checks think of a name for each key that they make. Where the names are fixed, each is given one of them when it is
/// first thought of; clones share what was given.
#[derive(Clone, Debug, Default)]
pub struct Names(Option<Arc<Fixed>>);

#[derive(Debug)]
struct Fixed {
    all: Vec<KeyName>,
    given: Mutex<BTreeMap<String, KeyName>>,
}

impl Names {
    /// Any label.
    pub fn free() -> Self {
        Self(None)
    }

    /// These and no others.
    pub fn fixed(names: impl IntoIterator<Item = KeyName>) -> Self {
        Self(Some(Arc::new(Fixed { all: names.into_iter().collect(), given: Mutex::default() })))
    }

    /// The names that there are; `None` where any is.
    pub fn all(&self) -> Option<&[KeyName]> {
        self.0.as_ref().map(|fixed| &fixed.all[..])
    }

    /// The name for what a check calls `text`: always the same one.
    pub(crate) fn of(&self, text: &str) -> Result<KeyName, Failure> {
        let Some(fixed) = &self.0 else {
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
