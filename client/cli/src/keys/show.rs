//! `signer keys show`

use clap::Args;
use signerd_api::KeyDescription;

use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
    status,
};

/// Show everything that is known of a key
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys show hsm/release
  signer keys show release          with every place that holds it, where there are several
  signer keys show hsm/release --pem > release.pem     the public key, for openssl and cosign")]
pub(super) struct Show {
    /// The key
    #[arg(value_name = "REF")]
    key: Reference,
    /// Print the public key only, as PEM
    #[arg(long)]
    pem: bool,
}

impl Show {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let found = context.client().describe(&self.key.get()?.to_string()).await?;
        let mut object = super::object(&found.backend, &found.info);
        object["reference"] = found.reference.clone().into();
        if let Some(several) = &found.several {
            let several = status::named_key(several);
            object["order"] = several["order"].clone();
            object["members"] = several["members"].clone();
        }
        if self.pem {
            context.answer(found.info.public_key.to_pem(), &object);
        } else {
            context.answer(text(&found), &object);
        }
        Ok(Exit::Done)
    }
}

fn text(found: &KeyDescription) -> String {
    let key = &found.info;
    let algorithms: Vec<_> = key.algorithms.iter().map(|a| a.name()).collect();
    let extractable = key.extractable.map_or("unknown", |e| if e { "yes" } else { "no" });
    let mut lines = vec![
        ("key", found.reference.clone()),
        ("type", key.public_key.key_type().to_string()),
        ("signs with", algorithms.join(", ")),
        ("origin", key.origin.name().to_owned()),
        ("can leave the device", extractable.to_owned()),
    ];
    let mut optional = |name, value: Option<String>| lines.extend(value.map(|v| (name, v)));
    optional("the device demands", super::demands(&key.policy));
    optional("created", super::created(key));
    optional("id", key.id.as_ref().map(hex::encode));
    optional("address", key.address.as_ref().map(ToString::to_string));
    optional("certificate", key.certificate.as_ref().map(|c| format!("{} bytes", c.len())));
    if let Some(several) = &found.several {
        optional("members are asked", Some(several.order.clone()));
        for member in &several.members {
            optional("member", Some(format!("{}  {}", member.reference, status::state(member))));
        }
    }
    optional("SHA-256 of public key", Some(hex::encode(key.public_key.fingerprint().as_bytes())));
    let lines: Vec<_> = lines.into_iter().map(|(name, value)| format!("{name:22}  {value}\n")).collect();
    lines.concat() + "\n" + &key.public_key.to_pem()
}
