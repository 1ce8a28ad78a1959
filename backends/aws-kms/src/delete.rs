//! Deleting keys: the service only schedules it, so that a mistake can be undone for some days.

use signer_core::{Error, ErrorKind, Result};

use crate::{fault::Asked, inventory, shared::Shared};

/// Days until a scheduled key is gone.
const WINDOW: u8 = 30;

/// The configured window, which the service limits.
pub(crate) fn window(days: Option<u8>) -> Result<u8> {
    match days.unwrap_or(WINDOW) {
        days @ 7..=30 => Ok(days),
        days => {
            Err(Error::bad_request(format!("deletion_window_days is {days}"))
                .next("AWS KMS takes 7 to 30 days"))
        }
    }
}

/// Schedules a key for deletion, and frees its names.
pub(crate) async fn key(shared: &Shared, asked_for: &str) -> Result<()> {
    let key = shared.describe(asked_for).await?;
    let aliases = match inventory::aliases(shared, Some(&key.id)).await {
        Ok(aliases) => aliases.into_iter().map(|(alias, _)| alias).collect(),
        Err(e) if e.kind() == ErrorKind::Denied && asked_for.starts_with("alias/") => {
            vec![asked_for.to_owned()]
        }
        Err(e) if e.kind() == ErrorKind::Denied => Vec::new(),
        Err(e) => return Err(e),
    };
    let scheduled = match key.usable() {
        // Scheduled before, but a name is left: it goes now.
        Err(e) if e.kind() == ErrorKind::NotFound && !aliases.is_empty() => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(e),
        _ => schedule(shared, &key.id).await,
    };
    scheduled?;
    shared.deleted(&key.id, &aliases);
    for alias in &aliases {
        let asked = Asked { action: "DeleteAlias", on: alias, repeatable: true };
        match shared.client.call(asked, None, |c| c.delete_alias().alias_name(alias).send()).await {
            Ok(_) => {}
            // A second try finds what the first one did.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                return Err(e.may_have_happened().next(format!(
                    "the key is scheduled for deletion, but its name is left: aws kms delete-alias --alias-name {alias}"
                )));
            }
        }
    }
    Ok(())
}

/// Schedules a key for deletion.
pub(crate) async fn schedule(shared: &Shared, key_id: &str) -> Result<()> {
    let asked = Asked { action: "ScheduleKeyDeletion", on: key_id, repeatable: true };
    let days = window(shared.client.config().deletion_window_days)?;
    let call = shared.client.call(asked, None, |c| {
        c.schedule_key_deletion().key_id(key_id).pending_window_in_days(days.into()).send()
    });
    match call.await {
        Ok(_) => Ok(()),
        // A second try finds what the first one did.
        Err(e) if e.what().contains("scheduled for deletion") => Ok(()),
        Err(e) => Err(e),
    }
}
