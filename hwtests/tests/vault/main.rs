//! Vault on its bad days, and beside other programs: the server itself, a proxy in front of it that breaks what it carries,
//! and a scripted server for what Vault cannot be made to say.
#![allow(clippy::unwrap_used)] // tests

mod support;
mod vault_answers;
mod vault_logins;
mod vault_reached;
mod vault_server;
