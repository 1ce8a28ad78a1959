//! What is wrong with a configuration file, and where.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// One thing that is wrong. It never repeats a value of the file: that could be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    file: PathBuf,
    /// Line and column, from 1; `None` when it is about the whole file.
    place: Option<(usize, usize)>,
    /// The line, as far as it holds no value.
    excerpt: String,
    what: String,
}

impl Fault {
    pub(super) fn new(file: &Path, text: &str, span: Option<Range<usize>>, what: impl Into<String>) -> Self {
        let mut fault =
            Self { file: file.to_owned(), place: None, excerpt: String::new(), what: what.into() };
        if let Some(span) = span {
            let start = text.floor_char_boundary(span.start.min(text.len()));
            let before = &text[..start];
            let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
            let begin = before.rfind('\n').map_or(0, |at| at + 1);
            fault.place = Some((line, before[begin..].chars().count() + 1));
            fault.excerpt = without_value(text[begin..].lines().next().unwrap_or_default());
        }
        fault
    }

    /// The line, from 1.
    pub fn line(&self) -> Option<usize> {
        self.place.map(|(line, _)| line)
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// The line's key, or its table header; everything after the first `=` is left out.
fn without_value(line: &str) -> String {
    match line.split_once('=') {
        Some((key, _)) => format!("{key}= …"),
        None if line.trim_start().starts_with(['[', '#']) => line.trim_end().to_owned(),
        None => "…".to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}: {}\n{line:6} | {}", self.what, self.excerpt)
        } else {
            write!(f, ": {}", self.what)
        }
    }
}

/// Everything that is wrong, as far as it could be seen at once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(super) fn whole(file: &Path, what: impl Into<String>) -> Self {
        Self(vec![Fault::new(file, "", None, what)])
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}
