//! The checks: each gets a fixture of its own, empty of keys.

pub(crate) mod changes;
pub(crate) mod description;
pub(crate) mod messages;
pub(crate) mod naming;
pub(crate) mod patience;
pub(crate) mod pins;
pub(crate) mod restart;
pub(crate) mod scale;
pub(crate) mod signing;
