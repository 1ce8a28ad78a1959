//! PINs and passphrases: from a file or from the terminal, never from the command line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signer_core::{Error, ErrorKind, Pin};
use zeroize::Zeroizing;

use crate::{context::Context, failure::Failure};

/// Reads a secret from `file`, or asks for it at the terminal. `flag` is what names a file on the command line.
pub(crate) fn read(prompt: &str, file: Option<&Path>, flag: &str, context: &Context) -> Result<Pin, Failure> {
    match file {
        Some(path) => from_file(path, context),
        None => ask(prompt, flag),
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

/// Asks at the terminal, without showing what is typed.
fn ask(prompt: &str, flag: &str) -> Result<Pin, Failure> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|e| {
        let error = Error::new(
            ErrorKind::PinRequired,
            format!("{prompt} is needed and there is no terminal to ask at"),
        );
        Failure::from(error.vendor(e).next(format!("name a file that holds it with {flag}")))
    })?;
    let failure = |e: io::Error| Failure::io("the terminal cannot be used", &e);
    write!(&terminal, "{prompt}: ").map_err(failure)?;
    let typed = read_hidden(&terminal).map_err(failure)?;
    writeln!(&terminal).map_err(failure)?;
    let typed =
        typed.ok_or_else(|| Failure::from(Error::new(ErrorKind::PinRequired, "nothing was entered")))?;
    Ok(Pin::new(
        String::from_utf8(typed.to_vec()).map_err(|_| Error::bad_request("what was typed is not UTF-8"))?,
    )?)
}

/// The terminal's settings, put back when dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    /// Neither echo nor line editing nor signals: an interrupt would otherwise leave the terminal without echo.
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Now, &self.before);
    }
}

/// One line; `None` when it was interrupted.
fn read_hidden(terminal: &File) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: [u8; 2] = [8, 127];
    const KILL: u8 = 21;
    let _hidden = Hidden::new(terminal)?;
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    loop {
        let mut byte = [0];
        if (&*terminal).read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            INTERRUPT => return Ok(None),
            END | b'\r' | b'\n' => return Ok(Some(line)),
            KILL => line.clear(),
            b if BACKSPACE.contains(&b) => {
                // A character may be several bytes of UTF-8.
                while line.pop().is_some_and(|b| b & 0xC0 == 0x80) {}
            }
            b if line.len() < line.capacity() => line.push(b),
            _ => {}
        }
    }
}

/// Asks a question that is answered with yes or no; `None` when there is no terminal.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    write!(&terminal, "{question} [y/N] ").ok()?;
    let mut answer = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(&terminal), &mut answer).ok()?;
    Some(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
