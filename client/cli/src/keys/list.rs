//! `signer keys list`

use clap::Args;
use serde_json::json;
use signer_core::{BackendName, KeyInfo, ListRequest};

use crate::{
    context::Context,
    failure::{Exit, Failure, error_json},
    table,
};

/// List the keys that you may use
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys list
  signer keys list hsm
  signer keys list --output json | jq -r '.keys[].reference'")]
pub(super) struct List {
    /// Only keys of this backend
    #[arg(value_name = "BACKEND")]
    backend: Option<BackendName>,
}

impl List {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client();
        let mut keys: Vec<(BackendName, KeyInfo)> = Vec::new();
        let mut unavailable = Vec::new();
        let mut page_token = None;
        loop {
            let request = ListRequest { page_size: 1000, page_token };
            let page = client.keys(self.backend.as_ref(), request).await?;
            keys.extend(page.keys);
            // Said again with each page.
            unavailable = if page.unavailable.is_empty() { unavailable } else { page.unavailable };
            page_token = page.next;
            if page_token.is_none() {
                break;
            }
        }
        if let (Some(_), Some((_, error))) = (&self.backend, unavailable.first()) {
            return Err(error.clone().into());
        }
        for (backend, error) in &unavailable {
            context.note(format_args!("note: the keys of {backend} are missing: {error}"));
        }
        let objects: Vec<_> = keys.iter().map(|(backend, key)| super::object(backend, key)).collect();
        let missing: serde_json::Map<_, _> =
            unavailable.iter().map(|(b, e)| (b.clone(), error_json(e))).collect();
        context.answer(text(&keys), &json!({ "keys": objects, "unavailable": missing }));
        Ok(Exit::Done)
    }
}

fn text(keys: &[(BackendName, KeyInfo)]) -> String {
    if keys.is_empty() {
        return "there is no key that you may use; `signer keys create BACKEND/NAME` makes one\n".to_owned();
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|(backend, key)| {
            let fingerprint = hex::encode(&key.public_key.fingerprint().as_bytes()[..8]);
            [
                format!("{backend}/{}", key.name),
                key.public_key.key_type().to_string(),
                key.default_algorithm().to_string(),
                key.origin.name().to_owned(),
                format!("{fingerprint}…"),
            ]
        })
        .collect();
    table::layout(["KEY", "TYPE", "DEFAULT", "ORIGIN", "SHA-256 OF PUBLIC KEY"], &rows)
}
