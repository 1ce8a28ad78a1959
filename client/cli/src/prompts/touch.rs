//! Touches that are waited for: a line with the time that is left, or a dialog where there is no terminal.

use std::{
    cell::Cell,
    io::{IsTerminal, Write},
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use signer_core::TouchPrompt;

use super::{Means, Terminal, pinentry::Pinentry, text};

/// What is waited for now.
pub(super) struct Touches {
    means: Means,
    all: Vec<Touch>,
    /// Whether a line stands there.
    shown: Rc<Cell<bool>>,
    dialog: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

struct Touch {
    key: String,
    text: String,
    until: Instant,
}

impl Touches {
    pub(super) fn new(means: Means, shown: Rc<Cell<bool>>) -> Self {
        Self { means, all: Vec::new(), shown, dialog: None }
    }

    pub(super) fn begin(&mut self, prompt: &TouchPrompt, caller: &str, purpose: &str, label: Option<&str>) {
        let text = text::touch(prompt, caller, purpose, label);
        let until = Instant::now() + prompt.timeout;
        self.all.push(Touch { key: prompt.key.clone(), text: text.clone(), until });
        if let Some(program) = self.means.dialogs() {
            let program = program.to_owned();
            // Its end, whatever it is, means nothing: it is the finger that counts.
            self.dialog = Some(Box::pin(async move {
                if let Ok(mut pinentry) = Pinentry::start(&program).await {
                    let _ = pinentry.tell(&text).await;
                }
            }));
        } else {
            self.show();
        }
    }

    pub(super) fn end(&mut self, key: &str) {
        if let Some(at) = self.all.iter().position(|touch| touch.key == key) {
            self.all.remove(at);
        }
        if self.all.is_empty() {
            self.dialog = None;
        }
        self.hide();
        self.show();
    }

    /// Shows the newest, with the time that is left of it.
    pub(super) fn show(&mut self) {
        let now = Instant::now();
        self.all.retain(|touch| touch.until + Duration::from_secs(2) > now);
        let Some(touch) = self.all.last() else { return };
        if self.means.dialogs().is_some() {
            return;
        }
        let left = touch.until.saturating_duration_since(now).as_secs_f64().ceil();
        let line = format!("{}, {left} s left", touch.text);
        if let Ok(terminal) = Terminal::open() {
            self.shown.set(terminal.write(&format!("\r\x1b[K{line}")).is_ok());
        } else if !self.shown.replace(true) && std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Takes the line away.
    pub(super) fn hide(&mut self) {
        take_away(&self.shown);
    }

    /// Shows the dialog, if there is one; waits for ever when there is none.
    pub(super) async fn dialog(&mut self) {
        match &mut self.dialog {
            Some(dialog) => {
                dialog.await;
                self.dialog = None;
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Touches {
    fn drop(&mut self) {
        self.hide();
    }
}

/// Takes a line away that stands on the terminal for a while.
pub(crate) fn take_away(shown: &Cell<bool>) {
    if shown.take()
        && let Ok(terminal) = std::fs::File::options().write(true).open("/dev/tty")
    {
        let _ = (&terminal).write_all(b"\r\x1b[K");
    }
}
