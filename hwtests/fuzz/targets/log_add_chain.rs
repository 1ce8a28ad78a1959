//! What a log is sent: add chain.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_log::fuzz::add_chain(bytes));
