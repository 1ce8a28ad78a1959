//! `signer keys delete`

use clap::Args;
use serde_json::json;

use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
    secret,
};

/// Destroy a key
///
/// A name without a version means all its versions. What is signed with the key stays valid; nothing more can be signed
/// with it, and nobody can bring it back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys delete soft/old
  signer keys delete soft/release@1 --yes")]
pub(super) struct Delete {
    /// The key
    #[arg(value_name = "REF")]
    key: Reference,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Delete {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client();
        let key = self.key.get()?.to_string();
        if !self.yes {
            // Shown before the question, and an error if there is no such key.
            let (_, info) = client.key_info(&key).await?;
            let question = format!("Destroy {key} ({}) for good?", info.public_key.key_type());
            match secret::confirm(&question, context) {
                Some(true) => {}
                Some(false) => {
                    context.note("nothing was deleted");
                    return Ok(Exit::Failed);
                }
                None => {
                    return Err(Failure::usage(
                        "there is no terminal to ask whether the key may be destroyed",
                    )
                    .next("say so with --yes"));
                }
            }
        }
        client.delete(&key).await?;
        context.result(format_args!("deleted {key}"), &json!({ "deleted": key }));
        Ok(Exit::Done)
    }
}
