//! What the daemon costs before each kind of backend: sixteen clients of the daemon beside sixteen callers of the same maker's
//! client or library without it, on the same engine, in turns. `hwtests/bench --backends` builds what it needs and calls it.

use std::{error::Error, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use signer_bench::{measure, procfs, report};

mod direct;
mod rows;
mod run;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// What is signed everywhere: the bytes of a SHA-256 digest.
const DIGEST: [u8; 32] = [0x5a; 32];

#[derive(Debug, Parser)]
#[command(name = "signer-backend-bench", version, about = "The parts of hwtests/bench --backends")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Direct(direct::Direct),
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
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Direct(direct) => direct.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("signer-backend-bench: {error}");
        ExitCode::from(2)
    })
}
