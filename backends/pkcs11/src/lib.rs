//! Keys in PKCS#11 tokens: hardware security modules, smart cards, SoftHSM.
//!
//! [`Pkcs11Backend`] is one token behind one vendor's module. It is made to run in a driver process (`signerd-pkcs11`,
//! this crate's program), because a module is foreign C code; its futures block.
//!
//! How a signature is made: `key.rs` → `token.rs` (connection, sessions, recovery) → `raw.rs` (the C functions). PINs are
//! tried in `login.rs` alone. What each return code means is decided in `codes.rs`.

mod backend;
mod certificate;
mod codes;
mod config;
mod creation;
mod delete;
mod fault;
mod generate;
mod import;
mod inventory;
mod key;
mod list_tokens;
mod login;
mod mechanism;
mod objects;
mod public_half;
mod raw;
mod select;
mod sessions;
mod token;
mod token_info;
mod turn;

pub use backend::Pkcs11Backend;
pub use config::Pkcs11Config;
pub use list_tokens::list_tokens;
pub use token_info::TokenInfo;
