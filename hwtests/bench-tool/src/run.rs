//! The whole benchmark: all rows one after the other on one stage.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    report::Row,
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
    /// Rounds of baseline and ours in turns; the medians count [default: 5, with --short 1]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
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
        let window = if self.short { (0.2, 0.8) } else { (0.3, 2.0) };
        let bench = Bench {
            stage: Stage::new(&self.programs, &self.setup, window)?,
            rounds: self.rounds.unwrap_or(if self.short { 1 } else { 5 }).max(1),
            short: self.short,
            peers: self.peers.clone(),
        };
        if self.output == Output::Text {
            println!("{}; medians of {} rounds\n", machine(), bench.rounds);
        }
        let mut rows = Vec::new();
        for (name, measure) in ROWS {
            if self.only.is_empty() || self.only.iter().any(|o| o == name) {
                eprintln!("measuring {name}");
                let row = measure(&bench).map_err(|e| format!("{name}: {e}"))?;
                if self.output == Output::Text {
                    println!("{row}");
                }
                rows.push(row);
            }
        }
        let missed = rows.iter().flat_map(|r| &r.goals).filter(|g| !g.met).count();
        self.finish(&bench, &rows, missed)?;
        Ok(if missed == 0 || self.short { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn finish(&self, bench: &Bench, rows: &[Row], missed: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
        let goals = rows.iter().map(|r| r.goals.len()).sum::<usize>();
        match self.output {
            Output::Text => println!("{} of {goals} goals met", goals - missed),
            Output::Json => {
                let all = json!({
                    "machine": machine(),
                    "rounds": bench.rounds,
                    "window_seconds": bench.stage.window.1,
                    "rows": rows,
                    "goals": goals,
                    "missed": missed,
                });
                println!("{}", serde_json::to_string_pretty(&all)?);
            }
        }
        Ok(())
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
