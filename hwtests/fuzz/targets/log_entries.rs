//! Tiles of entries, as the monitor and the page take them apart.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signer_log::fuzz::entries(bytes));
