//! Keys in PIV cards (NIST SP 800-73-4): YubiKeys, and what others have made by the same standard.
//!
//! [`PivBackend`] is one card, known by its serial number. It is made to run in a driver process (`signerd-piv`, this
//! crate's program), because the smart card service's library is C; its futures block.
//!
//! How a signature is made: `key.rs` → `device.rs` (the thread that owns the connection, one transaction for each piece of
//! work) → `applet.rs` (the card's commands) → `apdu.rs`. PINs are tried in `login.rs` alone. What each status word means is
//! decided in `status.rs`, what each error of the service means in `codes.rs`. Which card it is, and where: `find.rs`.

mod algorithm;
mod apdu;
mod applet;
mod attest;
mod backend;
mod certificate;
mod changes;
mod codes;
mod config;
mod delete;
mod device;
mod fault;
mod find;
mod firmware;
mod generate;
mod identity;
mod import;
mod inventory;
mod key;
mod list_cards;
mod login;
mod management;
mod padding;
mod pins;
mod public_half;
mod slot;
mod status;
mod tlv;
mod watch;

pub use backend::PivBackend;
pub use config::PivConfig;
pub use list_cards::{CardInfo, list_cards};
