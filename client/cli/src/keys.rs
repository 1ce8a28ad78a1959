//! `signer keys …`: what keys there are, and making, taking in and destroying them.

use std::{path::PathBuf, time::UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;
use signer_core::{
    BackendName, KeyInfo, KeyName, KeyPolicy, KeyRef, PcrSelection, PinPolicy, TouchPolicy, utc,
};

use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::{self, Reference},
};

mod attest;
mod certificate;
mod create;
mod delete;
mod import;
mod list;
mod lock;
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
    Attest(attest::Attest),
    Unlock(unlock::Unlock),
    Lock(lock::Lock),
}

impl Keys {
    /// Whether it asks for a PIN by itself, or never needs one.
    pub(crate) fn asks_itself(&self) -> bool {
        matches!(self.command, Command::Unlock(_) | Command::Lock(_) | Command::List(_))
    }

    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match &self.command {
            Command::List(command) => command.run(context).await,
            Command::Show(command) => command.run(context).await,
            Command::Create(command) => command.run(context).await,
            Command::Import(command) => command.run(context).await,
            Command::Delete(command) => command.run(context).await,
            Command::Rotate(command) => command.run(context).await,
            Command::Certificate(command) => command.run(context).await,
            Command::Attest(command) => command.run(context).await,
            Command::Unlock(command) => command.run(context).await,
            Command::Lock(command) => command.run(context).await,
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

/// What the device shall demand before a new key signs.
#[derive(Args, Debug)]
#[command(next_help_heading = "What the device demands, where it can")]
struct Demands {
    /// When it wants the PIN: never, once or always
    #[arg(long, value_name = "WHEN")]
    pin_policy: Option<PinPolicy>,
    /// When it wants to be touched: never, cached (for 15 seconds) or always
    #[arg(long, value_name = "WHEN")]
    touch_policy: Option<TouchPolicy>,
    /// Platform configuration registers of a TPM that must have the values of now: 0,2,7
    #[arg(long, value_name = "NUMBERS")]
    pcrs: Option<PcrSelection>,
    /// The public key (PEM) of who may approve other values of these registers later, so that the key survives an update
    /// of the firmware
    #[arg(long, value_name = "FILE", requires = "pcrs")]
    pcr_authority: Option<PathBuf>,
}

impl Demands {
    fn policy(&self) -> Result<KeyPolicy, Failure> {
        Ok(KeyPolicy {
            pin: self.pin_policy,
            touch: self.touch_policy,
            pcrs: self.pcrs,
            pcr_authority: self.pcr_authority.as_deref().map(key_argument::read).transpose()?,
        })
    }
}

/// What a device demands, in words; `None` when it says nothing.
fn demands(policy: &KeyPolicy) -> Option<String> {
    let words: Vec<_> = [
        policy.pin.map(|p| format!("PIN {p}")),
        policy.touch.map(|t| format!("touch {t}")),
        policy.pcrs.map(|p| format!("PCRs {p} unchanged")),
        policy.pcr_authority.as_ref().map(|k| format!("or approved by the holder of {:?}", k.fingerprint())),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!words.is_empty()).then(|| words.join(", "))
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
        "pin_policy": key.policy.pin.map(PinPolicy::name),
        "touch_policy": key.policy.touch.map(TouchPolicy::name),
        "pcrs": key.policy.pcrs.map(|p| p.registers().collect::<Vec<_>>()),
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
