//! Whatever a person types as a key reference: no panic, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_core::{KeyName, KeyRef};

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<KeyRef>() {
        let written = reference.to_string();
        assert_eq!(written.parse::<KeyRef>().expect("what was written is read"), reference);
    }
    if let Ok(name) = text.parse::<KeyName>() {
        assert_eq!(name.to_string().parse::<KeyName>().expect("what was written is read"), name);
    }
});
