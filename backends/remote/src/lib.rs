//! What backends behind a network share: how often and how long a request is tried ([`Patience`]), and answers that are
//! remembered for a while ([`Memory`]).
//!
//! A backend classifies each failure once, in its own table, as a [`Failure`]: the error that the caller would see, and
//! whether trying again may help. Everything else about retries is here.

mod memory;
mod patience;

pub use memory::Memory;
pub use patience::{Again, Failure, Patience};
