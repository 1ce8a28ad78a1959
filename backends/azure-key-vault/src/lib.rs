//! Keys in Azure Key Vault and Managed HSM, over Microsoft's own client.
//!
//! A key of the configured vault is `release`, a version of it `release@0123456789abcdef0123456789abcdef`; both are also
//! opened by their address, `azurekms://VAULT/KEY[/VERSION]`.
//!
//! Nothing that the service answers is taken on trust: the identifier of the key and the signature itself are verified
//! before a signature leaves (`signer`). Every failure is classified in one table (`fault`).

mod algorithm;
mod backend;
mod client;
mod config;
mod credential;
mod fault;
mod keys;
mod name;
mod signer;

pub use backend::AzureKeyVault;
pub use config::{AzureConfig, CredentialKind, KeyPlace, SecretFrom};
