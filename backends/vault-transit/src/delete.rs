//! Deleting keys and versions.
//!
//! Vault deletes a key only where the key says that it may be (`deletion_allowed`), and versions only from the oldest on,
//! after the least versions for decryption and for encryption and signing were raised above them.

use reqwest::Method;
use serde_json::json;
use signer_core::{Error, ErrorKind, Result};

use crate::{key::Version, signer::Shared};

/// Deletes a key with all its versions.
pub(crate) async fn key(shared: &Shared, name: &str, allow: bool) -> Result<()> {
    // Of a key that is not there Vault says so only in words.
    shared.client.read(&shared.client.path(&format!("keys/{name}"))).await?;
    if allow {
        let config = shared.client.path(&format!("keys/{name}/config"));
        shared.client.set(&config, &json!({ "deletion_allowed": true })).await?;
    }
    let path = shared.client.path(&format!("keys/{name}"));
    shared.client.change(Method::DELETE, &path, None).await.map(drop)
}

/// Deletes one version: the oldest, or the key with it when there is no other.
pub(crate) async fn version(shared: &Shared, name: &str, version: Version, allow: bool) -> Result<()> {
    let all = shared.key(name).await?;
    if !all.versions.contains_key(&version) {
        return Err(Error::new(ErrorKind::NotFound, "there is no such version of the key"));
    }
    if all.versions.len() == 1 {
        return key(shared, name, allow).await;
    }
    if all.versions.keys().next() != Some(&version) {
        return Err(Error::unsupported("delete a version while an older one is there", "Vault")
            .next("delete the older versions first, or the whole key by its name without a version"));
    }
    if !allow {
        return Err(Error::new(ErrorKind::Denied, "this backend does not delete versions of keys")
            .next("set allow_deletion = true for it"));
    }
    let least = version + 1;
    let config = shared.client.path(&format!("keys/{name}/config"));
    let raised = json!({ "min_decryption_version": least, "min_encryption_version": least });
    shared.client.set(&config, &raised).await?;
    let trim = shared.client.path(&format!("keys/{name}/trim"));
    shared.client.set(&trim, &json!({ "min_available_version": least })).await.map(drop)
}
