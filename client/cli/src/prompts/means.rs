//! How a person is asked: at the terminal, through a pinentry program, or not at all.

use std::path::{Path, PathBuf};

use signer_core::{Error, ErrorKind, Pin};

use super::{Terminal, pinentry::Pinentry, text::Question};
use crate::{args::Common, failure::Failure, programs};

/// How a person is asked.
#[derive(Clone, Debug)]
pub(crate) enum Means {
    /// At the terminal that this program was started from.
    Terminal,
    /// By this program, which speaks as GnuPG's pinentry does.
    Pinentry(PathBuf),
}

impl Means {
    /// What the command line and the surroundings say; `None` when there is nobody to ask, or nobody is to be asked.
    pub(crate) fn find(common: &Common) -> Option<Self> {
        if common.no_input {
            return None;
        }
        if let Some(program) = common.pinentry.as_ref().filter(|p| !p.as_os_str().is_empty()) {
            return Some(Self::Pinentry(program.clone()));
        }
        if Terminal::is_ours() {
            return Some(Self::Terminal);
        }
        let somewhere = ["WAYLAND_DISPLAY", "DISPLAY", "GPG_TTY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        let pinentry = programs::in_path("pinentry").filter(|_| somewhere)?;
        Some(Self::Pinentry(pinentry))
    }

    /// Asks for a PIN; `None` when it is not given. The question is taken back when the future is dropped.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Option<Pin>, Failure> {
        match self {
            Self::Terminal => {
                let terminal = Terminal::open().map_err(|e| no_terminal(&e))?;
                let before = question.for_terminal();
                if !before.is_empty() {
                    terminal.line(&before).map_err(|e| no_terminal(&e))?;
                }
                let typed = terminal.ask(&question.prompt).await.map_err(|e| no_terminal(&e))?;
                let Some(typed) = typed.filter(|typed| !typed.is_empty()) else { return Ok(None) };
                let text = String::from_utf8(typed.to_vec())
                    .map_err(|_| Error::bad_request("what was typed is not UTF-8"))?;
                Ok(Some(Pin::new(text)?))
            }
            Self::Pinentry(program) => {
                let mut pinentry = Pinentry::start(program).await?;
                pinentry.ask(question).await
            }
        }
    }

    /// Says something to whoever was asked before.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        if let (Self::Terminal, Ok(terminal)) = (self, Terminal::open()) {
            let _ = terminal.line(&format!("signer: {}", text.as_ref()));
        }
    }

    /// The program that shows dialogs, where there is no terminal.
    pub(super) fn dialogs(&self) -> Option<&Path> {
        match self {
            Self::Pinentry(program) if !Terminal::is_ours() => Some(program),
            _ => None,
        }
    }
}

fn no_terminal(e: &std::io::Error) -> Failure {
    Error::new(ErrorKind::PinRequired, "the terminal to ask for a PIN at cannot be used").vendor(e).into()
}
