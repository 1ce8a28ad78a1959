//! The whole benchmark: all rows one after the other on one stage.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Args;
use signer_bench::table::Table;

use crate::{
    rows::{self, ROWS},
    stage::Stage,
};

/// Measure everything, in turns with its baselines, and print the table
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Where signerd, signer, signerd-pkcs11 and signer-bench are
    #[arg(long, value_parser = absolute)]
    programs: PathBuf,
    /// softhsm/setup.sh
    #[arg(long, value_parser = absolute)]
    setup: PathBuf,
    #[command(flatten)]
    table: Table,
    /// Only these rows
    #[arg(long, value_delimiter = ',', value_parser = ROWS.map(|r| r.0))]
    only: Vec<String>,
    #[command(flatten)]
    peers: Peers,
}

/// Where the programs are that ours is compared with; what is not given is not compared with.
#[derive(Args, Clone, Debug)]
pub(crate) struct Peers {
    /// The Parsec service
    #[arg(long, value_parser = absolute, requires = "parsec_load")]
    pub(crate) parsec: Option<PathBuf>,
    /// The load generator for Parsec
    #[arg(long, value_parser = absolute)]
    pub(crate) parsec_load: Option<PathBuf>,
    /// p11-kit's client module
    #[arg(long, value_parser = absolute)]
    pub(crate) p11_kit: Option<PathBuf>,
}

/// What every row gets.
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) rounds: usize,
    pub(crate) short: bool,
    pub(crate) peers: Peers,
}

impl Run {
    pub(crate) fn run(&self) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
        let window = if self.table.short { (0.2, 0.8) } else { (0.3, 2.0) };
        let bench = Bench {
            stage: Stage::new(&self.programs, &self.setup, window)?,
            rounds: self.table.rounds(5),
            short: self.table.short,
            peers: self.peers.clone(),
        };
        self.table.begin(bench.rounds);
        let mut rows = Vec::new();
        for (name, measure) in ROWS {
            if self.only.is_empty() || self.only.iter().any(|o| o == name) {
                eprintln!("measuring {name}");
                let row = measure(&bench).map_err(|e| format!("{name}: {e}"))?;
                self.table.row(&row);
                rows.push(row);
            }
        }
        self.table.end(bench.rounds, &rows)
    }
}

impl Bench {
    /// Runs contenders in turns: every round has each of them once.
    pub(crate) fn rounds<T>(
        &self,
        contenders: &mut [rows::Contender<'_, T>],
    ) -> Result<Vec<Vec<T>>, Box<dyn Error + Send + Sync>> {
        let mut results: Vec<Vec<T>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (contender, results) in contenders.iter_mut().zip(&mut results) {
                results.push((contender.run)().map_err(|e| format!("{}: {e}", contender.who))?);
            }
        }
        Ok(results)
    }
}

/// Everything runs in the stage's folder.
fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}
