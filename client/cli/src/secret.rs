//! PINs and passphrases: from a file or from a person, never from the command line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use signer_core::{Error, ErrorKind, Pin};
use zeroize::Zeroizing;

use crate::{
    context::Context,
    failure::Failure,
    prompts::{Question, ended_by_signal},
};

/// Reads a secret from `file`, or asks for it. `flag` is what names a file on the command line.
pub(crate) async fn read(
    prompt: &str,
    file: Option<&Path>,
    flag: &str,
    context: &Context,
) -> Result<Pin, Failure> {
    match file {
        Some(path) => from_file(path, context),
        None => ask(prompt, flag, context).await,
    }
}

fn from_file(path: &Path, context: &Context) -> Result<Pin, Failure> {
    let failure = |e: &io::Error| Failure::io(format!("{} cannot be read", path.display()), e);
    let file = File::open(path).map_err(|e| failure(&e))?;
    let meta = file.metadata().map_err(|e| failure(&e))?;
    if meta.is_file() && meta.permissions().mode() & 0o077 != 0 {
        context.note(format_args!(
            "warning: others may read {}; run `chmod 600 {}`",
            path.display(),
            path.display()
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(8192));
    file.take(8192).read_to_string(&mut text).map_err(|e| failure(&e))?;
    Ok(Pin::new(std::mem::take(&mut *text))?)
}

/// Asks for it, without showing what is typed.
async fn ask(prompt: &str, flag: &str, context: &Context) -> Result<Pin, Failure> {
    let Some(means) = context.means() else {
        let why = if context.asks_nothing() {
            "--no-input forbids to ask"
        } else {
            "there is no terminal to ask at"
        };
        let error = Error::new(ErrorKind::PinRequired, format!("{prompt} is needed and {why}"));
        return Err(error.next(format!("name a file that holds it with {flag}")).into());
    };
    let question = Question::plain(prompt);
    let typed = tokio::select! {
        typed = means.ask(&question) => typed?,
        failure = ended_by_signal() => return Err(failure),
    };
    typed.ok_or_else(|| Failure::from(Error::new(ErrorKind::PinRequired, "nothing was entered")))
}

/// Asks a question that is answered with yes or no; `None` when there is no terminal, or nothing is to be asked.
pub(crate) fn confirm(question: &str, context: &Context) -> Option<bool> {
    if context.asks_nothing() {
        return None;
    }
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    write!(&terminal, "{question} [y/N] ").ok()?;
    let mut answer = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(&terminal), &mut answer).ok()?;
    Some(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
