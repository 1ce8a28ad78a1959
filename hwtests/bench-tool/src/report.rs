//! What the benchmark found: rows of figures and goals, as text for people and as JSON for programs.

use std::fmt::{self, Display, Formatter, Write};

use serde::Serialize;

use crate::measure::Load;

/// One row of the table: a task, who did it how fast, and the goals for it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What `--only` takes.
    pub name: &'static str,
    /// The task, for people.
    pub title: &'static str,
    /// Who did it.
    pub lines: Vec<Line>,
    /// What was to be reached.
    pub goals: Vec<Goal>,
}

/// Who did it, and the median of each figure over the rounds.
#[derive(Debug, Serialize)]
pub struct Line {
    /// A program, and how it was used.
    pub who: String,
    /// What was measured.
    pub figures: Vec<Figure>,
}

/// A column of the table.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Its heading, with the unit.
    pub name: &'static str,
    /// The median over the rounds.
    pub value: f64,
    #[serde(skip)]
    decimals: usize,
}

/// A figure to reach: each round's value, compared by the median.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// What is compared.
    pub what: String,
    /// What is written behind figures, with a space before it where there is one.
    pub unit: &'static str,
    /// The median of the rounds.
    pub median: f64,
    /// The lowest round.
    pub lowest: f64,
    /// The highest round.
    pub highest: f64,
    #[serde(flatten)]
    /// The goal.
    pub limit: Limit,
    /// Whether the median reaches it.
    pub met: bool,
}

/// Which side of a figure is good.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// So much, or less.
    AtMost(f64),
    /// So much, or more.
    AtLeast(f64),
}

impl Line {
    /// The medians of several rounds of a load.
    pub fn of_loads(who: &str, loads: &[Load]) -> Self {
        let of = |figure: fn(&Load) -> f64| median(loads.iter().map(figure));
        let mut line = Self::new(who)
            .with("rate/s", of(rate), 0)
            .with("p50 ms", of(|l| l.p50_ms), 3)
            .with("p99 ms", of(|l| l.p99_ms), 3)
            .with("CPU µs", of(|l| l.cpu.client + l.cpu.daemon + l.cpu.drivers), 1)
            .with("client", of(|l| l.cpu.client), 1);
        if loads.iter().any(|l| l.cpu.daemon > 0.0) {
            line = line.with("daemon", of(|l| l.cpu.daemon), 1);
        }
        if loads.iter().any(|l| l.cpu.drivers > 0.0) {
            line = line.with("drivers", of(|l| l.cpu.drivers), 1);
        }
        line
    }

    /// A line without figures yet.
    pub fn new(who: &str) -> Self {
        Self { who: who.into(), figures: Vec::new() }
    }

    /// The line with one more figure.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64, decimals: usize) -> Self {
        self.figures.push(Figure { name, value, decimals });
        self
    }
}

impl Goal {
    /// Judges the values of all rounds.
    pub fn new(what: impl Into<String>, unit: &'static str, values: &[f64], limit: Limit) -> Self {
        let middle = median(values.iter().copied());
        Self {
            what: what.into(),
            unit,
            median: middle,
            lowest: values.iter().copied().fold(f64::INFINITY, f64::min),
            highest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            limit,
            met: match limit {
                Limit::AtMost(limit) => middle <= limit,
                Limit::AtLeast(limit) => middle >= limit,
            },
        }
    }
}

/// Requests a second.
pub fn rate(load: &Load) -> f64 {
    load.requests as f64 / load.seconds
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  [{}]", self.title, self.name)?;
        let mut columns: Vec<&str> = Vec::new();
        for figure in self.lines.iter().flat_map(|l| &l.figures) {
            if !columns.contains(&figure.name) {
                columns.push(figure.name);
            }
        }
        let width = self.lines.iter().map(|l| l.who.chars().count()).max().unwrap_or_default();
        let heading = columns.iter().fold(String::new(), |mut text, c| {
            let _ = write!(text, " {c:>9}");
            text
        });
        writeln!(f, "  {:width$}{heading}", "")?;
        for line in &self.lines {
            write!(f, "  {:width$}", line.who)?;
            for column in &columns {
                match line.figures.iter().find(|figure| figure.name == *column) {
                    Some(figure) => write!(f, " {:>9.*}", figure.decimals, figure.value)?,
                    None => write!(f, " {:>9}", "–")?,
                }
            }
            writeln!(f)?;
        }
        for goal in &self.goals {
            writeln!(f, "  {goal}")?;
        }
        Ok(())
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let met = if self.met { "met   " } else { "MISSED" };
        let (relation, limit) = match self.limit {
            Limit::AtMost(limit) => ("at most", limit),
            Limit::AtLeast(limit) => ("at least", limit),
        };
        let unit = self.unit;
        write!(f, "{met} {}: {}{unit}, goal {relation} {limit}{unit}", self.what, short(self.median))?;
        if (self.highest - self.lowest).abs() > f64::EPSILON {
            write!(f, "  ({} … {})", short(self.lowest), short(self.highest))?;
        }
        Ok(())
    }
}

/// Three digits that say something.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let goal = |limit| Goal::new("rate", "", &[0.5, 0.95, 1.2], limit);
        assert!(goal(Limit::AtLeast(0.9)).met);
        assert!(!goal(Limit::AtLeast(1.0)).met);
        assert!(goal(Limit::AtMost(1.0)).met);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(!Goal::new("nothing", "", &[], Limit::AtLeast(0.0)).met);
    }
}
