//! Completions and man pages, from the same source as the help.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::{
    args::Cli,
    context::print,
    failure::{Exit, Failure},
};

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer completions bash > /etc/bash_completion.d/signer
  signer completions zsh > ~/.zfunc/_signer
  signer completions fish > ~/.config/fish/completions/signer.fish")]
pub(crate) struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Exit {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "signer", &mut text);
        print(String::from_utf8_lossy(&text));
        Exit::Done
    }
}

/// Print the man page, or write the pages of all commands into a folder
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer man | man -l -
  signer man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Where to write signer.1, signer-sign.1, …
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let failure = |e: std::io::Error| Failure::io("the man pages cannot be written", &e);
        let Some(folder) = &self.folder else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failure)?;
            print(String::from_utf8_lossy(&page));
            return Ok(Exit::Done);
        };
        std::fs::create_dir_all(folder).map_err(failure)?;
        clap_mangen::generate_to(Cli::command(), folder).map_err(failure)?;
        Ok(Exit::Done)
    }
}
