//! Keys in the transit secrets engine of HashiCorp Vault or OpenBao.
//!
//! A small client of its own over HTTP: the versions of a transit key are the versions of a key here (`release@2`), digests
//! are signed prehashed, and every signature is verified before it leaves. It never blocks: it runs inside the daemon.
//!
//! What each answer of the server means is written down once, in the module `fault`.

mod backend;
mod client;
mod config;
mod delete;
mod fault;
mod http;
mod key;
mod login;
mod name;
mod session;
mod sign;
mod signer;
mod target;

pub use backend::VaultBackend;
pub use config::{Login, SecretLoader, VaultConfig};
