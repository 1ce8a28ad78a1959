//! Patterns for names: `*` stands for any characters, `/` included, everything else for itself.

use std::{fmt, str::FromStr};

use signer_core::Error;

/// A pattern such as `hsm/release*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// A pattern from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let (middle, last) = match rest.rsplit_once('*') {
            Some((middle, last)) => (middle, last),
            None => ("", rest),
        };
        let Some(without_last) = name.strip_suffix(last) else { return false };
        name = without_last;
        // Taking each part where it comes first leaves the most for those after it.
        middle.split('*').all(|part| match name.find(part) {
            Some(at) => {
                name = &name[at + part.len()..];
                true
            }
            None => false,
        })
    }

    /// Whether some name that begins with `prefix` could fit.
    pub fn may_begin_with(&self, prefix: &str) -> bool {
        match self.0.split_once('*') {
            // After the first star, anything may follow.
            Some((first, _)) => first.starts_with(prefix) || prefix.starts_with(first),
            None => self.0.starts_with(prefix),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Glob {
    type Err = Error;

    /// Refuses what could never fit any name.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Error::bad_request(format!("{text:?} fits no key")));
        }
        if !text.contains('*') {
            // A name without stars is written as people write it; what is compared is its one canonical form.
            let reference: signer_core::KeyRef = text.parse()?;
            if matches!(reference, signer_core::KeyRef::Address(_)) {
                return Err(Error::bad_request(format!("{text:?} is an address; keys are granted by name"))
                    .next("write backend/key, or give the address a name with [[key]]"));
            }
            return Ok(Self(reference.to_string()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, written down as simply as it can be.
    fn fits(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=name.len()).any(|n| fits(rest, &name[n..])),
            ([p, rest @ ..], [n, more @ ..]) => p == n && fits(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn globs_do_as_defined(pattern in "[ab*/]{0,8}", name in "[ab/]{0,10}") {
            let (p, n): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(Glob::new(&*pattern).matches(&name), fits(&p, &n));
        }

        #[test]
        fn what_fits_may_begin_so(pattern in "[ab*/]{0,8}", prefix in "[ab/]{0,4}", rest in "[ab/]{0,5}") {
            let glob = Glob::new(&*pattern);
            let name = format!("{prefix}{rest}");
            prop_assert!(!glob.matches(&name) || glob.may_begin_with(&prefix));
        }
    }

    #[test]
    fn a_name_is_compared_in_its_canonical_form() {
        assert_eq!("soft/%72elease".parse::<Glob>().unwrap().as_str(), "soft/release");
        for bad in ["", "soft/", "pkcs11:object=k", "a\nb*"] {
            assert!(bad.parse::<Glob>().is_err(), "{bad:?}");
        }
    }
}
