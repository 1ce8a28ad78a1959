//! What a text is compared with: globs and regular expressions.

use regex::{Regex, RegexBuilder};
use signer_core::{Error, Result};

/// A pattern for a text as a whole.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    exact: Regex,
    /// For names in which upper and lower case are the same: host names and, as people use them, e-mail addresses.
    any_case: Regex,
}

impl Pattern {
    /// `*` stands for any characters, `?` for one; all else for itself.
    pub(super) fn glob(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::bad_request("an empty pattern matches nothing").next("write * for anything"));
        }
        let mut expression = String::from("^(?s:");
        for c in text.chars() {
            match c {
                '*' => expression.push_str(".*"),
                '?' => expression.push('.'),
                c => expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        expression.push_str(")$");
        Self::new(&expression)
    }

    /// A regular expression, which may match any part of the text: `^` and `$` stand for its ends.
    pub(super) fn regex(text: &str) -> Result<Self> {
        Self::new(text)
    }

    fn new(expression: &str) -> Result<Self> {
        let build = |any_case| {
            RegexBuilder::new(expression)
                .case_insensitive(any_case)
                .size_limit(1 << 20)
                .build()
                .map_err(|e| Error::bad_request(format!("the regular expression cannot be read: {e}")))
        };
        Ok(Self { exact: build(false)?, any_case: build(true)? })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.exact.is_match(text)
    }

    pub(super) fn matches_any_case(&self, text: &str) -> bool {
        self.any_case.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_for_the_whole_text() {
        let glob = |pattern: &str, text: &str| Pattern::glob(pattern).unwrap().matches(text);
        assert!(glob("*@example.com", "me@example.com"));
        assert!(!glob("*@example.com", "me@example.com.evil"));
        assert!(!glob("*@example.com", "me@exampleXcom"));
        assert!(glob("https://github.com/acme/*", "https://github.com/acme/x/y"));
        assert!(glob("a?c", "abc") && !glob("a?c", "ac"));
        assert!(glob("*", "two\nlines"));
        assert!(!glob("me@example.com", "Me@Example.com"));
        assert!(Pattern::glob("me@example.com").unwrap().matches_any_case("Me@Example.com"));
        assert!(Pattern::regex("^https://.*/acme/").unwrap().matches("https://github.com/acme/x"));
        assert!(Pattern::regex("(").is_err() && Pattern::glob("").is_err());
    }
}
