//! The whole of it: all rows one after the other.

use std::process::ExitCode;

use clap::Args;
use signer_bench::table::Table;

use crate::{
    Result,
    rows::{Bench, ROWS},
};

/// Measure every backend, in turns with its baseline, and print the table
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    table: Table,
    /// Only these rows
    #[arg(long, value_delimiter = ',', value_parser = ROWS.map(|r| r.0))]
    only: Vec<String>,
}

impl Run {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let bench = Bench::new(self.table.rounds(3), self.table.short)?;
        self.table.begin(bench.rounds);
        let mut all = Vec::new();
        for (name, measure) in ROWS {
            if !self.only.is_empty() && !self.only.iter().any(|o| o == name) {
                continue;
            }
            eprintln!("measuring {name}");
            for row in measure(&bench).map_err(|e| format!("{name}: {e}"))? {
                self.table.row(&row);
                all.push(row);
            }
        }
        self.table.end(bench.rounds, &all)
    }
}
