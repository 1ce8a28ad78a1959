//! What a witness is sent, and what says which witnesses are asked.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_log::fuzz::witness(bytes));
