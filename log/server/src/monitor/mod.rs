//! `signer-log monitor`: follows a log, proves that it only grows, and reports the entries that somebody asked for.
//!
//! [`follow`] reads and proves, [`rules`] chooses, [`state`] remembers, [`sinks`] delivers.

mod config;
mod evidence;
mod follow;
mod metrics;
mod pattern;
mod report;
mod rules;
mod run;
mod sinks;
mod state;
mod webhook;

pub(crate) use run::run;
