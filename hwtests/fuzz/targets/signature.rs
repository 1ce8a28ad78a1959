//! ECDSA signatures from devices and files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_core::{KeyType, Signature};

fuzz_target!(|bytes: &[u8]| {
    for key_type in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521] {
        if let Ok(raw) = Signature::new(bytes.to_vec()).to_ecdsa_raw(key_type) {
            let again = Signature::from_ecdsa_raw(&raw).expect("raw numbers are encoded");
            assert_eq!(again.to_ecdsa_raw(key_type).expect("what was written is read"), raw);
        }
    }
    let _ = Signature::from_ecdsa_raw(bytes);
});
