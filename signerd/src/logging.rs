//! The log: lines on stderr, as text or JSON. No payload and no secret is ever given to it; libraries underneath are
//! kept to warnings because nobody here can promise that for them.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::Log;

/// The crates of this house.
const OURS: [&str; 5] = ["signerd", "signerd_api", "signer_core", "signer_driver", "signer_software"];

/// Starts the log. `RUST_LOG`, a level, goes before the configuration.
pub(crate) fn start(log: &Log) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|l| l.parse::<tracing::Level>().ok());
    let level = asked.unwrap_or(log.level);
    let directives: Vec<_> = OURS.iter().map(|name| format!("{name}={level}")).collect();
    let filter = EnvFilter::new(format!("warn,{}", directives.join(",")));
    let registry = tracing_subscriber::registry().with(filter);
    // The journal and most collectors have the time themselves; on a terminal it is missed.
    let result = if log.json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    } else {
        let colours = rustix::termios::isatty(std::io::stderr());
        let layer = fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr);
        registry.with(layer).try_init()
    };
    if let Err(e) = result {
        eprintln!("signerd: the log cannot be started: {e}");
    }
}
