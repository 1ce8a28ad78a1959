//! A pinentry program: GnuPG's way to ask for a PIN, whatever the desktop.

use std::{path::Path, process::Stdio, time::Duration};

use signer_core::{Error, ErrorKind, Pin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
};
use zeroize::Zeroizing;

use super::{
    assuan::{self, Line, MAX_LINE},
    terminal::Restored,
    text::Question,
};
use crate::failure::Failure;

/// Everything but the question itself is answered at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// libgpg-error's codes for a person who does not want to (GPG_ERR_CANCELED, GPG_ERR_FULLY_CANCELED, GPG_ERR_NOT_CONFIRMED).
const CANCELLED: [u32; 3] = [99, 198, 114];
/// And for one who was not there (GPG_ERR_TIMEOUT).
const TIMED_OUT: u32 = 62;

/// A running pinentry program. Dropping it ends it.
pub(super) struct Pinentry {
    name: String,
    input: ChildStdin,
    output: ChildStdout,
    /// What was read and is not taken apart yet.
    buffer: Zeroizing<Vec<u8>>,
    // Dropped in this order: what the program has made of the terminal is put in order when it is gone.
    _child: Child,
    _terminal: Restored,
}

impl Pinentry {
    /// Starts the program, and tells it where to ask.
    pub(super) async fn start(program: &Path) -> Result<Self, Failure> {
        let name = program.display().to_string();
        let failed = |e: std::io::Error| {
            Failure::from(
                Error::new(ErrorKind::PinRequired, format!("{name} cannot be started to ask for the PIN"))
                    .vendor(e)
                    .next("name a pinentry program that is installed with --pinentry or SIGNER_PINENTRY"),
            )
        };
        let terminal = Restored::later();
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::failed(Error::internal("a program was started without pipes")));
        };
        // Never grows: what it holds would be left behind.
        let buffer = Zeroizing::new(Vec::with_capacity(2 * MAX_LINE));
        let mut this = Self { name, input, output, buffer, _child: child, _terminal: terminal };
        this.reply(PATIENCE).await?;
        for (option, value) in options() {
            // Which of them it knows is its own business.
            let _ = this.request("OPTION", &format!("{option}={value}")).await?;
        }
        let _ = this.request("SETTITLE", "signer").await?;
        Ok(this)
    }

    /// Asks for a PIN; `None` when it is not given.
    pub(super) async fn ask(&mut self, question: &Question) -> Result<Option<Pin>, Failure> {
        if let Some(seconds) = question.seconds {
            let _ = self.request("SETTIMEOUT", &seconds.to_string()).await?;
        }
        self.needed("SETDESC", &question.for_dialog()).await?;
        self.needed("SETPROMPT", &format!("{}:", question.prompt)).await?;
        if let Some(error) = &question.error {
            self.needed("SETERROR", error).await?;
        }
        self.send("GETPIN", "").await?;
        match self.reply(Duration::MAX).await? {
            Reply::Ok(data) if data.is_empty() => Ok(None),
            Reply::Ok(data) => {
                let text = String::from_utf8(data.to_vec())
                    .map_err(|_| Error::bad_request("what was typed is not UTF-8"))?;
                Ok(Some(Pin::new(text)?))
            }
            Reply::Error(code, _) if CANCELLED.contains(&code) || code == TIMED_OUT => Ok(None),
            Reply::Error(code, words) => Err(self.refused("GETPIN", code, &words)),
        }
    }

    /// Shows a message until it is clicked away.
    pub(super) async fn tell(&mut self, text: &str) -> Result<(), Failure> {
        self.needed("SETDESC", text).await?;
        self.send("MESSAGE", "").await?;
        self.reply(Duration::MAX).await.map(drop)
    }

    /// A request that has to succeed.
    async fn needed(&mut self, name: &str, argument: &str) -> Result<(), Failure> {
        match self.request(name, argument).await? {
            Reply::Ok(_) => Ok(()),
            Reply::Error(code, words) => Err(self.refused(name, code, &words)),
        }
    }

    async fn request(&mut self, name: &str, argument: &str) -> Result<Reply, Failure> {
        self.send(name, argument).await?;
        self.reply(PATIENCE).await
    }

    async fn send(&mut self, name: &str, argument: &str) -> Result<(), Failure> {
        let line = assuan::command(name, argument);
        let sent = async {
            self.input.write_all(&line).await?;
            self.input.flush().await
        };
        sent.await.map_err(|e| self.broken(&format!("it has ended ({e})")))
    }

    /// Reads until the request is done or has failed.
    async fn reply(&mut self, patience: Duration) -> Result<Reply, Failure> {
        let reading = async {
            let mut data = Zeroizing::new(Vec::with_capacity(8 * MAX_LINE));
            loop {
                match self.line().await? {
                    Line::Ok => return Ok(Reply::Ok(data)),
                    Line::Error(code, words) => return Ok(Reply::Error(code & 0xffff, words)),
                    Line::Data(more) if data.len() + more.len() <= data.capacity() => {
                        data.extend_from_slice(&more);
                    }
                    Line::Data(_) => return Err(self.broken("it says more than any PIN")),
                    // Whatever it wants to know: there is no answer.
                    Line::Inquiry => self.send("CANCEL", "").await?,
                    Line::Other => {}
                }
            }
        };
        match tokio::time::timeout(patience, reading).await {
            Ok(reply) => reply,
            Err(_) => Err(self.broken("it does not answer")),
        }
    }

    async fn line(&mut self) -> Result<Line, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = Line::read(self.buffer[..end].strip_suffix(b"\r").unwrap_or(&self.buffer[..end]));
                let rest = self.buffer.len() - end - 1;
                self.buffer.copy_within(end + 1.., 0);
                self.buffer[rest..].fill(0);
                self.buffer.truncate(rest);
                return line.ok_or_else(|| self.broken("it does not speak Assuan"));
            }
            let mut piece = Zeroizing::new([0; MAX_LINE]);
            let room = (self.buffer.capacity() - self.buffer.len()).min(piece.len());
            if room == 0 {
                return Err(self.broken("a line of it is too long"));
            }
            let read = self.output.read(&mut piece[..room]).await;
            match read {
                Ok(0) => return Err(self.broken("it has ended")),
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(e) => return Err(self.broken(&e.to_string())),
            }
        }
    }

    fn broken(&self, why: &str) -> Failure {
        Error::new(ErrorKind::PinRequired, format!("{} cannot be used to ask for the PIN: {why}", self.name))
            .next("name another pinentry program with --pinentry or SIGNER_PINENTRY")
            .into()
    }

    fn refused(&self, request: &str, code: u32, words: &str) -> Failure {
        self.broken(&format!("it answers {request} with error {code}, {words}"))
    }
}

/// What is left of an answer.
enum Reply {
    Ok(Zeroizing<Vec<u8>>),
    Error(u32, String),
}

/// Where and in which language the program asks.
fn options() -> Vec<(&'static str, String)> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let stdin = || rustix::termios::ttyname(std::io::stdin(), Vec::new()).ok()?.into_string().ok();
    let tty = env("GPG_TTY").or_else(stdin).or_else(|| {
        let there = std::fs::File::open("/dev/tty").is_ok();
        there.then(|| "/dev/tty".to_owned())
    });
    let locale = |name| env("LC_ALL").or_else(|| env(name)).or_else(|| env("LANG"));
    [
        ("ttyname", tty),
        ("ttytype", env("TERM")),
        ("lc-ctype", locale("LC_CTYPE")),
        ("lc-messages", locale("LC_MESSAGES")),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
