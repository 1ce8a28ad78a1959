//! Keys in a TPM 2.0.
//!
//! [`TpmBackend`] is one TPM and one folder of sealed key files. It is made to run in a driver process (`signerd-tpm`, this
//! crate's program), because the TSS is foreign C code without time-outs; its futures block.
//!
//! How a signature is made: `key.rs` → `login.rs` (the PIN, if the key has one) → `device.rs` (the connection and its
//! recovery) → `connection.rs` (loaded keys) → `signing.rs`. What each response code means is decided in `codes.rs`.

mod approvals;
mod attest;
mod backend;
mod capabilities;
mod certificate;
mod changes;
mod codes;
mod config;
mod connection;
mod device;
mod fault;
mod file_name;
mod import;
mod key;
mod key_file;
mod lockout;
mod login;
mod material;
mod parent;
mod policy;
mod pss;
mod public_area;
mod signing;
mod store;
mod wrap;

pub use backend::TpmBackend;
pub use config::TpmConfig;
