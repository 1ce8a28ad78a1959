//! The benchmark: load generators and baselines, each a process of its own, and the program that runs them in turns,
//! compares them and says which goals are met. `hwtests/bench` builds what it needs and calls it.

use std::{error::Error, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use signer_bench::{disk, measure, procfs, report};

mod bare_server;
mod drive;
mod raw;
mod rows;
mod run;
mod stage;

/// What is signed everywhere: the bytes of a SHA-256 digest.
const DIGEST: [u8; 32] = [0x5a; 32];

#[derive(Debug, Parser)]
#[command(name = "signer-bench", version, about = "The parts of hwtests/bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Raw(raw::Raw),
    Drive(drive::Drive),
    BareServer(bare_server::BareServer),
}

/// The measuring window of a load generator.
#[derive(Args, Clone, Copy, Debug)]
struct Timing {
    /// Seconds before it opens
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Seconds that it is open
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Process whose processor time is counted too, and that of its descendants
    #[arg(long)]
    watch: Option<u32>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Raw(raw) => raw.run().and_then(|load| print(&load)),
        Command::Drive(drive) => drive.run().and_then(|load| print(&load)),
        Command::BareServer(server) => server.run().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("signer-bench: {error}");
        ExitCode::from(2)
    })
}

fn print(load: &measure::Load) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    println!("{}", serde_json::to_string(load)?);
    Ok(ExitCode::SUCCESS)
}
