//! Files of a device's statement: no panic, whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_attest::fuzz::statement(bytes));
