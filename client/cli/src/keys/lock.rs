//! `signer keys lock`

use clap::Args;
use serde_json::json;
use signer_core::BackendName;

use crate::{
    context::Context,
    failure::{Exit, Failure},
};

/// Have a device's PIN forgotten
///
/// The device is locked, and the next use of its keys asks for the PIN again. A PIN that the daemon's configuration names is
/// read again by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys lock yubikey")]
pub(super) struct Lock {
    /// The backend
    #[arg(value_name = "BACKEND")]
    backend: BackendName,
}

impl Lock {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        context.client().lock(&self.backend).await?;
        context.result(format_args!("locked {}", self.backend), &json!({ "locked": self.backend.as_str() }));
        Ok(Exit::Done)
    }
}
