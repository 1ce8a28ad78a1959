//! The whole of it: all rows one after the other.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    Result,
    rows::{Bench, ROWS},
};

/// Measure every backend, in turns with its baseline, and print the table
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Rounds of baseline and ours in turns; the medians count [default: 3, with --short 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// One short round that only shows that everything works: goals are printed, and not enforced
    #[arg(long)]
    short: bool,
    /// Only these rows
    #[arg(long, value_delimiter = ',', value_parser = ROWS.map(|r| r.0))]
    only: Vec<String>,
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

impl Run {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let bench = Bench::new(self.rounds.unwrap_or(if self.short { 1 } else { 3 }).max(1), self.short)?;
        let mut all = Vec::new();
        for (name, measure) in ROWS {
            if !self.only.is_empty() && !self.only.iter().any(|o| o == name) {
                continue;
            }
            eprintln!("measuring {name}");
            for row in measure(&bench).map_err(|e| format!("{name}: {e}"))? {
                if self.output == Output::Text {
                    println!("{row}");
                }
                all.push(row);
            }
        }
        let goals = all.iter().map(|r| r.goals.len()).sum::<usize>();
        let missed = all.iter().flat_map(|r| &r.goals).filter(|g| !g.met).count();
        match self.output {
            Output::Text => {
                println!("{} of {goals} goals met; medians of {} rounds", goals - missed, bench.rounds);
            }
            Output::Json => {
                let all = json!({ "rounds": bench.rounds, "rows": all, "goals": goals, "missed": missed });
                println!("{}", serde_json::to_string_pretty(&all)?);
            }
        }
        Ok(if missed == 0 || self.short { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
