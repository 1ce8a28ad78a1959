//! A person at a terminal: a command whose terminal is a pseudo-terminal, made by util-linux' `script`.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{process, programs};

/// A command in a terminal of its own. It is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
    /// Up to here [`Terminal::sees`] has looked.
    seen: usize,
}

/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

impl Terminal {
    /// Starts a command there.
    pub fn start(command: &Command) -> Self {
        let words: Vec<_> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        let mut script = Command::new(programs::system("script", "util-linux"));
        script.args(["--quiet", "--flush", "--return", "--echo", "never", "--command"]);
        // Of a size, whatever this program itself runs in.
        let line = format!("stty rows 50 cols 200 echo; exec {}", words.join(" "));
        script.arg(line).arg("/dev/null").env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                script.env(name, value);
            }
        }
        script.env("TERM", "xterm").env("SHELL", "/bin/sh");
        if let Some(folder) = command.get_current_dir() {
            script.current_dir(folder);
        }
        let mut child = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("script can be started");
        let keyboard = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                lock(&shown).push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, keyboard, screen, seen: 0 }
    }

    /// Waits until a text appears after what was waited for before.
    pub fn sees(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let shown = self.screen();
            if let Some(at) = shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{text:?} does not appear:\n{}", &shown[self.seen..]);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that was shown.
    pub fn screen(&self) -> String {
        lock(&self.screen).clone()
    }

    /// Types.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).and_then(|()| self.keyboard.flush()).expect("it takes keys");
    }

    /// The programs that run there.
    pub fn processes(&self) -> Vec<u32> {
        process::family(self.child.id())
    }

    /// Waits until the command has ended, and says how and what was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        };
        // The last words may be on their way.
        std::thread::sleep(Duration::from_millis(50));
        (status, self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for pid in process::family(self.child.id()).into_iter().rev() {
            process::signal(pid, process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// As a shell takes it for one word.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_str().expect("text").replace('\'', "'\\''"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
