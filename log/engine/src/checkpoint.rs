//! Checkpoints (C2SP `tlog-checkpoint`): which log, how many entries, which root.

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::{Error, ErrorKind, Result};

use crate::{
    note::{Note, NoteKey},
    tree::Hash,
};

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Lines that others may add a meaning to. Never empty lines.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Reads the text of a checkpoint.
    pub fn from_text(text: &str) -> Result<Self> {
        let read = || {
            let mut lines = text.strip_suffix('\n')?.split('\n');
            let origin = lines.next().filter(|l| !l.is_empty())?;
            let size = lines.next()?;
            let plain = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
            let size = size.parse().ok().filter(|_| plain)?;
            let root = lines.next()?;
            let root: Hash = STANDARD.decode(root).ok()?.try_into().ok()?;
            let extensions: Vec<_> = lines.map(ToOwned::to_owned).collect();
            if extensions.iter().any(String::is_empty) {
                return None;
            }
            Some(Self { origin: origin.to_owned(), size, root, extensions })
        };
        read().ok_or_else(|| {
            Error::bad_request("this is not a checkpoint: origin, size and root are not its first lines")
        })
    }

    /// Reads a signed checkpoint and verifies it: by this key, and of the log that the key is named after.
    pub fn verified(note: &[u8], key: &NoteKey) -> Result<Self> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let this = Self::from_text(note.text())?;
        if this.origin != key.name() {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("the checkpoint is of the log {:?}, not of {:?}", this.origin, key.name()),
            ));
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_checkpoints_are_refused() {
        let root = STANDARD.encode([7; 32]);
        assert!(Checkpoint::from_text(&format!("log\n10\n{root}\n")).is_ok());
        for bad in [
            String::new(),
            format!("log\n10\n{root}"),
            format!("log\n010\n{root}\n"),
            format!("log\n-1\n{root}\n"),
            format!("log\n+1\n{root}\n"),
            format!("\n1\n{root}\n"),
            format!("log\n1\n{}\n", STANDARD.encode([7; 31])),
            format!("log\n1\n{root}\n\n"),
            format!("log\n18446744073709551616\n{root}\n"),
        ] {
            assert!(Checkpoint::from_text(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_checkpoint_is_read_back(size: u64, root: [u8; 32], extensions in proptest::collection::vec("[a-z —]{1,20}", 0..3)) {
            let checkpoint = Checkpoint { origin: "log.example".into(), size, root, extensions };
            prop_assert_eq!(Checkpoint::from_text(&checkpoint.to_text()).unwrap(), checkpoint);
        }

        #[test]
        fn foreign_text_never_panics(text in "\\PC{0,80}\n[0-9]{0,22}\n\\PC{0,60}\n") {
            let _ = Checkpoint::from_text(&text);
        }
    }
}
