//! YubiKeys: what their users complain of, and what must hold instead. Each test has a virtual card of its own, and
//! unmodified programs of others beside us.
#![allow(clippy::unwrap_used)] // tests

#[path = "piv/cards.rs"]
mod cards;
#[path = "piv/firmware.rs"]
mod firmware;
#[path = "piv/hotplug.rs"]
mod hotplug;
#[path = "piv/other_tools.rs"]
mod other_tools;
#[path = "piv/pins.rs"]
mod pins;
#[path = "piv/secrets_of_the_card.rs"]
mod secrets_of_the_card;
#[path = "piv/support.rs"]
mod support;
#[path = "piv/through_the_daemon.rs"]
mod through_the_daemon;
#[path = "piv/touch.rs"]
mod touch;
