//! Aliases: names that point at keys.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ACCOUNT, Aws, Exception, Request, exception, marker_of, page, read_marker, validation};
use crate::clock;

/// Aliases by their name, `alias/…`.
pub(super) type Aliases = BTreeMap<String, Alias>;

pub(super) struct Alias {
    pub(super) target: String,
    created: f64,
    updated: f64,
}

/// `alias/` and up to 250 letters, digits, `/`, `_` and `-`.
fn name(request: &Request) -> Result<&str, Exception> {
    let name = request.required("AliasName")?;
    let rest = name.strip_prefix("alias/").ok_or_else(|| {
        validation("Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com")
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
    if rest.is_empty() || name.len() > 256 || !rest.chars().all(plain) {
        return Err(exception("InvalidAliasNameException", "Alias contains invalid characters for KMS"));
    }
    if rest.starts_with("aws/") {
        return Err(exception("NotAuthorizedException", "Aliases under alias/aws/ are reserved"));
    }
    Ok(name)
}

/// Checks the target: a key by its id or ARN that is not pending deletion.
fn target(aws: &Aws, request: &Request) -> Result<String, Exception> {
    let target = request.required("TargetKeyId")?;
    if target.contains("alias/") {
        return Err(validation("Aliases must refer to keys. Not aliases"));
    }
    let state = aws.state();
    let key = state.find(target)?;
    match key.state {
        super::keys::KeyState::PendingDeletion(_) => key.must_be_enabled()?,
        _ => {}
    }
    Ok(key.id.clone())
}

pub(super) fn create(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let (name, target) = (name(request)?, target(aws, request)?);
    let mut state = aws.state();
    if state.aliases.contains_key(name) {
        let arn = format!("arn:aws:kms:us-east-1:{ACCOUNT}:{name}");
        return Err(exception(
            "AlreadyExistsException",
            format!("An alias with the name {arn} already exists"),
        ));
    }
    let now = clock::now_fraction();
    state.aliases.insert(name.to_owned(), Alias { target, created: now, updated: now });
    Ok(json!({}))
}

pub(super) fn update(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let (name, target) = (name(request)?, target(aws, request)?);
    let mut state = aws.state();
    let alias = state.aliases.get_mut(name).ok_or_else(|| not_found(name))?;
    (alias.target, alias.updated) = (target, clock::now_fraction());
    Ok(json!({}))
}

pub(super) fn delete(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let name = name(request)?;
    aws.state().aliases.remove(name).map(|_| json!({})).ok_or_else(|| not_found(name))
}

pub(super) fn list(aws: &Aws, region: &str, request: &Request) -> Result<Value, Exception> {
    let limit = request.number("Limit", 1, 100, 50)?;
    let marker = read_marker(request)?;
    let state = aws.state();
    let only = match request.text("KeyId")? {
        Some(key_id) => Some(state.find(key_id)?.id.clone()),
        None => None,
    };
    let all = state.aliases.iter().filter(|(_, a)| only.as_ref().is_none_or(|id| *id == a.target)).map(
        |(name, alias)| {
            let arn = format!("arn:aws:kms:{region}:{ACCOUNT}:{name}");
            let item = json!({
                "AliasName": name, "AliasArn": arn, "TargetKeyId": alias.target,
                "CreationDate": alias.created, "LastUpdatedDate": alias.updated,
            });
            (name.clone(), item)
        },
    );
    let (aliases, next) = page(all, marker.as_deref(), limit);
    let mut answer = json!({"Aliases": aliases, "Truncated": next.is_some()});
    if let Some(id) = next {
        answer["NextMarker"] = json!(marker_of(&id));
    }
    Ok(answer)
}

fn not_found(name: &str) -> Exception {
    let arn = format!("arn:aws:kms:us-east-1:{ACCOUNT}:{name}");
    exception("NotFoundException", format!("Alias {arn} is not found."))
}
