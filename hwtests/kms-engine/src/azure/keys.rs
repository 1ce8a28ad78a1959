//! Keys, their versions, and keys that are deleted.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signer_core::{KeyType, PublicKey};

use super::{Azure, Problem, Request, bad_parameter, disabled, problem};
use crate::{clock, engine::Shared, fault::FaultKind, material::Material};

/// Keys by their name in lower case: a vault does not tell cases apart.
#[derive(Default)]
pub(super) struct Vault {
    keys: BTreeMap<String, Key>,
    deleted: BTreeMap<String, (Key, u64)>,
}

#[derive(Clone)]
struct Key {
    name: String,
    /// The oldest first.
    versions: Vec<Version>,
}

/// One version of a key.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) material: Arc<Material>,
    pub(super) enabled: bool,
    /// `EC`, `RSA-HSM`, …
    kty: String,
    ops: Vec<String>,
    tags: Value,
    created: u64,
    updated: u64,
}

const CURVES: [(&str, KeyType); 3] =
    [("P-256", KeyType::EcdsaP256), ("P-384", KeyType::EcdsaP384), ("P-521", KeyType::EcdsaP521)];

const OPERATIONS: [&str; 8] =
    ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

/// How long a deleted key can be brought back: 90 days.
const RECOVERABLE: u64 = 90 * 24 * 3600;

/// `^[0-9a-zA-Z-]{1,127}$`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

pub(super) fn not_found(name: &str) -> Problem {
    let text = format!(
        "A key with (name/id) {name} was not found in this key vault. If you recently deleted this key you may be able to \
         recover it using the correct recovery command."
    );
    problem(404, "KeyNotFound", text)
}

impl Vault {
    fn key(&self, name: &str) -> Result<&Key, Problem> {
        self.keys.get(&name.to_lowercase()).ok_or_else(|| not_found(name))
    }

    /// A version of a key; the newest where none is named.
    pub(super) fn version(&self, name: &str, version: Option<&str>) -> Result<(String, Version), Problem> {
        let key = self.key(name)?;
        let found = match version {
            Some(id) => key.versions.iter().find(|v| v.id == id),
            None => key.versions.last(),
        };
        let found = found.ok_or_else(|| not_found(&format!("{name}/{}", version.unwrap_or_default())))?;
        Ok((key.name.clone(), found.clone()))
    }

    pub(super) fn set_enabled(&mut self, name: &str, version: Option<&str>, enabled: bool) -> bool {
        let versions = self.keys.get_mut(&name.to_lowercase()).map_or(&mut [][..], |k| &mut k.versions[..]);
        let mut any = false;
        for found in versions.iter_mut().filter(|v| version.is_none_or(|id| id == v.id)) {
            (found.enabled, any) = (enabled, true);
        }
        any
    }

    fn must_not_be_deleted(&self, name: &str) -> Result<(), Problem> {
        if !self.deleted.contains_key(&name.to_lowercase()) {
            return Ok(());
        }
        let text = format!(
            "Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the \
             key can only be recovered or purged."
        );
        Err(problem(409, "Conflict", text).inner("ObjectIsDeletedButRecoverable"))
    }

    fn add(&mut self, name: &str, version: Version) -> (String, Version) {
        let key = self
            .keys
            .entry(name.to_lowercase())
            .or_insert_with(|| Key { name: name.to_owned(), versions: Vec::new() });
        key.versions.push(version.clone());
        (key.name.clone(), version)
    }
}

impl Version {
    fn new(material: Material, kty: &str, ops: Vec<String>, tags: Value, enabled: bool) -> Self {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).expect("the system has randomness");
        let now = clock::now();
        let (id, material, kty) = (hex::encode(id), Arc::new(material), kty.to_owned());
        Self { id, material, enabled, kty, ops, tags, created: now, updated: now }
    }

    fn attributes(&self) -> Value {
        json!({
            "enabled": self.enabled, "created": self.created, "updated": self.updated, "exportable": false,
            "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90, "hsmPlatform": "2",
        })
    }

    /// `KeyBundle`.
    fn show(&self, vault: &str, name: &str, public: &PublicKey) -> Value {
        let mut key = json!({
            "kid": format!("{vault}/keys/{name}/{}", self.id), "kty": self.kty, "key_ops": self.ops,
        });
        let encode = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
        if let Some((curve, key_type)) = CURVES.iter().find(|(_, t)| *t == public.key_type()) {
            let len = key_type.ecdsa_field_len().unwrap_or_default();
            let point = &public.key_bytes()[1..];
            key["crv"] = json!(curve);
            key["x"] = encode(&point[..len]);
            key["y"] = encode(&point[len..]);
        } else if let Some((modulus, exponent)) = rsa_numbers(public.key_bytes()) {
            key["n"] = encode(&modulus);
            key["e"] = encode(&exponent);
        }
        json!({"key": key, "attributes": self.attributes(), "tags": self.tags})
    }

    /// `KeyItem`.
    fn item(&self, id: &str) -> Value {
        json!({"kid": id, "attributes": self.attributes(), "tags": self.tags})
    }

    pub(super) fn allows(&self, operation: &str) -> Result<(), Problem> {
        if !self.enabled {
            return Err(disabled(operation));
        }
        if !self.ops.iter().any(|o| o == operation) {
            let text = format!("Operation {operation} is not permitted on this key.");
            return Err(problem(403, "Forbidden", text).inner("KeyOperationForbidden"));
        }
        Ok(())
    }
}

/// Modulus and exponent of a DER `RSAPublicKey`.
fn rsa_numbers(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    use pkcs8::der::{Decode, Reader, Result, SliceReader, asn1::UintRef};
    let mut reader = SliceReader::new(der).ok()?;
    let numbers: Result<_> = reader.sequence(|inner| {
        Ok((UintRef::decode(inner)?.as_bytes().to_vec(), UintRef::decode(inner)?.as_bytes().to_vec()))
    });
    numbers.ok()
}

pub(super) async fn create(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let body = &request.body;
    let kty = body["kty"].as_str().unwrap_or_default();
    let key_type = match (kty, &body["crv"], &body["key_size"]) {
        ("EC" | "EC-HSM", Value::Null, Value::Null) => KeyType::EcdsaP256,
        ("EC" | "EC-HSM", curve, Value::Null) => {
            let found = CURVES.iter().find(|(name, _)| curve == name).map(|(_, t)| *t);
            found.ok_or_else(|| bad_parameter(format!("Property  has invalid value\r\ncrv: {curve}")))?
        }
        ("RSA" | "RSA-HSM", Value::Null, Value::Null) => KeyType::Rsa2048,
        ("RSA" | "RSA-HSM", Value::Null, size) => {
            let found = size.as_u64().and_then(|n| KeyType::from_rsa_bits(usize::try_from(n).ok()?));
            found.ok_or_else(|| bad_parameter(format!("Key size {size} is not supported")))?
        }
        _ => return Err(bad_parameter(format!("Property  has invalid value\r\nkty: {kty}"))),
    };
    let ops = match &body["key_ops"] {
        Value::Null => vec!["sign".to_owned(), "verify".to_owned()],
        ops => serde_json::from_value::<Vec<String>>(ops.clone())
            .ok()
            .filter(|ops| ops.iter().all(|o| OPERATIONS.contains(&o.as_str())))
            .ok_or_else(|| bad_parameter("Property key_ops has invalid value"))?,
    };
    let enabled = body["attributes"]["enabled"].as_bool().unwrap_or(true);
    let tags = body["tags"].as_object().map_or(json!({}), |t| json!(t));
    azure.vault().must_not_be_deleted(request.name)?;
    let material = Material::generate_aside(key_type).await;
    let version = Version::new(material, kty, ops, tags, enabled);
    let mut vault = azure.vault();
    vault.must_not_be_deleted(request.name)?;
    let (name, version) = vault.add(request.name, version);
    Ok(version.show(&request.vault(), &name, version.material.public()))
}

pub(super) async fn rotate(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let (_, newest) = azure.vault().version(request.name, None)?;
    let material = Material::generate_aside(newest.material.key_type()).await;
    let version = Version::new(material, &newest.kty, newest.ops, newest.tags, true);
    let mut vault = azure.vault();
    vault.key(request.name)?;
    let (name, version) = vault.add(request.name, version);
    Ok(version.show(&request.vault(), &name, version.material.public()))
}

pub(super) fn get(shared: &Shared, request: &Request<'_>) -> Result<Value, Problem> {
    let (name, mut version) = shared.azure.vault().version(request.name, request.version)?;
    let material = match request.call.twist {
        Some(FaultKind::ChangedKey) => shared.stranger(version.material.key_type()),
        _ => version.material.clone(),
    };
    if request.call.twist == Some(FaultKind::WrongVersion) {
        version.id = "4711".repeat(8);
    }
    Ok(version.show(&request.vault(), &name, material.public()))
}

pub(super) fn update(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let mut vault = azure.vault();
    let (name, version) = vault.version(request.name, request.version)?;
    if let Some(enabled) = request.body["attributes"]["enabled"].as_bool() {
        vault.set_enabled(&name, Some(&version.id), enabled);
    }
    let (name, version) = vault.version(request.name, Some(&version.id))?;
    Ok(version.show(&request.vault(), &name, version.material.public()))
}

pub(super) fn list(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let (vault, base) = (azure.vault(), request.vault());
    let all = vault.keys.iter().filter_map(|(lower, key)| {
        Some((lower.clone(), key.versions.last()?.item(&format!("{base}/keys/{}", key.name))))
    });
    request.page("keys", all.collect())
}

/// In the order of their identifiers, which are random.
pub(super) fn list_versions(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let (vault, base) = (azure.vault(), request.vault());
    let key = vault.key(request.name)?;
    let item = |v: &Version| (v.id.clone(), v.item(&format!("{base}/keys/{}/{}", key.name, v.id)));
    let mut all: Vec<_> = key.versions.iter().map(item).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    request.page(&format!("keys/{}/versions", key.name), all)
}

pub(super) fn delete(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let mut vault = azure.vault();
    let lower = request.name.to_lowercase();
    let key = vault.keys.remove(&lower).ok_or_else(|| not_found(request.name))?;
    let shown = show_deleted(&key, request, clock::now());
    vault.deleted.insert(lower, (key, clock::now()));
    Ok(shown)
}

/// `DeletedKeyBundle`.
fn show_deleted(key: &Key, request: &Request<'_>, when: u64) -> Value {
    let bundle = |v: &Version| v.show(&request.vault(), &key.name, v.material.public());
    with_deletion(key.versions.last().map_or(json!({}), bundle), key, request, when)
}

fn with_deletion(mut shown: Value, key: &Key, request: &Request<'_>, when: u64) -> Value {
    shown["recoveryId"] = json!(format!("{}/deletedkeys/{}", request.vault(), key.name));
    shown["deletedDate"] = json!(when);
    shown["scheduledPurgeDate"] = json!(when + RECOVERABLE);
    shown
}

pub(super) fn list_deleted(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let vault = azure.vault();
    // `DeletedKeyItem`.
    let all = vault.deleted.iter().filter_map(|(lower, (key, when))| {
        let item = key.versions.last()?.item(&format!("{}/keys/{}", request.vault(), key.name));
        Some((lower.clone(), with_deletion(item, key, request, *when)))
    });
    request.page("deletedkeys", all.collect())
}

pub(super) fn get_deleted(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let vault = azure.vault();
    let (key, when) =
        vault.deleted.get(&request.name.to_lowercase()).ok_or_else(|| not_found(request.name))?;
    Ok(show_deleted(key, request, *when))
}

pub(super) fn purge(azure: &Azure, request: &Request<'_>) -> Result<(), Problem> {
    azure
        .vault()
        .deleted
        .remove(&request.name.to_lowercase())
        .map(drop)
        .ok_or_else(|| not_found(request.name))
}

pub(super) fn recover(azure: &Azure, request: &Request<'_>) -> Result<Value, Problem> {
    let mut vault = azure.vault();
    let lower = request.name.to_lowercase();
    let (key, _) = vault.deleted.remove(&lower).ok_or_else(|| not_found(request.name))?;
    vault.keys.insert(lower, key);
    let (name, version) = vault.version(request.name, None)?;
    Ok(version.show(&request.vault(), &name, version.material.public()))
}
