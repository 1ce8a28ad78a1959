//! Public keys from files and devices: no panic, and a key that is read verifies without one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_core::{Input, PublicKey, SignatureAlgorithm};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = PublicKey::from_pem_or_der(bytes) {
        assert_eq!(PublicKey::from_pem(&key.to_pem()).expect("what was written is read"), key);
        for algorithm in SignatureAlgorithm::ALL {
            let _ = key.verify(algorithm, &Input::Message(bytes.to_vec().into()), bytes);
        }
    }
});
