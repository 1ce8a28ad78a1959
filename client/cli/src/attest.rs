//! `signer attest …`: what devices state on their keys.

use clap::{Args, Subcommand};

use crate::{
    context::Context,
    failure::{Exit, Failure},
};

mod verify;

/// Verify what a device states on a key
#[derive(Args, Debug)]
pub(crate) struct Attest {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
}

impl Attest {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match &self.command {
            Command::Verify(command) => command.run(context).await,
        }
    }
}
