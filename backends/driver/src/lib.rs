//! Runs a [`Backend`](signer_core::Backend) in a process of its own and supervises it: the same trait on both sides.
//!
//! The daemon's side is [`DriverBackend`]; a driver program's whole `main` is a call of [`run`]. Between them goes the
//! protocol of `proto/driver.proto`, over a socket pair. What links a device's C library runs behind it, so that a bad
//! library costs a restart of its process and nothing else.

mod convert;
mod driver;
mod frame;
mod host;

pub use driver::{Setup, run};
pub use host::{DriverBackend, DriverConfig, PinLoader};

/// The version of the protocol that both sides must speak.
pub const PROTOCOL_VERSION: u32 = 1;

/// The protocol's messages.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/signerd.driver.v1.rs"));
}
