//! What a log is sent: signature request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_log::fuzz::signature_request(bytes));
