//! The table as it is printed: what every benchmark takes on its command line, and how it ends.

use std::{error::Error, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::report::Row;

/// How much to measure, and how to print it.
#[derive(Args, Debug)]
pub struct Table {
    /// Rounds of baseline and ours in turns; the medians count [default: several, with --short 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// One short round that only shows that everything works: goals are printed, and not enforced
    #[arg(long)]
    pub short: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Table {
    /// How many rounds, where it is `usual` when nothing is said.
    pub fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.short { 1 } else { usual }).max(1)
    }

    /// The heading, for people.
    pub fn begin(&self, rounds: usize) {
        if self.output == Output::Text {
            println!("{}; medians of {rounds} rounds\n", machine());
        }
    }

    /// A row that is measured, for people.
    pub fn row(&self, row: &Row) {
        if self.output == Output::Text {
            println!("{row}");
        }
    }

    /// The end: how many goals are met, or everything for programs. A goal that is missed is a failure.
    pub fn end(&self, rounds: usize, rows: &[Row]) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
        let goals = rows.iter().map(|r| r.goals.len()).sum::<usize>();
        let missed = rows.iter().flat_map(|r| &r.goals).filter(|g| !g.met).count();
        match self.output {
            Output::Text => println!("{} of {goals} goals met", goals - missed),
            Output::Json => {
                let all = json!({
                    "machine": machine(),
                    "rounds": rounds,
                    "rows": rows,
                    "goals": goals,
                    "missed": missed,
                });
                println!("{}", serde_json::to_string_pretty(&all)?);
            }
        }
        Ok(if missed == 0 || self.short { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|l| Some(l.strip_prefix("model name")?.trim_start_matches([' ', '\t', ':'])));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, {}, Linux {}",
        model.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
