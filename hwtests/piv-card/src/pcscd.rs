//! A `pcscd` of the test's own, with virtual readers, in private mount and network namespaces.
//!
//! Its socket lies in a temporary folder: clients find it by the environment variable `PCSCLITE_CSOCK_NAME`, which the
//! pcsc-lite library reads. The virtual readers listen on the loopback device of a network namespace that nothing else is in;
//! a card's thread goes there before it connects.

use std::{
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::vpcd::Slot;

/// The name of the reader without its numbers: Yubico's tools look for it.
pub const READER_NAME: &str = "Yubico YubiKey OTP+FIDO+CCID";

/// The driver of the virtual reader, from Debian's package vsmartcard-vpcd.
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

/// The first slot's port. The number is free to choose in a namespace of one's own.
const PORT: u16 = 0x8C7B;

/// Ends pcscd when the standard input ends: with the test, however that ends.
const SCRIPT: &str = r#"
ip link set lo up && mkdir -p /run/pcscd && mount --bind "$1/run" /run/pcscd || exit
pcscd --foreground --config "$1/readers" </dev/null >"$1/log" 2>&1 &
read -r _
kill $! && wait
"#;

/// A running `pcscd`; it ends when this is dropped.
pub struct Pcscd {
    folder: TempDir,
    child: Child,
    readers: u16,
}

impl Pcscd {
    /// One reader with two slots.
    pub fn start() -> io::Result<Self> {
        Self::with_readers(1)
    }

    /// So many readers (at most eight), each with two slots.
    pub fn with_readers(readers: u16) -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(io::Error::other("a pcscd of one's own needs root: run this as root"));
        }
        if !Path::new(DRIVER).exists() {
            return Err(io::Error::other(format!(
                "{DRIVER} is missing: install it with 'apt-get install pcscd vsmartcard-vpcd'"
            )));
        }
        let folder = tempfile::Builder::new().prefix("pcscd-").tempdir()?;
        fs::create_dir(folder.path().join("run"))?;
        fs::create_dir(folder.path().join("readers"))?;
        fs::write(folder.path().join("readers/vpcd"), configuration(0..readers))?;
        let child = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", SCRIPT, "pcscd"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| {
                io::Error::other(format!("unshare does not start: {e}; 'apt-get install util-linux'"))
            })?;
        let mut pcscd = Self { folder, child, readers };
        pcscd.wait_until_up()?;
        Ok(pcscd)
    }

    /// The socket of its clients: the value of `PCSCLITE_CSOCK_NAME`.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/pcscd.comm")
    }

    /// A program that talks to this `pcscd` and to no other.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PCSCLITE_CSOCK_NAME", self.socket());
        command
    }

    /// A slot by number: two for each reader.
    pub fn slot(&self, number: u16) -> Slot {
        let port = PORT + number;
        Slot::inside(
            SocketAddr::from(([127, 0, 0, 1], port)),
            format!("/proc/{}/ns/net", self.child.id()).into(),
        )
    }

    /// The folder with its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process that has the namespaces: `nsenter --target PID --mount --net`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its readers, as it tells its clients: names, and whether a card is in.
    pub fn readers(&self) -> io::Result<Vec<(String, bool)>> {
        readers(&self.socket())
    }

    /// Waits until so many slots have a card in them, ready for clients.
    pub fn wait_for_cards(&self, cards: usize) -> io::Result<()> {
        let start = Instant::now();
        while self.readers()?.iter().filter(|(_, card)| *card).count() != cards {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(format!(
                    "pcscd does not see {cards} cards after 10 s: {:?}",
                    self.readers()?
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn wait_until_up(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            if self.readers().is_ok_and(|readers| readers.len() == 2 * usize::from(self.readers)) {
                return Ok(());
            }
            let ended = self.child.try_wait()?.is_some();
            if ended || start.elapsed() > Duration::from_secs(20) {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "pcscd does not start; it needs 'apt-get install pcscd vsmartcard-vpcd iproute2', and root. It said: {log}"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// reader.conf's entries; each reader has the slots of its channel's port and the next one.
fn configuration(readers: std::ops::Range<u16>) -> String {
    readers
        .map(|number| {
            let port = PORT + 2 * number;
            format!(
                "FRIENDLYNAME \"{READER_NAME}\"\nDEVICENAME /dev/null:0x{port:X}\nLIBPATH {DRIVER}\nCHANNELID 0x{port:X}\n\n"
            )
        })
        .collect()
}

/// The states of all readers, by pcscd's own protocol (winscard_msg.h): version 4.4, then GET_READERS_STATE.
fn readers(socket: &Path) -> io::Result<Vec<(String, bool)>> {
    const VERSION: u32 = 0x11;
    const READERS_STATE: u32 = 0x12;
    const RECORD: usize = 184;
    const NAME: usize = 128;
    const PRESENT: u32 = 0x0004;

    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    stream.write_all(&words(&[12, VERSION, 4, 4, 0]))?;
    stream.read_exact(&mut [0; 12])?;
    stream.write_all(&words(&[0, READERS_STATE]))?;
    let mut records = [0; 16 * RECORD];
    stream.read_exact(&mut records)?;
    let found = records.chunks_exact(RECORD).filter(|record| record[0] != 0).map(|record| {
        let name = record[..NAME].split(|byte| *byte == 0).next().unwrap_or_default();
        let state = u32::from_ne_bytes([record[132], record[133], record[134], record[135]]);
        (String::from_utf8_lossy(name).into_owned(), state & PRESENT != 0)
    });
    Ok(found.collect())
}
