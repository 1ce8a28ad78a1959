//! `signer status`: whether the daemon and its backends work.

use clap::Args;
use serde_json::json;
use signerd_api::{AuditStatus, BackendStatus, Client, MemberStatus, NamedKey};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    context::Context,
    failure::{Exit, Failure, error_json},
    table,
};

/// Say whether the daemon and its backends work
///
/// Also shows the keys that several places hold, and how each of these is.
///
/// Exits with 0 when all is well, 1 when a backend or such a key is down or nothing can be recorded, 3 when the daemon
/// cannot be reached.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer status
  signer status --output json | jq '.backends[] | select(.healthy | not)'")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client();
        let (backends, audit) = client.status().await?;
        let keys = client.named_keys().await?;
        let serving = serving(&client).await?;
        let healthy = backends.iter().all(|b| b.health.is_none())
            && keys.iter().all(NamedKey::is_usable)
            && audit.as_ref().is_none_or(|audit| audit.health.is_none());
        context.answer(
            text(&client, serving, &backends, audit.as_ref()) + &members_text(&keys),
            &json!({
                "socket": client.socket(),
                "serving": serving,
                "backends": backends.iter().map(object).collect::<Vec<_>>(),
                "keys": keys.iter().map(named_key).collect::<Vec<_>>(),
                "audit": audit.as_ref().map(audit_object),
            }),
        );
        Ok(if healthy && serving { Exit::Done } else { Exit::Failed })
    }
}

/// What the standard health service says of the daemon as a whole.
async fn serving(client: &Client) -> Result<bool, Failure> {
    let mut health = client.service(HealthClient::with_origin);
    let answer = health.check(HealthCheckRequest { service: String::new() }).await;
    let answer = answer.map_err(|s| signerd_api::error_from_status(&s))?;
    Ok(answer.into_inner().status == ServingStatus::Serving as i32)
}

fn text(client: &Client, serving: bool, backends: &[BackendStatus], audit: Option<&AuditStatus>) -> String {
    let state = if serving { "serving" } else { "not serving" };
    let mut text = format!("signerd at {}: {state}\n", client.socket().display());
    if let Some(audit) = audit {
        let health = audit.health.as_ref().map_or_else(|| "ok".to_owned(), |e| format!("DOWN: {e}"));
        let (records, directory) = (audit.records, audit.directory.display());
        let line = format!("audit log {} in {directory}: {records} records, {health}\n", audit.origin);
        text.push_str(&line);
    }
    if backends.is_empty() {
        text.push_str("there is no backend that you may use\n");
        return text;
    }
    let rows: Vec<_> = backends
        .iter()
        .map(|b| {
            let health = b.health.as_ref().map_or_else(|| "ok".to_owned(), |e| format!("DOWN: {e}"));
            [b.name.to_string(), b.info.kind.clone(), b.info.device.clone(), health]
        })
        .collect();
    text.push_str(&table::layout(["BACKEND", "KIND", "DEVICE", "HEALTH"], &rows));
    text
}

/// The keys that several places hold, a line for each place.
fn members_text(keys: &[NamedKey]) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for key in keys {
        for (at, member) in key.members.iter().enumerate() {
            let name = if at == 0 { key.name.clone() } else { String::new() };
            let order = if at == 0 { key.order.clone() } else { String::new() };
            rows.push([name, order, member.reference.clone(), state(member)]);
        }
    }
    format!("\n{}", table::layout(["KEY", "ORDER", "MEMBER", "STATE"], &rows))
}

/// How a member is, in words.
pub(crate) fn state(member: &MemberStatus) -> String {
    let word = if member.state == "ok" { "ok".to_owned() } else { member.state.to_uppercase() };
    member.error.as_ref().map_or(word.clone(), |e| format!("{word}: {e}"))
}

/// A key that several places hold, as programs read it.
pub(crate) fn named_key(key: &NamedKey) -> serde_json::Value {
    let members = key.members.iter().map(|m| {
        json!({
            "reference": m.reference,
            "state": m.state,
            "error": m.error.as_ref().map(error_json),
        })
    });
    json!({
        "name": key.name,
        "order": key.order,
        "usable": key.is_usable(),
        "members": members.collect::<Vec<_>>(),
    })
}

fn audit_object(audit: &AuditStatus) -> serde_json::Value {
    json!({
        "directory": audit.directory,
        "origin": audit.origin,
        "records": audit.records,
        "signed": audit.signed,
        "healthy": audit.health.is_none(),
        "error": audit.health.as_ref().map(error_json),
    })
}

fn object(backend: &BackendStatus) -> serde_json::Value {
    json!({
        "name": backend.name.as_str(),
        "kind": backend.info.kind,
        "device": backend.info.device,
        "model": backend.info.model,
        "firmware": backend.info.firmware,
        "serial": backend.info.serial,
        "abilities": backend.abilities.iter().map(|a| a.name()).collect::<Vec<_>>(),
        "generates": backend.info.generates.iter().map(|t| t.name()).collect::<Vec<_>>(),
        "imports": backend.info.imports.iter().map(|t| t.name()).collect::<Vec<_>>(),
        "max_message": backend.info.max_message,
        "healthy": backend.health.is_none(),
        "error": backend.health.as_ref().map(error_json),
    })
}
