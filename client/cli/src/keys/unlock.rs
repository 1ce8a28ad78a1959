//! `signer keys unlock`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use signer_core::{BackendName, UnlockRequest};

use crate::{
    context::Context,
    failure::{Exit, Failure},
    secret,
};

/// Give a device its PIN
///
/// The PIN is tried once. The daemon keeps it in memory until it ends, or until the backend's pin_ttl is over.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys unlock hsm
  signer keys unlock hsm --pin-file /run/credentials/hsm-pin")]
pub(super) struct Unlock {
    /// The backend
    #[arg(value_name = "BACKEND")]
    backend: BackendName,
    /// Where the PIN is, instead of asking at the terminal
    #[arg(long, value_name = "PATH")]
    pin_file: Option<PathBuf>,
    /// Go ahead when the device allows only one more try before it locks
    #[arg(long)]
    use_last_try: bool,
}

impl Unlock {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let prompt = format!("PIN of {}", self.backend);
        let pin = secret::read(&prompt, self.pin_file.as_deref(), "--pin-file", context).await?;
        let request = UnlockRequest { pin, use_last_try: self.use_last_try };
        context.client().unlock(&self.backend, request).await?;
        context
            .result(format_args!("unlocked {}", self.backend), &json!({ "unlocked": self.backend.as_str() }));
        Ok(Exit::Done)
    }
}
