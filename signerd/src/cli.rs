//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use signer_core::{KeyRef, SignatureAlgorithm};

use crate::{
    allocator, check,
    config::{Config, Overrides},
    grants::{CallerPattern, Grants, Operations, explain},
    run,
};

/// The commented example, as it is installed.
pub const EXAMPLE: &str = include_str!("../signerd.example.toml");

const EXAMPLES: &str = "\
Examples:
  signerd                                  keys in files, for you alone; no configuration needed
  signerd example-config > signerd.toml    begin a configuration
  signerd check-config signerd.toml        what it says, before anything runs on it
  signerd --config signerd.toml            run on it; kill -HUP reads it again
  signerd explain --caller user:alice --operation sign --key hsm/release

The configuration is --config, else $SIGNERD_CONFIG, else signerd/signerd.toml in $XDG_CONFIG_HOME or ~/.config,
else /etc/signerd/signerd.toml. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 4 denied (explain).";

/// Keeps keys in hardware, and signs with them for those who may.
#[derive(Parser)]
#[command(name = "signerd", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Options {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, instead of where the configuration says
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The folder for what must outlive the daemon, instead of the configured one
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Say what a configuration means, or what is wrong with it, without doing anything unless told to
    CheckConfig {
        /// The file, if it is not the one that signerd would use
        file: Option<PathBuf>,
        /// Also start the backends of keys that several places hold, and compare their public keys. This logs in
        #[arg(long)]
        devices: bool,
    },
    /// Say which grant decides a request
    Explain {
        /// Who asks: user:NAME, uid:NUMBER, group:NAME, gid:NUMBER or any
        #[arg(long)]
        caller: CallerPattern,
        /// What for: list, sign, create, import, delete, rotate, certificate, unlock or watch
        #[arg(long, default_value = "sign")]
        operation: Operations,
        /// Which key: a configured name, or backend/key
        #[arg(long)]
        key: KeyRef,
        /// With which algorithm
        #[arg(long)]
        algorithm: Option<SignatureAlgorithm>,
    },
    /// Print a commented example of a configuration
    ExampleConfig,
}

/// Runs the program.
pub fn main() -> ExitCode {
    allocator::configure();
    let arguments = Arguments::parse();
    let Options { config, socket, state } = arguments.options;
    let overrides = Overrides { socket, state };
    match arguments.command {
        None => with_config(config.as_deref(), &overrides, |config| match run::run(config, &overrides) {
            Ok(()) => ExitCode::SUCCESS,
            Err(run::Failed::Configuration(error)) => {
                eprintln!("signerd: {error}");
                ExitCode::from(2)
            }
            Err(run::Failed::Otherwise(error)) => {
                eprintln!("signerd: {error}");
                ExitCode::FAILURE
            }
        }),
        Some(Command::CheckConfig { file, devices }) => {
            with_config(file.or(config).as_deref(), &overrides, |config| check::print(&config, devices))
        }
        Some(Command::Explain { caller, operation, key, algorithm }) => {
            with_config(config.as_deref(), &overrides, |config| {
                let caller = match caller.identity() {
                    Ok(caller) => caller,
                    Err(error) => {
                        eprintln!("signerd: {error}");
                        return ExitCode::from(2);
                    }
                };
                let (grants, warnings) = Grants::compile(&config.grants, &config.keys);
                let (allowed, text) = explain(&grants, &caller, operation, &key, algorithm);
                print!("{text}");
                for warning in warnings {
                    println!("  warning: {warning}");
                }
                let own = config.audit.as_ref().is_some_and(|audit| audit.key.to_string() == key.to_string());
                if allowed && own && operation.intersects(Operations::SIGN) {
                    println!("denied all the same: it is the key of the audit log, and signs nothing else");
                    return ExitCode::from(4);
                }
                if allowed { ExitCode::SUCCESS } else { ExitCode::from(4) }
            })
        }
        Some(Command::ExampleConfig) => {
            print!("{EXAMPLE}");
            ExitCode::SUCCESS
        }
    }
}

fn with_config(
    file: Option<&Path>,
    overrides: &Overrides,
    go_on: impl FnOnce(Config) -> ExitCode,
) -> ExitCode {
    match Config::load(file, overrides) {
        Ok(config) => go_on(config),
        Err(faults) => {
            eprintln!("signerd: {faults}");
            ExitCode::from(2)
        }
    }
}
