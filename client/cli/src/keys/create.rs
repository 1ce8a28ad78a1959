//! `signer keys create`

use clap::Args;
use signer_core::{GenerateRequest, KeyType};

use super::{Demands, KeyId, new_key, report};
use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Make a key inside a device
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys create soft/release
  signer keys create hsm/root --type ecdsa-p384 --id 0a01
  signer keys create yubikey/9c --pin-policy once --touch-policy always")]
pub(super) struct Create {
    /// Its name: backend/key
    #[arg(value_name = "REF")]
    key: Reference,
    /// Its kind: ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072, rsa-4096, ed25519, ml-dsa-44, ml-dsa-65 or
    /// ml-dsa-87, as far as the device has it
    #[arg(short, long = "type", value_name = "TYPE", default_value = "ecdsa-p256")]
    key_type: KeyType,
    /// The device's own identifier for it (CKA_ID), hexadecimal
    #[arg(long, value_name = "HEX")]
    id: Option<KeyId>,
    #[command(flatten)]
    demands: Demands,
}

impl Create {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let (backend, name) = new_key(&self.key)?;
        let request = GenerateRequest {
            name,
            key_type: self.key_type,
            id: self.id.clone().map(|id| id.0),
            policy: self.demands.policy()?,
        };
        let key = context.client().create(&backend, request).await?;
        report("created", &backend, &key, context);
        Ok(Exit::Done)
    }
}
