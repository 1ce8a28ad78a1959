//! `signer doctor`: what is wrong with a set-up, and how to put it right.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    context::Context,
    failure::{Exit, Failure},
    places,
};

mod config;
mod daemon;
mod files;
mod token;

/// Find what is wrong with a set-up, and say the fix
///
/// Looks at the configuration, the socket, the daemon and its devices. Changes nothing and tries no PIN. Exits with 1
/// when there is a problem.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer doctor
  signer doctor --config /etc/signerd/signerd.toml")]
pub(crate) struct Doctor {
    /// The daemon's configuration [default: $XDG_CONFIG_HOME/signerd/signerd.toml or /etc/signerd/signerd.toml]
    #[arg(long, env = "SIGNERD_CONFIG", hide_env_values = true, value_name = "PATH")]
    config: Option<PathBuf>,
}

/// What one check found.
struct Finding {
    /// Whether it is as it should be.
    ok: bool,
    what: String,
    /// What to do about it.
    fix: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { ok: true, what: what.into(), fix: None }
    }

    fn problem(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { ok: false, what: what.into(), fix: Some(fix.into()) }
    }
}

impl Doctor {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let mut findings = Vec::new();
        let path = self.config.clone().or_else(places::daemon_config);
        let config = config::check(path, &mut findings);
        let socket = config.as_ref().and_then(|c| c.socket.clone());
        let socket = context.given_socket().or(socket).unwrap_or_else(signerd_api::find_socket);
        for backend in config.iter().flat_map(|c| &c.backends) {
            token::check(backend, &mut findings);
        }
        daemon::check(&socket, context, &mut findings).await;
        let problems = findings.iter().filter(|f| !f.ok).count();
        context.answer(text(&findings, problems), &object(&findings));
        Ok(if problems == 0 { Exit::Done } else { Exit::Failed })
    }
}

fn text(findings: &[Finding], problems: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = if finding.ok { "ok       " } else { "PROBLEM  " };
        text.extend([mark, &finding.what, "\n"]);
        if let Some(fix) = &finding.fix {
            text.extend(["         fix: ", fix, "\n"]);
        }
    }
    let sum = match problems {
        0 => "no problem was found".to_owned(),
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    text + "\n" + &sum + "\n"
}

fn object(findings: &[Finding]) -> serde_json::Value {
    let all: Vec<_> = findings.iter().map(|f| json!({ "ok": f.ok, "what": f.what, "fix": f.fix })).collect();
    json!({ "findings": all })
}
