//! `signer keys rotate`

use clap::Args;

use super::report;
use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Make a new version of a key
///
/// The name means the new version from now on. Earlier versions go on signing when asked for: soft/release@1.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys rotate soft/release")]
pub(super) struct Rotate {
    /// The key
    #[arg(value_name = "REF")]
    key: Reference,
}

impl Rotate {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let (backend, key) = context.client().rotate(&self.key.get()?.to_string()).await?;
        report("rotated", &backend, &key, context);
        Ok(Exit::Done)
    }
}
