//! Making keys.
//!
//! The service makes a key first and names it then, so two things can fail. A key that could not be named is scheduled for
//! deletion again.

use aws_sdk_kms::types::KeyUsageType;
use signer_core::{Error, ErrorKind, GenerateRequest, KeyInfo, Result};

use crate::{
    delete,
    fault::{self, Asked},
    inventory,
    key::{KmsKey, key_spec},
    name,
    shared::Shared,
};

/// Makes a key under a name that nobody has. The caller sees to it that this is done for one key at a time.
pub(crate) async fn generate(shared: &Shared, request: GenerateRequest) -> Result<KeyInfo> {
    let GenerateRequest { name, key_type, id, policy } = request;
    policy.none(&shared.name)?;
    if id.is_some() {
        return Err(Error::bad_request("AWS KMS chooses the identifiers of its keys itself")
            .next("leave the identifier out"));
    }
    if name.version().is_some() {
        return Err(
            Error::bad_request("keys in AWS KMS have no versions").next("leave out the @ and what follows")
        );
    }
    let label = name.as_label().filter(|l| !name::is_key_id(l)).ok_or_else(|| {
        Error::bad_request("a new key in AWS KMS is named by a label, not by an identifier")
            .next("choose a name that becomes an alias, as release becomes alias/release")
    })?;
    if !shared.lacks.rest().contains(&key_type) {
        return Err(Error::unsupported(format_args!("make {key_type} keys"), "this region of AWS KMS"));
    }
    let alias = name::alias_of(label);
    if is_taken(shared, &alias).await? {
        return Err(taken());
    }
    // Two requests would make two keys: there is no second try.
    let asked = Asked { action: "CreateKey", on: "*", repeatable: false };
    let made = shared.client.call(asked, None, |c| {
        c.create_key()
            .key_spec(key_spec(key_type))
            .key_usage(KeyUsageType::SignVerify)
            .description(name::description_of(&name))
            .send()
    });
    let made = made.await?;
    let data =
        made.key_metadata().ok_or_else(|| fault::of_lie("AWS KMS made a key and does not describe it"))?;
    let uncertain = |e: Error| e.may_have_happened();
    let key = KmsKey::read(data, &shared.lacks).map_err(uncertain)?;
    let key = key.ok_or_else(|| uncertain(fault::of_lie("AWS KMS made a key of another kind")))?;
    let asked = Asked { action: "CreateAlias", on: &alias, repeatable: true };
    let named = shared
        .client
        .call(asked, None, |c| c.create_alias().alias_name(&alias).target_key_id(&key.id).send());
    if let Err(error) = named.await
        && !is_ours(shared, &alias, &key, &error).await
    {
        return Err(match delete::schedule(shared, &key.id).await {
            Ok(()) => error,
            Err(left) => {
                tracing::warn!(backend = shared.name, key = key.id, "a key without a name is left: {left}");
                uncertain(error)
            }
        });
    }
    shared.made(&alias);
    // By its alias, which may take a moment to be known everywhere.
    shared.describe(&alias).await.map_err(uncertain)?;
    inventory::info(shared, &key, Some(&alias)).await.map_err(uncertain)
}

async fn is_taken(shared: &Shared, alias: &str) -> Result<bool> {
    let asked = Asked { action: "DescribeKey", on: alias, repeatable: true };
    match shared.client.call(asked, None, |c| c.describe_key().key_id(alias).send()).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        // What may not be looked at may still be made: the alias is refused if there is one.
        Err(e) if e.kind() == ErrorKind::Denied => Ok(false),
        Err(e) => Err(e),
    }
}

/// A repeated request is told that the alias exists, although it is the one that the first request made.
async fn is_ours(shared: &Shared, alias: &str, key: &KmsKey, error: &Error) -> bool {
    error.kind() == ErrorKind::AlreadyExists
        && shared.describe(alias).await.is_ok_and(|found| found.id == key.id)
}

fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a key of that name already")
        .next("choose another name; keys in AWS KMS are not rotated, a new key gets a new name")
}
