//! Keys and their life.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use signer_core::KeyType;

use super::{
    ACCOUNT, Aws, Exception, Request, State, exception, marker_of, page, read_marker, signing, validation,
};
use crate::{clock, material::Material};

/// Keys by their id.
pub(super) type Keys = BTreeMap<String, Key>;

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) arn: String,
    pub(super) spec: &'static str,
    pub(super) material: Arc<Material>,
    pub(super) state: KeyState,
    created: f64,
    description: String,
    tags: BTreeMap<String, String>,
}

/// Where a key is in its life.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum KeyState {
    Enabled,
    Disabled,
    /// Destroyed at that time.
    PendingDeletion(u64),
}

/// Every key spec for signing, and what it is here.
const SPECS: [(&str, KeyType); 10] = [
    ("RSA_2048", KeyType::Rsa2048),
    ("RSA_3072", KeyType::Rsa3072),
    ("RSA_4096", KeyType::Rsa4096),
    ("ECC_NIST_P256", KeyType::EcdsaP256),
    ("ECC_NIST_P384", KeyType::EcdsaP384),
    ("ECC_NIST_P521", KeyType::EcdsaP521),
    ("ECC_NIST_EDWARDS25519", KeyType::Ed25519),
    ("ML_DSA_44", KeyType::MlDsa44),
    ("ML_DSA_65", KeyType::MlDsa65),
    ("ML_DSA_87", KeyType::MlDsa87),
];

const OTHER_SPECS: [&str; 7] =
    ["SYMMETRIC_DEFAULT", "ECC_SECG_P256K1", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "SM2"];

const USAGES: [&str; 4] = ["SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"];

impl Key {
    /// `KeyMetadata`.
    fn metadata(&self) -> Value {
        let (state, deletion) = match self.state {
            KeyState::Enabled => ("Enabled", None),
            KeyState::Disabled => ("Disabled", None),
            KeyState::PendingDeletion(at) => ("PendingDeletion", Some(at)),
        };
        let mut metadata = json!({
            "AWSAccountId": ACCOUNT,
            "KeyId": self.id,
            "Arn": self.arn,
            "CreationDate": self.created,
            "Enabled": self.state == KeyState::Enabled,
            "Description": self.description,
            "KeyUsage": "SIGN_VERIFY",
            "KeyState": state,
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": self.spec,
            "KeySpec": self.spec,
            "SigningAlgorithms": signing::algorithms(self.material.key_type()),
            "MultiRegion": false,
        });
        if let Some(at) = deletion {
            metadata["DeletionDate"] = json!(at);
        }
        metadata
    }

    /// Refuses unless the key is enabled.
    pub(super) fn must_be_enabled(&self) -> Result<(), Exception> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(exception("DisabledException", format!("{} is disabled.", self.arn))),
            KeyState::PendingDeletion(_) => Err(self.pending()),
        }
    }

    fn pending(&self) -> Exception {
        exception("KMSInvalidStateException", format!("{} is pending deletion.", self.arn))
    }

    fn must_not_be_pending(&self) -> Result<(), Exception> {
        match self.state {
            KeyState::PendingDeletion(_) => Err(self.pending()),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The key that a `KeyId` means: an id, an ARN, an alias or an alias's ARN.
    pub(super) fn find(&self, key_id: &str) -> Result<&Key, Exception> {
        let id = self.id_of(key_id)?;
        self.keys.get(&id).ok_or_else(|| no_key(key_id))
    }

    /// The same, where aliases are not taken.
    pub(super) fn find_mut(&mut self, request: &Request) -> Result<&mut Key, Exception> {
        let key_id = request.required("KeyId")?;
        let id = key_id.rsplit_once(":key/").map_or(key_id, |(_, id)| id);
        if key_id.contains("alias/") {
            return Err(exception("InvalidArnException", format!("ARN {key_id} does not refer to a key")));
        }
        self.keys.get_mut(id).ok_or_else(|| no_key(key_id))
    }

    fn id_of(&self, key_id: &str) -> Result<String, Exception> {
        let rest = match key_id.strip_prefix("arn:aws:kms:") {
            Some(rest) => {
                let rest = rest.split_once(':').and_then(|(_, r)| r.strip_prefix(ACCOUNT)?.strip_prefix(':'));
                rest.ok_or_else(|| exception("NotFoundException", format!("Invalid account in {key_id}")))?
            }
            None if key_id.starts_with("arn:") => {
                return Err(exception("InvalidArnException", format!("Invalid arn {key_id}")));
            }
            None => key_id,
        };
        if rest.starts_with("alias/") {
            return self.aliases.get(rest).map(|a| a.target.clone()).ok_or_else(|| {
                let name = format!("arn:aws:kms:us-east-1:{ACCOUNT}:{rest}");
                exception("NotFoundException", format!("Alias {name} is not found."))
            });
        }
        Ok(rest.strip_prefix("key/").unwrap_or(rest).to_owned())
    }
}

fn no_key(key_id: &str) -> Exception {
    let arn = match key_id.starts_with("arn:") {
        true => key_id.to_owned(),
        false => format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{key_id}"),
    };
    exception("NotFoundException", format!("Key '{arn}' does not exist"))
}

pub(super) async fn create(aws: &Aws, region: &str, request: &Request) -> Result<Value, Exception> {
    let all: Vec<_> = SPECS.iter().map(|s| s.0).chain(OTHER_SPECS).collect();
    let asked = request.text("KeySpec")?.or(request.text("CustomerMasterKeySpec")?);
    if asked.is_some_and(|spec| !all.contains(&spec)) {
        request.choice("KeySpec", &all, Some("SYMMETRIC_DEFAULT"))?;
    }
    let usage = request.choice("KeyUsage", &USAGES, Some("ENCRYPT_DECRYPT"))?;
    let found = SPECS.iter().find(|(name, _)| Some(*name) == asked);
    let Some((spec, key_type)) = found.copied().filter(|_| usage == "SIGN_VERIFY") else {
        let spec = asked.unwrap_or("SYMMETRIC_DEFAULT");
        return Err(validation(format!("KeyUsage {usage} is not compatible with KeySpec {spec}")));
    };
    let description = request.text("Description")?.unwrap_or_default().to_owned();
    if description.len() > 8192 {
        return Err(validation("Member must have length less than or equal to 8192"));
    }
    let tags = read_tags(request)?;
    let material = Arc::new(Material::generate_aside(key_type).await);
    let id = uuid();
    let arn = format!("arn:aws:kms:{region}:{ACCOUNT}:key/{id}");
    let state = KeyState::Enabled;
    let key =
        Key { id: id.clone(), arn, spec, material, state, created: clock::now_fraction(), description, tags };
    let metadata = key.metadata();
    aws.state().keys.insert(id, key);
    Ok(json!({"KeyMetadata": metadata}))
}

pub(super) fn describe(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let state = aws.state();
    Ok(json!({"KeyMetadata": state.find(request.required("KeyId")?)?.metadata()}))
}

pub(super) fn list(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let limit = request.number("Limit", 1, 1000, 100)?;
    let marker = read_marker(request)?;
    let state = aws.state();
    let all = state.keys.iter().map(|(id, k)| (id.clone(), json!({"KeyId": k.id, "KeyArn": k.arn})));
    let (keys, next) = page(all, marker.as_deref(), limit);
    let mut answer = json!({"Keys": keys, "Truncated": next.is_some()});
    if let Some(id) = next {
        answer["NextMarker"] = json!(marker_of(&id));
    }
    Ok(answer)
}

pub(super) fn set_enabled(aws: &Aws, request: &Request, enabled: bool) -> Result<Value, Exception> {
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    key.must_not_be_pending()?;
    key.state = if enabled { KeyState::Enabled } else { KeyState::Disabled };
    Ok(json!({}))
}

pub(super) fn schedule_deletion(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let days = request.number("PendingWindowInDays", 7, 30, 30)?;
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    key.must_not_be_pending()?;
    let at = clock::now() + days * 24 * 3600;
    key.state = KeyState::PendingDeletion(at);
    Ok(json!({
        "KeyId": key.arn, "DeletionDate": at, "KeyState": "PendingDeletion", "PendingWindowInDays": days,
    }))
}

/// Gives the key back, disabled.
pub(super) fn cancel_deletion(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    if !matches!(key.state, KeyState::PendingDeletion(_)) {
        return Err(exception("KMSInvalidStateException", format!("{} is not pending deletion.", key.arn)));
    }
    key.state = KeyState::Disabled;
    Ok(json!({"KeyId": key.arn}))
}

pub(super) fn update_description(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let description = request.text("Description")?.unwrap_or_default().to_owned();
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    key.must_not_be_pending()?;
    key.description = description;
    Ok(json!({}))
}

pub(super) fn tag(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let tags = read_tags(request)?;
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    key.must_not_be_pending()?;
    key.tags.extend(tags);
    Ok(json!({}))
}

pub(super) fn untag(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let names: Vec<String> = serde_json::from_value(request.0["TagKeys"].clone())
        .map_err(|_| validation("TagKeys must be a list"))?;
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    key.must_not_be_pending()?;
    key.tags.retain(|name, _| !names.contains(name));
    Ok(json!({}))
}

pub(super) fn list_tags(aws: &Aws, request: &Request) -> Result<Value, Exception> {
    let limit = request.number("Limit", 1, 50, 50)?;
    let marker = read_marker(request)?;
    let mut state = aws.state();
    let key = state.find_mut(request)?;
    let all = key.tags.iter().map(|(k, v)| (k.clone(), json!({"TagKey": k, "TagValue": v})));
    let (tags, next) = page(all, marker.as_deref(), limit);
    let mut answer = json!({"Tags": tags, "Truncated": next.is_some()});
    if let Some(id) = next {
        answer["NextMarker"] = json!(marker_of(&id));
    }
    Ok(answer)
}

fn read_tags(request: &Request) -> Result<BTreeMap<String, String>, Exception> {
    let bad = || exception("TagException", "The tags are not valid.");
    let mut tags = BTreeMap::new();
    for tag in request.0["Tags"].as_array().into_iter().flatten() {
        let name = tag["TagKey"].as_str().filter(|n| !n.is_empty() && n.len() <= 128).ok_or_else(bad)?;
        let value = tag["TagValue"].as_str().filter(|v| v.len() <= 256).ok_or_else(bad)?;
        if tags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(exception("TagException", "Duplicate tag keys"));
        }
    }
    if tags.len() > 50 { Err(bad()) } else { Ok(tags) }
}

/// A random UUID.
fn uuid() -> String {
    let mut b = [0; 16];
    aws_lc_rs::rand::fill(&mut b).expect("the system has randomness");
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let h = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}
