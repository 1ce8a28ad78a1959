//! Private keys on their way in: no panic. No passphrase is tried: the fuzzer would spend its time on scrypt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_core::PrivateKey;

fuzz_target!(|bytes: &[u8]| {
    let _ = PrivateKey::read(bytes, None);
});
