//! The program `signer-log`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    signer_log::run(signer_log::Cli::parse())
}
