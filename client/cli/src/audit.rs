//! `signer audit …`: what the daemon's audit log says, and whether it is to be believed.
//!
//! The log is read where it is: a folder, to whoever may open its files. There is no way to it through the daemon, which
//! would have to be trusted for what it gives; a copy of the folder on another machine is as good.

use clap::{Args, Subcommand};

use crate::{
    context::Context,
    failure::{Exit, Failure},
};

mod check;
mod filter;
mod follow;
mod log;
mod prove;
mod row;
mod show;

/// Read and check the log of who used which key
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Show),
    Follow(follow::Follow),
    Check(check::Check),
    Prove(prove::Prove),
}

impl Audit {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match &self.command {
            Command::Show(command) => command.run(context).await,
            Command::Follow(command) => command.run(context).await,
            Command::Check(command) => command.run(context).await,
            Command::Prove(command) => command.run(context).await,
        }
    }
}
