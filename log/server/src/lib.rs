//! The transparency logs: a signature log with Rekor v2's API, and a certificate log with RFC 6962's submission and
//! `static-ct-api`'s reading. Both are the tile log engine with rules around it; both have their keys behind the daemon.
//!
//! A library with a thin `main`, so that another program can run a log inside itself: [`serve`].

mod certificate;
mod cli;
mod clock;
mod commands;
mod decode;
mod fetch;
mod http;
mod limits;
mod location;
mod metrics;
mod monitor;
mod page;
mod place;
mod route;
mod s3;
mod serve;
mod signature;
mod tiles;
mod witness;
mod x509;

pub use cli::{Cli, run};
pub use place::{Description, Kind};
pub use serve::{Running, ServeOptions, serve};
pub use witness::Panel;

/// For the fuzz targets: the parsers of foreign bytes, each called as the server calls it.
#[cfg(fuzzing)]
pub mod fuzz;
