//! Keys in AWS KMS, over the official SDK.
//!
//! A key is known by its alias (`alias/release` is the key `release`) or, without one, by its key id. Digests are signed as
//! digests; every signature is verified before it leaves. It never blocks: it runs inside the daemon.
//!
//! What each answer of the service means is written down once, in the module `fault`.

mod backend;
mod client;
mod config;
mod connect;
mod credentials;
mod delete;
mod fault;
mod generate;
mod inventory;
mod key;
mod name;
mod shared;
mod signer;

pub use backend::AwsBackend;
pub use config::AwsConfig;
