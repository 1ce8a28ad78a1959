//! Keys in Google Cloud KMS, over Google's own client.
//!
//! A key is a `CryptoKey` of the configured key ring, a version of it a `CryptoKeyVersion`: `release@3`. Keys of other
//! rings are opened by their address, `gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/versions/N]`.
//!
//! Nothing that the service answers is taken on trust: checksums, the name of the version and the signature itself are
//! verified before a signature leaves (`signer`). Every failure is classified in one table (`fault`).

mod algorithm;
mod attest;
mod backend;
mod client;
mod config;
mod fault;
mod keys;
mod name;
mod signer;

pub use backend::GoogleKms;
pub use config::{GoogleConfig, ProtectionLevel, RsaPadding};
