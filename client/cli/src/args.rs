//! The command line: what every subcommand has in common. Help, man pages and completions come from here.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{attest, audit, demo, doctor, init, keys, manual, sign, status, verify, watch};

/// Signs with keys that never leave their device, through the signerd daemon.
#[derive(Debug, Parser)]
#[command(
    name = "signer",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Examples:
  signer demo README.md                        try everything in a temporary place
  signer init                                  set up a daemon of your own
  signer keys create soft/release              make a key
  signer sign app.tar.gz --key soft/release    write app.tar.gz.sigstore.json
  signer verify app.tar.gz --key release.pem   check it

Exit codes:
  0 done   1 verification or signing failed   2 wrong usage
  3 the daemon or device cannot be reached    4 denied"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every subcommand takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/signerd/signerd.sock or /run/signerd/signerd.sock]
    #[arg(long, global = true, env = "SIGNERD_SOCKET", hide_env_values = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How to print results and errors
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
    /// How long one request may take: 500ms, 30s, 2m [default: 30s, and 2m where a person can be asked for a PIN]
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// Never ask for a PIN or anything else
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// Ask for PINs with this program (pinentry-qt, pinentry-curses, …), even where there is a terminal
    #[arg(long, global = true, env = "SIGNER_PINENTRY", hide_env_values = true, value_name = "PROGRAM")]
    pub(crate) pinentry: Option<PathBuf>,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print each step
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs; errors are an object on standard error
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Sign(sign::Sign),
    Verify(verify::Verify),
    Keys(keys::Keys),
    Attest(attest::Attest),
    Status(status::Status),
    Watch(watch::Watch),
    Audit(audit::Audit),
    Init(init::Init),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Reads a time such as `30s`: a number and `ms`, `s`, `m` or `h`; seconds if nothing is said.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is not a unit of time: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "write a number and a unit, 30s for one".to_owned())?;
    Duration::try_from_secs_f64(number * factor)
        .ok()
        .filter(|d| !d.is_zero() && *d <= Duration::from_hours(24))
        .ok_or_else(|| "a timeout is more than nothing and at most 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "-1s", "0", "5 s", "1d", "999999h", "1..2s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                if sub.has_subcommands() {
                    check(sub);
                } else {
                    assert!(sub.get_after_help().is_some(), "{} has no examples", sub.get_name());
                }
                assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
            }
        }
        check(&Cli::command());
    }
}
