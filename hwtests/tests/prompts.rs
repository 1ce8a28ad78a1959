//! Prompts: PINs and touches that a person is asked for, over the whole daemon. Cards, tokens and TPMs without a configured
//! PIN, and real pinentry programs.
#![allow(clippy::unwrap_used)] // tests

#[path = "prompts/forgetting.rs"]
mod forgetting;
#[path = "prompts/pinentry.rs"]
mod pinentry;
#[path = "prompts/requests.rs"]
mod requests;
#[path = "prompts/support.rs"]
mod support;
#[path = "prompts/terminal.rs"]
mod terminal;
#[path = "prompts/touches.rs"]
mod touches;
