//! Signed notes, checkpoints and verifier keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_log_engine::{Checkpoint, Note, NoteKey};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        let _ = Checkpoint::from_text(note.text());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(checkpoint) = Checkpoint::from_text(text) {
            assert_eq!(checkpoint.to_text(), text);
        }
        if let Ok(key) = NoteKey::from_vkey(text) {
            let _ = Checkpoint::verified(bytes, &key);
        }
    }
});
