//! The tests that every backend must pass, over `Arc<dyn Backend>` alone: they know no device.
//!
//! A backend's own crate writes a [`Fixture`] (a real engine on temporary state, never a mock) with a [`Profile`] that
//! says what is expected of it, and one line of [`contract_tests!`] makes a `#[test]` of each check. A program runs the
//! same checks with [`checks`] and [`run`], and reports each [`Outcome`].

mod certificate;
mod check;
mod checks;
mod failure;
mod fixture;
mod material;
mod support;

pub use certificate::self_signed;
pub use check::{Check, checks, run, test};
pub use failure::{Failure, Outcome};
pub use fixture::{Fixture, Names, PinSetup, Profile};
pub use material::{Material, make_private_key};
