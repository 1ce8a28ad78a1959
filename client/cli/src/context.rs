//! What every command works with: the daemon's client, and where its words go.

use std::{
    cell::{Cell, OnceCell},
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use serde::Serialize;
use signer_core::Error;
use signerd_api::Client;

use crate::{
    args::{Common, Output},
    failure::Failure,
    prompts::{self, Means},
};

pub(crate) struct Context {
    common: Common,
    /// One for all that a command does: calls and prompts share a connection.
    client: OnceCell<Client>,
    means: OnceCell<Option<Means>>,
    /// Whether a person may be asked in the middle of a call.
    attended: Cell<bool>,
    /// A line stands on the terminal that goes before anything else is printed.
    transient: Rc<Cell<bool>>,
}

impl Context {
    pub(crate) fn new(common: Common) -> Self {
        Self {
            common,
            client: OnceCell::new(),
            means: OnceCell::new(),
            attended: Cell::new(false),
            transient: Rc::default(),
        }
    }

    /// A client of the daemon, which connects when it is first used. Requests that change nothing are tried again,
    /// within their time, when the daemon is started again meanwhile.
    pub(crate) fn client(&self) -> Client {
        let make = || self.client_at(&self.given_socket().unwrap_or_else(signerd_api::find_socket));
        self.client.get_or_init(make).clone()
    }

    /// A client of the daemon at this socket.
    pub(crate) fn client_at(&self, socket: &Path) -> Client {
        Client::new(socket).timeout(self.timeout()).retrying()
    }

    /// How long one request may take. A person who is asked takes longer than a device.
    fn timeout(&self) -> Duration {
        let default = if self.attended.get() { Duration::from_mins(2) } else { Client::TIMEOUT };
        self.common.timeout.unwrap_or(default)
    }

    /// Whether a line stands on the terminal that goes before anything else is printed.
    pub(crate) fn transient(&self) -> Rc<Cell<bool>> {
        self.transient.clone()
    }

    /// Takes such a line away.
    pub(crate) fn settle(&self) {
        prompts::take_away(&self.transient);
    }

    /// A person may be asked in the middle of a call. To be said before there is a client.
    pub(crate) fn expect_prompts(&self) {
        self.attended.set(true);
    }

    /// How a person can be asked, if there is one.
    pub(crate) fn means(&self) -> Option<&Means> {
        self.means.get_or_init(|| Means::find(&self.common)).as_ref()
    }

    /// Whether nobody is to be asked for anything.
    pub(crate) fn asks_nothing(&self) -> bool {
        self.common.no_input
    }

    /// The socket that the command line or the environment names.
    pub(crate) fn given_socket(&self) -> Option<PathBuf> {
        self.common.socket.clone()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.common.quiet
    }

    pub(crate) fn is_json(&self) -> bool {
        self.common.output == Output::Json
    }

    /// Whether progress may be shown: somebody watches standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.common.quiet && !self.is_json() && io::stderr().is_terminal()
    }

    /// A result: as a line for people, or as an object for programs.
    pub(crate) fn result(&self, text: impl Display, json: &impl Serialize) {
        self.settle();
        if self.is_json() {
            self.json(json);
        } else if !self.common.quiet {
            print(format_args!("{text}\n"));
        }
    }

    /// What was asked for itself, which `--quiet` does not hide.
    pub(crate) fn answer(&self, text: impl Display, json: &impl Serialize) {
        self.settle();
        if self.is_json() {
            self.json(json);
        } else {
            print(text);
        }
    }

    fn json(&self, json: &impl Serialize) {
        match serde_json::to_string(json) {
            Ok(line) => print(format_args!("{line}\n")),
            Err(e) => {
                self.report(&Failure::failed(Error::internal("the result cannot be printed").vendor(e)));
            }
        }
    }

    /// Something to know that is no failure, on standard error.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.common.quiet && !self.is_json() {
            self.settle();
            eprintln!("{text}");
        }
    }

    /// A step, with `--verbose`.
    pub(crate) fn step(&self, text: impl Display) {
        if self.common.verbose && !self.is_json() {
            self.settle();
            eprintln!("{text}");
        }
    }

    /// Prints a failure on standard error.
    pub(crate) fn report(&self, failure: &Failure) {
        self.settle();
        if self.is_json() {
            eprintln!("{}", failure.to_json());
        } else {
            eprintln!("error: {}", failure.error());
        }
    }
}

/// Prints on standard output. A reader that has gone away ends the program quietly, as for any filter.
pub(crate) fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    if let Err(e) = write!(out, "{text}").and_then(|()| out.flush()) {
        if e.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("error: standard output cannot be written ({e})");
        }
        std::process::exit(1);
    }
}
