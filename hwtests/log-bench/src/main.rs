//! Load and size for a signature log with Rekor v2's API, ours or another.

mod load;
mod random;
mod tree;

use clap::{Parser, Subcommand};

/// Measures a signature log.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Closed loops of callers against a server: rate, latency, processor time, memory.
    Load(load::Load),
    /// Random requests against a server: whether it answers in order and does not grow. Exit code 1 if not.
    Random(random::Random),
    /// Fill a log that `signer-log init` made with so many entries, without a server.
    Tree(tree::Tree),
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Command::Load(command) => load::run(command).await,
        Command::Random(command) => random::run(command).await,
        Command::Tree(command) => tree::run(command).await,
    }
}
