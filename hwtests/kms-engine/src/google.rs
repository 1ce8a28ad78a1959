//! The Google face: Cloud KMS version 1 over REST.

pub(crate) mod attestation;
mod enums;
mod keys;
mod signing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    call::{Call, Reply},
    engine::Shared,
    fault::{Fault, FaultKind},
    tokens::{Audience, BadToken},
};

const MEDIA_TYPE: &str = "application/json; charset=UTF-8";

/// What the service keeps.
#[derive(Clone, Default)]
pub(crate) struct Google(Arc<Mutex<keys::State>>);

impl Google {
    fn state(&self) -> MutexGuard<'_, keys::State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_ring(&self, name: &str) {
        self.state().add_ring(name);
    }

    /// Sets the state of a version; `false` if there is none.
    pub(crate) fn set_state(&self, version: &str, state: &str) -> bool {
        let Some(state) = enums::VersionState::named(state) else { return false };
        self.state().version_mut(version).map(|v| v.set(state)).is_ok()
    }
}

/// An error as the service says it.
struct Status {
    code: u16,
    name: &'static str,
    message: String,
    details: Vec<Value>,
}

fn status(code: u16, name: &'static str, message: impl Into<String>) -> Status {
    Status { code, name, message: message.into(), details: Vec::new() }
}

fn invalid(message: impl Into<String>) -> Status {
    status(400, "INVALID_ARGUMENT", message)
}

fn not_found(name: &str) -> Status {
    status(404, "NOT_FOUND", format!("{name} not found."))
}

impl Status {
    fn reply(&self) -> Reply {
        let mut error = json!({"code": self.code, "message": self.message, "status": self.name});
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        Reply::json(self.code, MEDIA_TYPE, &json!({"error": error}))
    }

    fn reason(mut self, reason: &str, metadata: &Value) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason, "domain": "cloudkms.googleapis.com", "metadata": metadata,
        }));
        self
    }
}

/// What a request is about.
enum Route {
    KeyRings { parent: String },
    KeyRing { name: String },
    CryptoKeys { parent: String },
    CryptoKey { name: String },
    Versions { parent: String },
    Version { name: String, verb: Option<String> },
    PublicKey { version: String },
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/v1/")?;
        let (path, verb) = match path.rsplit_once(':') {
            Some((path, verb)) => (path, Some(verb.to_owned())),
            None => (path, None),
        };
        let parts: Vec<_> = path.split('/').collect();
        if parts.iter().any(|p| p.is_empty()) {
            return None;
        }
        let upto = |n: usize| parts[..n].join("/");
        let route = match parts[..] {
            ["projects", _, "locations", _, "keyRings"] => Self::KeyRings { parent: upto(4) },
            ["projects", _, "locations", _, "keyRings", _] => Self::KeyRing { name: upto(6) },
            ["projects", _, "locations", _, "keyRings", _, "cryptoKeys"] => {
                Self::CryptoKeys { parent: upto(6) }
            }
            ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _] => {
                Self::CryptoKey { name: upto(8) }
            }
            ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, "cryptoKeyVersions"] => {
                Self::Versions { parent: upto(8) }
            }
            ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _, "cryptoKeyVersions", _] => {
                return Some(Self::Version { name: upto(10), verb });
            }
            [
                "projects",
                _,
                "locations",
                _,
                "keyRings",
                _,
                "cryptoKeys",
                _,
                "cryptoKeyVersions",
                _,
                "publicKey",
            ] => Self::PublicKey { version: upto(10) },
            _ => return None,
        };
        verb.is_none().then_some(route)
    }

    /// The method's name and the permission that it needs.
    fn method(&self, http: &str) -> Option<(&'static str, &'static str)> {
        Some(match (http, self) {
            ("GET", Self::KeyRings { .. }) => ("listKeyRings", "cloudkms.keyRings.list"),
            ("POST", Self::KeyRings { .. }) => ("createKeyRing", "cloudkms.keyRings.create"),
            ("GET", Self::KeyRing { .. }) => ("getKeyRing", "cloudkms.keyRings.get"),
            ("GET", Self::CryptoKeys { .. }) => ("listCryptoKeys", "cloudkms.cryptoKeys.list"),
            ("POST", Self::CryptoKeys { .. }) => ("createCryptoKey", "cloudkms.cryptoKeys.create"),
            ("GET", Self::CryptoKey { .. }) => ("getCryptoKey", "cloudkms.cryptoKeys.get"),
            ("PATCH", Self::CryptoKey { .. }) => ("updateCryptoKey", "cloudkms.cryptoKeys.update"),
            ("GET", Self::Versions { .. }) => ("listCryptoKeyVersions", "cloudkms.cryptoKeyVersions.list"),
            ("POST", Self::Versions { .. }) => {
                ("createCryptoKeyVersion", "cloudkms.cryptoKeyVersions.create")
            }
            ("GET", Self::PublicKey { .. }) => ("getPublicKey", "cloudkms.cryptoKeyVersions.viewPublicKey"),
            ("GET", Self::Version { verb: None, .. }) => {
                ("getCryptoKeyVersion", "cloudkms.cryptoKeyVersions.get")
            }
            ("PATCH", Self::Version { verb: None, .. }) => {
                ("updateCryptoKeyVersion", "cloudkms.cryptoKeyVersions.update")
            }
            ("POST", Self::Version { verb: Some(verb), .. }) => match verb.as_str() {
                "asymmetricSign" => ("asymmetricSign", "cloudkms.cryptoKeyVersions.useToSign"),
                "destroy" => ("destroyCryptoKeyVersion", "cloudkms.cryptoKeyVersions.destroy"),
                "restore" => ("restoreCryptoKeyVersion", "cloudkms.cryptoKeyVersions.restore"),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// `google.asymmetricSign`.
pub(crate) fn operation(call: &Call) -> String {
    let method = Route::of(&call.path).and_then(|r| r.method(&call.method));
    format!("google.{}", method.map_or("unknown", |m| m.0))
}

/// What the service says on command.
pub(crate) fn fails(call: &Call, fault: &Fault) -> Option<Reply> {
    let resource = call.path.trim_start_matches("/v1/").split(':').next().unwrap_or_default().to_owned();
    let resource = resource.trim_end_matches("/publicKey").to_owned();
    let error = match fault.kind {
        FaultKind::Throttle => status(
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'HSM asymmetric cryptographic requests' and limit 'HSM asymmetric \
             cryptographic requests per minute' of service 'cloudkms.googleapis.com'",
        )
        .reason("RATE_LIMIT_EXCEEDED", &json!({"service": "cloudkms.googleapis.com"})),
        FaultKind::Unavailable => status(503, "UNAVAILABLE", "The service is currently unavailable."),
        FaultKind::Internal => status(500, "INTERNAL", "Internal error encountered."),
        FaultKind::Denied => {
            let permission = Route::of(&call.path).and_then(|r| r.method(&call.method)).map_or("", |m| m.1);
            let text = format!("Permission '{permission}' denied on resource '{resource}' (or it may not exist).");
            status(403, "PERMISSION_DENIED", text)
                .reason("IAM_PERMISSION_DENIED", &json!({"permission": permission, "resource": resource}))
        }
        FaultKind::Expired => unauthenticated(BadToken::Expired),
        FaultKind::Disabled => not_enabled(&resource, "DISABLED"),
        FaultKind::PendingDeletion => not_enabled(&resource, "DESTROY_SCHEDULED"),
        FaultKind::NotFound => not_found(&resource),
        FaultKind::Conflict => status(409, "ABORTED", "The operation was aborted; try again."),
        FaultKind::BadRequest => invalid("Request contains an invalid argument."),
        _ => return None,
    };
    let mut reply = error.reply();
    if let Some(seconds) = fault.retry_after {
        reply = reply.header("retry-after", seconds.to_string());
    }
    Some(reply)
}

fn not_enabled(name: &str, state: &str) -> Status {
    status(400, "FAILED_PRECONDITION", format!("{name} is not enabled, current state is: {state}."))
}

fn unauthenticated(why: BadToken) -> Status {
    let (text, reason) = match why {
        BadToken::Missing => {
            ("Request is missing required authentication credential.", "CREDENTIALS_MISSING")
        }
        BadToken::Unknown => {
            ("Request had invalid authentication credentials.", "ACCESS_TOKEN_TYPE_UNSUPPORTED")
        }
        BadToken::Expired => ("Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED"),
    };
    status(401, "UNAUTHENTICATED", text).reason(reason, &json!({"service": "cloudkms.googleapis.com"}))
}

pub(crate) fn answer(shared: &Shared, call: &Call) -> Reply {
    match answer_or(shared, call) {
        Ok(body) => Reply::json(200, MEDIA_TYPE, &body),
        Err(error) => error.reply(),
    }
}

fn answer_or(shared: &Shared, call: &Call) -> Result<Value, Status> {
    let nowhere = || status(404, "NOT_FOUND", "The requested URL was not found on this server.");
    let route = Route::of(&call.path).ok_or_else(nowhere)?;
    let (method, _) = route.method(&call.method).ok_or_else(nowhere)?;
    shared.tokens.check(call, Audience::Google).map_err(unauthenticated)?;
    let as_numbers = match call.parameter("$alt").or(call.parameter("alt")) {
        None | Some("json") => false,
        Some("json;enum-encoding=int") => true,
        Some(_) => return Err(invalid("Invalid value at 'alt'")),
    };
    if ["POST", "PATCH"].contains(&call.method.as_str()) && call.content_type() != "application/json" {
        return Err(invalid(format!("Invalid content type {:?}", call.content_type())));
    }
    let body = if call.body.is_empty() { Some(json!({})) } else { call.json().filter(Value::is_object) };
    let body = body.ok_or_else(|| invalid("Invalid JSON payload received."))?;
    let request = Request { call, body, as_numbers };
    let google = &shared.google;
    match (method, route) {
        ("createKeyRing", Route::KeyRings { parent }) => keys::create_ring(google, &request, &parent),
        ("listKeyRings", Route::KeyRings { parent }) => keys::list_rings(google, &request, &parent),
        ("getKeyRing", Route::KeyRing { name }) => keys::ring(google, &name),
        ("createCryptoKey", Route::CryptoKeys { parent }) => keys::create_key(google, &request, &parent),
        ("listCryptoKeys", Route::CryptoKeys { parent }) => keys::list_keys(google, &request, &parent),
        ("getCryptoKey", Route::CryptoKey { name }) => keys::key(google, &request, &name),
        ("updateCryptoKey", Route::CryptoKey { name }) => keys::update_key(google, &request, &name),
        ("createCryptoKeyVersion", Route::Versions { parent }) => {
            keys::create_version(google, &request, &parent)
        }
        ("listCryptoKeyVersions", Route::Versions { parent }) => {
            keys::list_versions(google, &request, &parent)
        }
        ("getCryptoKeyVersion", Route::Version { name, .. }) => keys::version(google, &request, &name),
        ("updateCryptoKeyVersion", Route::Version { name, .. }) => {
            keys::update_version(google, &request, &name)
        }
        ("destroyCryptoKeyVersion", Route::Version { name, .. }) => keys::destroy(google, &request, &name),
        ("restoreCryptoKeyVersion", Route::Version { name, .. }) => keys::restore(google, &request, &name),
        ("getPublicKey", Route::PublicKey { version }) => signing::public_key(shared, &request, &version),
        ("asymmetricSign", Route::Version { name, .. }) => signing::sign(shared, &request, &name),
        _ => Err(nowhere()),
    }
}

/// A request and how its answer is written.
struct Request<'a> {
    call: &'a Call,
    body: Value,
    /// Members of enumerations as numbers.
    as_numbers: bool,
}

impl Request<'_> {
    /// The id that a new resource shall have: `[a-zA-Z0-9_-]{1,63}`.
    fn new_id(&self, parameter: &str) -> Result<&str, Status> {
        let id = self.call.parameter(parameter).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if id.is_empty() || id.len() > 63 || !id.chars().all(plain) {
            return Err(invalid(format!("{parameter} {id:?} must match the pattern [a-zA-Z0-9_-]{{1,63}}")));
        }
        Ok(id)
    }

    /// Only what is in the mask may be changed, and only one thing can be.
    fn must_update(&self, field: &str) -> Result<(), Status> {
        let mask = self.call.parameter("updateMask").unwrap_or_default();
        if mask == field {
            Ok(())
        } else {
            Err(invalid(format!("update_mask {mask:?} is not supported here")))
        }
    }

    /// A page of a list, in the order of its keys.
    fn page<T>(
        &self,
        field: &str,
        all: Vec<(String, T)>,
        show: impl Fn(&T) -> Value,
    ) -> Result<Value, Status> {
        let size = match self.call.parameter("pageSize") {
            None | Some("0") => 100,
            Some(text) => {
                text.parse::<usize>().map_err(|_| invalid("Invalid value at 'page_size'"))?.min(1000)
            }
        };
        if !["", "name", "name asc"].contains(&self.call.parameter("orderBy").unwrap_or_default()) {
            return Err(invalid("Invalid value at 'order_by'"));
        }
        if self.call.parameter("filter").is_some_and(|f| !f.is_empty()) {
            return Err(invalid("this engine knows no filters"));
        }
        let after = match self.call.parameter("pageToken").filter(|t| !t.is_empty()) {
            None => None,
            Some(token) => {
                let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|b| String::from_utf8(b).ok());
                let token = token.and_then(|t| t.strip_prefix("after:").map(str::to_owned));
                Some(token.ok_or_else(|| invalid("Invalid page token."))?)
            }
        };
        let total = all.len();
        let mut rest =
            all.into_iter().skip_while(|(id, _)| after.as_ref().is_some_and(|a| id <= a)).peekable();
        let (mut items, mut last) = (Vec::new(), String::new());
        while items.len() < size {
            let Some((id, item)) = rest.next() else { break };
            items.push(show(&item));
            last = id;
        }
        let mut answer = json!({"totalSize": total});
        if !items.is_empty() {
            answer[field] = json!(items);
        }
        if rest.peek().is_some() {
            answer["nextPageToken"] = json!(URL_SAFE_NO_PAD.encode(format!("after:{last}")));
        }
        Ok(answer)
    }
}

/// A checksum as `google.protobuf.Int64Value` is written.
fn crc32c(bytes: &[u8]) -> Value {
    json!(crc32c::crc32c(bytes).to_string())
}
