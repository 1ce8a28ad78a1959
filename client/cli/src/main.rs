//! `signer`: what people type.

mod args;
mod atomic;
mod attest;
mod audit;
mod bundle;
mod content;
mod context;
mod demo;
mod doctor;
mod failure;
mod init;
mod key_argument;
mod keys;
mod manual;
mod places;
mod programs;
mod prompts;
mod secret;
mod sign;
mod status;
mod table;
mod verify;
mod watch;

use clap::Parser;

use args::{Cli, Command};
use context::Context;
use failure::{Exit, Failure};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let context = Context::new(cli.common);
    let exit = run(cli.command, &context).unwrap_or_else(|failure| {
        context.report(&failure);
        failure.exit()
    });
    std::process::ExitCode::from(exit as u8)
}

fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    // What needs no daemon needs no runtime.
    match command {
        Command::Completions(command) => return Ok(command.run()),
        Command::Man(command) => return command.run(),
        Command::Init(command) => return command.run(context),
        Command::Demo(command) => return command.run(context),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|e| Failure::io("the program cannot start", &e))?.block_on(async {
        match command {
            Command::Sign(command) => prompts::attended(context, command.run(context)).await,
            Command::Verify(command) => prompts::attended(context, command.run(context)).await,
            Command::Keys(command) if command.asks_itself() => command.run(context).await,
            Command::Keys(command) => prompts::attended(context, command.run(context)).await,
            Command::Attest(command) => prompts::attended(context, command.run(context)).await,
            Command::Status(command) => command.run(context).await,
            Command::Doctor(command) => command.run(context).await,
            Command::Watch(command) => command.run(context).await,
            Command::Audit(command) => command.run(context).await,
            Command::Completions(_) | Command::Man(_) | Command::Init(_) | Command::Demo(_) => Ok(Exit::Done),
        }
    })
}
