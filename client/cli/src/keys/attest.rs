//! `signer keys attest`

use std::path::PathBuf;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use serde_json::json;
use signer_core::Evidence;

use crate::{
    atomic,
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Ask the device for its own statement on a key
///
/// A YubiKey, a TPM or a cloud HSM can state, under its maker's signature, that it made a key and does not give it away.
/// This writes that statement as it is, for others to verify against the maker's roots.
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
        let text = format!("{:#}\n", to_json(&evidence));
        match &self.out {
            None => context.answer(&text, &to_json(&evidence)),
            Some(path) => {
                atomic::write(path, text.as_bytes())?;
                context.result(format_args!("wrote {}", path.display()), &json!({ "out": path }));
            }
        }
        Ok(Exit::Done)
    }
}

/// The file format of evidence: its kind, and its parts in base64.
fn to_json(evidence: &Evidence) -> serde_json::Value {
    let parts: Vec<_> = evidence.parts.iter().map(|part| BASE64_STANDARD.encode(part)).collect();
    json!({ "format": evidence.format.name(), "parts": parts })
}
