//! `signer keys …`: what keys there are, and making, taking in and destroying them.

use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand};
use serde_json::json;
use signer_core::{BackendName, KeyInfo, KeyName, KeyRef};

use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
    status::utc,
};

mod certificate;
mod create;
mod delete;
mod import;
mod list;
mod rotate;
mod show;
mod unlock;

/// List, show, make and delete keys
#[derive(Args, Debug)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Create(create::Create),
    Import(import::Import),
    Delete(delete::Delete),
    Rotate(rotate::Rotate),
    Certificate(certificate::Certificate),
    Unlock(unlock::Unlock),
}

impl Keys {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match &self.command {
            Command::List(command) => command.run(context).await,
            Command::Show(command) => command.run(context).await,
            Command::Create(command) => command.run(context).await,
            Command::Import(command) => command.run(context).await,
            Command::Delete(command) => command.run(context).await,
            Command::Rotate(command) => command.run(context).await,
            Command::Certificate(command) => command.run(context).await,
            Command::Unlock(command) => command.run(context).await,
        }
    }
}

/// What a key that is to be made is called: its backend and its name there, without a version.
fn new_key(reference: &Reference) -> Result<(BackendName, KeyName), Failure> {
    match reference.get()? {
        KeyRef::InBackend { backend, key } if key.version().is_none() => Ok((backend.clone(), key.clone())),
        KeyRef::InBackend { .. } => {
            Err(Failure::usage("a new key has no version yet").next("leave out the @ and what follows"))
        }
        _ => {
            Err(Failure::usage("a new key is named by its backend and its name there")
                .next("write backend/key"))
        }
    }
}

/// The device's identifier as an argument: pairs of hexadecimal digits.
#[derive(Clone, Debug)]
struct KeyId(Vec<u8>);

impl std::str::FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = hex::decode(text).ok().filter(|id| !id.is_empty());
        id.map(Self).ok_or_else(|| "write pairs of hexadecimal digits".to_owned())
    }
}

/// A key as programs read it.
fn object(backend: &BackendName, key: &KeyInfo) -> serde_json::Value {
    json!({
        "reference": format!("{backend}/{}", key.name),
        "type": key.public_key.key_type().name(),
        "algorithms": key.algorithms.iter().map(|a| a.name()).collect::<Vec<_>>(),
        "origin": key.origin.name(),
        "extractable": key.extractable,
        "created": created(key),
        "id": key.id.as_ref().map(hex::encode),
        "address": key.address.as_ref().map(ToString::to_string),
        "fingerprint": format!("{:?}", key.public_key.fingerprint()),
        "public_key": key.public_key.to_pem(),
        "has_certificate": key.certificate.is_some(),
    })
}

fn created(key: &KeyInfo) -> Option<String> {
    key.created.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| utc(d.as_secs()))
}

/// Says what was made, and how to go on.
fn report(verb: &str, backend: &BackendName, key: &KeyInfo, context: &Context) {
    context.result(
        format_args!(
            "{verb} {backend}/{}: {} key SHA256:{}",
            key.name,
            key.public_key.key_type(),
            hex::encode(key.public_key.fingerprint().as_bytes())
        ),
        &object(backend, key),
    );
}
