//! The terminal that this program was started from.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
};

use rustix::{
    fs::OFlags,
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

/// The controlling terminal, opened for this program alone.
pub(crate) struct Terminal(AsyncFd<File>);

impl Terminal {
    /// Opens it. Call it in the runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(flags.cast_signed()).open("/dev/tty")?;
        #[allow(unsafe_code)] // tokio wants this promise
        // SAFETY: the file is the AsyncFd's own from here on, and nobody replaces or closes its descriptor.
        let file = unsafe { AsyncFd::register(file)? };
        Ok(Self(file))
    }

    /// Whether there is one, and this program is in the foreground: another one that asked there would be stopped.
    pub(crate) fn is_ours() -> bool {
        let Ok(terminal) = File::open("/dev/tty") else { return false };
        tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\n"))
    }

    /// Writes, what there is room for: a terminal that does not take a few lines is not looked at.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        self.0.get_ref().write_all(text.as_bytes())
    }

    /// Asks for a line without showing what is typed; `None` when it was interrupted. Dropping the future puts the terminal
    /// back as it was.
    pub(crate) async fn ask(&self, prompt: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        const INTERRUPT: u8 = 3;
        const END: u8 = 4;
        const BACKSPACE: [u8; 2] = [8, 127];
        const KILL: u8 = 21;
        // Before the prompt: what is typed as an answer to it is not shown, and what was typed before is no answer.
        let _hidden = Hidden::new(self)?;
        self.write(&format!("{prompt}: "))?;
        let mut line = Zeroizing::new(Vec::with_capacity(4096));
        loop {
            let mut ready = self.0.readable().await?;
            let mut byte = [0];
            match ready.try_io(|terminal| terminal.get_ref().read(&mut byte)) {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => continue,
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
}

/// The terminal without echo, line editing and signals: an interrupt would otherwise leave it so. Put back when dropped.
struct Hidden<'a> {
    terminal: &'a Terminal,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a Terminal) -> io::Result<Self> {
        let before = tcgetattr(terminal.0.get_ref().as_fd())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal.0.get_ref().as_fd(), OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = self.terminal.write("\n");
        let _ = tcsetattr(self.terminal.0.get_ref().as_fd(), OptionalActions::Now, &self.before);
    }
}

/// Puts the terminal back as it was, whatever a program that was started meanwhile has made of it.
pub(super) struct Restored(Option<(File, Termios)>);

impl Restored {
    pub(super) fn later() -> Self {
        // Whoever is in the background must leave the terminal alone.
        let terminal = File::open("/dev/tty").ok().filter(|_| Terminal::is_ours());
        Self(terminal.and_then(|terminal| tcgetattr(&terminal).ok().map(|before| (terminal, before))))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.0 {
            let _ = tcsetattr(terminal, OptionalActions::Now, before);
        }
    }
}
