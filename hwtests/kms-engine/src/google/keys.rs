//! Key rings, keys and versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Google, Request, Status, attestation,
    enums::{Algorithm, Member, Protection, Purpose, VersionState},
    invalid, not_enabled, not_found, status,
};
use crate::{clock, material::Material};

#[derive(Default)]
pub(super) struct State {
    rings: BTreeSet<String>,
    keys: BTreeMap<String, Key>,
}

struct Key {
    created: u64,
    algorithm: &'static Algorithm,
    protection: Protection,
    labels: Value,
    /// Seconds.
    destroyed_after: u64,
    versions: BTreeMap<u64, Version>,
}

/// One version of a key.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) state: VersionState,
    pub(super) algorithm: &'static Algorithm,
    pub(super) protection: Protection,
    created: u64,
    generated: Option<u64>,
    destroyed: Option<u64>,
    /// There once it is generated.
    material: Option<Arc<Material>>,
}

/// How long a version waits for its destruction, when nobody says: 30 days.
const DESTROYED_AFTER: u64 = 30 * 24 * 3600;

impl State {
    fn key(&self, name: &str) -> Result<&Key, Status> {
        self.keys.get(name).ok_or_else(|| not_found(&format!("CryptoKey {name}")))
    }

    fn key_mut(&mut self, name: &str) -> Result<&mut Key, Status> {
        self.keys.get_mut(name).ok_or_else(|| not_found(&format!("CryptoKey {name}")))
    }

    pub(super) fn version(&self, name: &str) -> Result<&Version, Status> {
        let (key, number) = split(name)?;
        let version = self.keys.get(key).and_then(|k| k.versions.get(&number));
        version.ok_or_else(|| not_found(&format!("CryptoKeyVersion {name}")))
    }

    pub(super) fn version_mut(&mut self, name: &str) -> Result<&mut Version, Status> {
        let (key, number) = split(name)?;
        let version = self.keys.get_mut(key).and_then(|k| k.versions.get_mut(&number));
        version.ok_or_else(|| not_found(&format!("CryptoKeyVersion {name}")))
    }

    fn ring(&self, name: &str) -> Result<(), Status> {
        let there = self.rings.contains(name);
        if there { Ok(()) } else { Err(not_found(&format!("KeyRing {name}"))) }
    }
}

/// The key's name and the version's number.
fn split(name: &str) -> Result<(&str, u64), Status> {
    let (key, number) = name.split_once("/cryptoKeyVersions/").unwrap_or((name, ""));
    let number = number.parse().map_err(|_| invalid(format!("Resource name [{name}] is not valid")))?;
    Ok((key, number))
}

impl Version {
    /// Its key pair, if it is enabled.
    pub(super) fn enabled(&self) -> Result<Arc<Material>, Status> {
        match (&self.state, &self.material) {
            (VersionState::Enabled, Some(material)) => Ok(material.clone()),
            (state, _) => Err(not_enabled(&self.name, state.name())),
        }
    }

    pub(super) fn set(&mut self, state: VersionState) {
        self.state = state;
    }

    fn show(&self, request: &Request<'_>) -> Value {
        let mut shown = json!({
            "name": self.name,
            "state": request.member(&self.state),
            "protectionLevel": request.member(&self.protection),
            "algorithm": request.member(self.algorithm),
            "createTime": clock::rfc3339(self.created),
        });
        if let Some(time) = self.generated {
            shown["generateTime"] = json!(clock::rfc3339(time));
        }
        if let Some(time) = self.destroyed {
            shown["destroyTime"] = json!(clock::rfc3339(time));
        }
        if let (Protection::Hsm, Some(material)) = (self.protection, &self.material) {
            shown["attestation"] = attestation::of(request, &self.name, material.public());
        }
        shown
    }
}

impl Key {
    fn show(&self, request: &Request<'_>, name: &str) -> Value {
        json!({
            "name": name,
            "purpose": request.member(&Purpose::AsymmetricSign),
            "createTime": clock::rfc3339(self.created),
            "labels": self.labels,
            "versionTemplate": {
                "protectionLevel": request.member(&self.protection),
                "algorithm": request.member(self.algorithm),
            },
            "destroyScheduledDuration": format!("{}s", self.destroyed_after),
        })
    }

    /// Adds a version, and has it made in the background: until then it is pending.
    fn add_version(&mut self, google: &Google, key: &str) -> Version {
        let number = self.versions.last_key_value().map_or(1, |(n, _)| n + 1);
        let version = Version {
            name: format!("{key}/cryptoKeyVersions/{number}"),
            state: VersionState::PendingGeneration,
            algorithm: self.algorithm,
            protection: self.protection,
            created: clock::now(),
            generated: None,
            destroyed: None,
            material: None,
        };
        self.versions.insert(number, version.clone());
        let (google, name, key_type) = (google.clone(), version.name.clone(), self.algorithm.key_type);
        tokio::spawn(async move {
            let material = Material::generate_aside(key_type).await;
            if let Ok(version) = google.state().version_mut(&name) {
                version.material = Some(Arc::new(material));
                version.generated = Some(clock::now());
                version.state = VersionState::Enabled;
            }
        });
        version
    }
}

pub(super) fn create_ring(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let name = format!("{parent}/keyRings/{}", request.new_id("keyRingId")?);
    if !google.state().rings.insert(name.clone()) {
        return Err(status(409, "ALREADY_EXISTS", format!("KeyRing {name} already exists.")));
    }
    ring(google, &name)
}

pub(super) fn ring(google: &Google, name: &str) -> Result<Value, Status> {
    google.state().ring(name)?;
    Ok(json!({"name": name, "createTime": clock::rfc3339(clock::now())}))
}

pub(super) fn list_rings(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let state = google.state();
    let prefix = format!("{parent}/");
    let all = state.rings.iter().filter(|n| n.starts_with(&prefix)).map(|n| (n.clone(), n.clone())).collect();
    request.page("keyRings", all, |name| json!({"name": name}))
}

pub(super) fn create_key(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let body = &request.body;
    let id = request.new_id("cryptoKeyId")?;
    if Purpose::read(&body["purpose"]).is_none() {
        return Err(invalid(format!(
            "purpose {} is not ASYMMETRIC_SIGN: this engine has no other",
            body["purpose"]
        )));
    }
    let template = &body["versionTemplate"];
    let algorithm = Algorithm::read(&template["algorithm"])?;
    let protection = match &template["protectionLevel"] {
        Value::Null => Protection::Software,
        level => Protection::read(level)
            .ok_or_else(|| invalid(format!("protection_level {level} is not supported")))?,
    };
    let destroyed_after = match body["destroyScheduledDuration"].as_str() {
        None => DESTROYED_AFTER,
        Some(text) => text
            .strip_suffix('s')
            .and_then(|s| s.parse().ok())
            .filter(|s| (24 * 3600..=120 * 24 * 3600).contains(s))
            .ok_or_else(|| invalid("destroy_scheduled_duration must be between 24 hours and 120 days"))?,
    };
    let name = format!("{parent}/cryptoKeys/{id}");
    let mut state = google.state();
    state.ring(parent)?;
    if state.keys.contains_key(&name) {
        return Err(status(409, "ALREADY_EXISTS", format!("CryptoKey {name} already exists.")));
    }
    let labels = body["labels"].as_object().map_or(json!({}), |l| json!(l));
    let created = clock::now();
    let mut key = Key { created, algorithm, protection, labels, destroyed_after, versions: BTreeMap::new() };
    if request.call.parameter("skipInitialVersionCreation") != Some("true") {
        key.add_version(google, &name);
    }
    let shown = key.show(request, &name);
    state.keys.insert(name, key);
    Ok(shown)
}

pub(super) fn key(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    Ok(google.state().key(name)?.show(request, name))
}

pub(super) fn list_keys(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let state = google.state();
    state.ring(parent)?;
    let prefix = format!("{parent}/");
    let all = state.keys.iter().filter(|(n, _)| n.starts_with(&prefix));
    let all = all.map(|(n, k)| (n.clone(), (n.clone(), k))).collect();
    request.page("cryptoKeys", all, |(name, key)| key.show(request, name))
}

pub(super) fn update_key(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    request.must_update("versionTemplate.algorithm")?;
    let algorithm = Algorithm::read(&request.body["versionTemplate"]["algorithm"])?;
    let mut state = google.state();
    let key = state.key_mut(name)?;
    key.algorithm = algorithm;
    Ok(key.show(request, name))
}

pub(super) fn create_version(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let mut state = google.state();
    let version = state.key_mut(parent)?.add_version(google, parent);
    Ok(version.show(request))
}

pub(super) fn list_versions(google: &Google, request: &Request<'_>, parent: &str) -> Result<Value, Status> {
    let state = google.state();
    let key = state.key(parent)?;
    let all = key.versions.iter().map(|(n, v)| (format!("{n:020}"), v)).collect();
    request.page("cryptoKeyVersions", all, |version| version.show(request))
}

pub(super) fn version(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    Ok(google.state().version(name)?.show(request))
}

/// Enables and disables.
pub(super) fn update_version(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    request.must_update("state")?;
    let wanted = VersionState::read(&request.body["state"])
        .filter(|s| [VersionState::Enabled, VersionState::Disabled].contains(s))
        .ok_or_else(|| invalid("state can only be set to ENABLED or DISABLED"))?;
    let mut state = google.state();
    let version = state.version_mut(name)?;
    if ![VersionState::Enabled, VersionState::Disabled].contains(&version.state) {
        return Err(not_enabled(name, version.state.name()));
    }
    version.state = wanted;
    Ok(version.show(request))
}

pub(super) fn destroy(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    let mut state = google.state();
    let after = state.key(split(name)?.0)?.destroyed_after;
    let version = state.version_mut(name)?;
    if ![VersionState::Enabled, VersionState::Disabled].contains(&version.state) {
        let text = format!("{name} cannot be destroyed, current state is: {}.", version.state.name());
        return Err(status(400, "FAILED_PRECONDITION", text));
    }
    version.state = VersionState::DestroyScheduled;
    version.destroyed = Some(clock::now() + after);
    Ok(version.show(request))
}

/// Gives a version back, disabled.
pub(super) fn restore(google: &Google, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    let mut state = google.state();
    let version = state.version_mut(name)?;
    if version.state != VersionState::DestroyScheduled {
        let text = format!("{name} cannot be restored, current state is: {}.", version.state.name());
        return Err(status(400, "FAILED_PRECONDITION", text));
    }
    version.state = VersionState::Disabled;
    version.destroyed = None;
    Ok(version.show(request))
}
