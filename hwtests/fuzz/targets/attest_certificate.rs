//! Certificates of a statement: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_attest::fuzz::certificate(bytes));
