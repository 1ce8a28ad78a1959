//! Keys in encrypted PKCS#8 files: the backend that needs no device.
//!
//! A key is a folder, a version of it three files: `1.pem` (the private key, `ENCRYPTED PRIVATE KEY` as
//! `openssl pkey` reads it), `1.pub` (the public key, with a few words before it) and perhaps `1.crt`. Listing and
//! opening read only the public ones; a private key is decrypted at its first signature and then stays in memory.
//!
//! ```text
//! DIR/.lock          held (flock) around every change
//! DIR/.check.pem     a key that signs nothing: tells a wrong passphrase before a key is made with it
//! DIR/release/1.pem  1.pub  1.crt  2.pem  2.pub
//! ```
//!
//! How a crash at any moment leaves either no key or a whole key is argued in the module `store`.

mod backend;
mod certificate;
mod check;
mod config;
mod envelope;
mod fault;
mod file_name;
mod folder;
mod passphrase;
mod private_half;
mod public_file;
mod signer;
mod store;

pub use backend::SoftwareBackend;
pub use config::{Kdf, SoftwareConfig};
pub use passphrase::load_or_create_passphrase;
