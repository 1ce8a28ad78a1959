//! What backends behind a network share: how often and how long a request is tried ([`Patience`]), answers that are
//! remembered for a while ([`Memory`]), and the check of each signature before it leaves ([`verify`]).
//!
//! A backend classifies each failure once, in its own table, as a [`Failure`]: the error that the caller would see, and
//! whether trying again may help. Everything else about retries is here.

mod memory;
mod patience;
mod verify;

pub use memory::Memory;
pub use patience::{Again, Failure, Patience};
pub use verify::verify;
