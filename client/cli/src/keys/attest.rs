//! `signer keys attest`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    atomic,
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Ask the device for its own statement on a key
///
/// A YubiKey, a TPM or a cloud HSM can state, under its maker's signature, that it made a key and does not give it away.
/// This writes that statement as it is, for `signer attest verify` to hold against the maker's roots.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys attest yubikey/9c > release.attestation.json
  signer keys attest tpm/release --out release.attestation.json")]
pub(super) struct Attest {
    /// The key
    #[arg(value_name = "REF")]
    key: Reference,
    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Attest {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let evidence = context.client().attest(&self.key.get()?.to_string()).await?;
        let json = signer_attest::to_json(&evidence);
        let text = format!("{json:#}\n");
        match &self.out {
            None => context.answer(&text, &json),
            Some(path) => {
                atomic::write(path, text.as_bytes())?;
                context.result(format_args!("wrote {}", path.display()), &json!({ "out": path }));
            }
        }
        Ok(Exit::Done)
    }
}
