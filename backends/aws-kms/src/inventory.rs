//! Which keys there are, and what they are called.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use signer_core::{ErrorKind, KeyInfo, KeyPage, ListRequest, Result};

use crate::{
    fault::{self, Asked},
    key::KmsKey,
    name::{ALIAS, is_key_id},
    shared::Shared,
};

/// So many keys are described at once for a list.
const AT_ONCE: usize = 8;
/// The most that the service gives at once.
const KEYS_A_PAGE: i32 = 1000;
const ALIASES_A_PAGE: i32 = 100;

/// One page of keys that sign now, ordered by alias or, for keys without one, by key id.
pub(crate) async fn list(shared: &Shared, request: &ListRequest) -> Result<KeyPage> {
    let mut aliases = BTreeMap::new();
    for (alias, key_id) in self::aliases(shared, None).await? {
        // The first alias is the name; an alias that looks like a key id is none.
        if !is_key_id(&alias[ALIAS.len()..]) {
            aliases.entry(key_id).or_insert(alias);
        }
    }
    let mut wanted: Vec<(String, String)> = key_ids(shared)
        .await?
        .into_iter()
        .map(|id| (aliases.remove(&id).unwrap_or_else(|| id.clone()), id))
        .collect();
    wanted.sort_unstable();
    if let Some(after) = &request.page_token {
        wanted.drain(..wanted.partition_point(|(shown, _)| shown <= after));
    }
    let size = if request.page_size == 0 { 1000 } else { request.page_size };
    let mut keys = stream::iter(wanted)
        .map(|(shown, id)| async move {
            let alias = shown.starts_with(ALIAS).then_some(shown.as_str());
            let info = listed(shared, &id, alias).await;
            (shown, info)
        })
        .buffered(AT_ONCE);
    let mut page = KeyPage::default();
    let mut last = None;
    while let Some((shown, info)) = keys.next().await {
        let Some(info) = info? else { continue };
        if page.keys.len() == size {
            page.next = last;
            break;
        }
        page.keys.push(info);
        last = Some(shown);
    }
    Ok(page)
}

/// What is known of a key for a list; `None` for one that does not sign now, or that these credentials may not see.
async fn listed(shared: &Shared, id: &str, alias: Option<&str>) -> Result<Option<KeyInfo>> {
    let read = async {
        let key = shared.describe(id).await?;
        key.usable()?;
        info(shared, &key, alias).await
    };
    match read.await {
        Ok(info) => Ok(Some(info)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Unsupported) => {
            tracing::debug!(backend = shared.name, key = id, "left out of the list: {e}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// What is known of a key.
pub(crate) async fn info(shared: &Shared, key: &KmsKey, alias: Option<&str>) -> Result<KeyInfo> {
    let public_key = shared.public_key(key).await?;
    key.info(alias, public_key, shared.endpoint().await?)
}

/// All aliases that people have given, or those of one key, with the ids of their keys, in the order of their names.
pub(crate) async fn aliases(shared: &Shared, key_id: Option<&str>) -> Result<Vec<(String, String)>> {
    let asked = Asked { action: "ListAliases", on: key_id.unwrap_or("*"), repeatable: true };
    let mut all = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let answer = shared.client.call(asked, None, |c| {
            c.list_aliases()
                .limit(ALIASES_A_PAGE)
                .set_key_id(key_id.map(str::to_owned))
                .set_marker(marker.clone())
                .send()
        });
        let answer = answer.await?;
        for entry in answer.aliases() {
            let (Some(alias), Some(target)) = (entry.alias_name(), entry.target_key_id()) else { continue };
            if alias.starts_with(ALIAS) && !alias.starts_with("alias/aws/") {
                all.push((alias.to_owned(), target.to_owned()));
            }
        }
        marker = next(answer.truncated(), answer.next_marker(), marker.as_deref())?;
        if marker.is_none() {
            all.sort_unstable();
            return Ok(all);
        }
    }
}

async fn key_ids(shared: &Shared) -> Result<Vec<String>> {
    let asked = Asked { action: "ListKeys", on: "*", repeatable: true };
    let mut all = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let answer = shared
            .client
            .call(asked, None, |c| c.list_keys().limit(KEYS_A_PAGE).set_marker(marker.clone()).send());
        let answer = answer.await?;
        all.extend(answer.keys().iter().filter_map(|k| k.key_id().map(str::to_owned)));
        marker = next(answer.truncated(), answer.next_marker(), marker.as_deref())?;
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// Where the service's list goes on.
fn next(truncated: bool, marker: Option<&str>, before: Option<&str>) -> Result<Option<String>> {
    match (truncated, marker) {
        (false, _) => Ok(None),
        (true, Some(marker)) if Some(marker) != before => Ok(Some(marker.to_owned())),
        (true, _) => Err(fault::of_lie("AWS KMS says that its list goes on, but not where")),
    }
}
