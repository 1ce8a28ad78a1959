//! Kinds of keys as PIV numbers them.

use signer_core::{KeyType, SignatureAlgorithm};

/// The algorithm identifier of a kind of key (SP 800-78-4 table 6-2, and Yubico's own above it).
pub(crate) fn identifier(key_type: KeyType) -> Option<u8> {
    IDENTIFIERS.iter().find(|(t, _)| *t == key_type).map(|(_, id)| *id)
}

/// The kind of key of an identifier; `None` for those that do not sign here (RSA-1024, X25519).
pub(crate) fn key_type(identifier: u8) -> Option<KeyType> {
    IDENTIFIERS.iter().find(|(_, id)| *id == identifier).map(|(t, _)| *t)
}

const IDENTIFIERS: [(KeyType, u8); 6] = [
    (KeyType::Rsa3072, 0x05),
    (KeyType::Rsa2048, 0x07),
    (KeyType::EcdsaP256, 0x11),
    (KeyType::EcdsaP384, 0x14),
    (KeyType::Rsa4096, 0x16),
    (KeyType::Ed25519, 0xe0),
];

/// What a key of this kind signs with in a card: all but Ed25519ph, as cards do pure Ed25519 only.
pub(crate) fn algorithms(key_type: KeyType) -> Vec<SignatureAlgorithm> {
    let all = key_type.algorithms().iter().copied();
    all.filter(|a| *a != SignatureAlgorithm::Ed25519ph).collect()
}
