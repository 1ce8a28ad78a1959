//! Structures of a TPM's statement: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_attest::fuzz::tpm(bytes));
