//! The Azure face: the keys of Key Vault and Managed HSM. One vault, whatever its host is called.

mod keys;
mod signing;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::{
    call::{Call, Reply},
    engine::Shared,
    fault::{Fault, FaultKind},
    tokens::{AZURE_TENANT, Audience, BadToken},
};

const MEDIA_TYPE: &str = "application/json; charset=utf-8";

/// Versions of the API that are known.
const API_VERSIONS: [&str; 8] = ["7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01"];

/// What the vault keeps.
#[derive(Default)]
pub(crate) struct Azure(Mutex<keys::Vault>);

impl Azure {
    fn vault(&self) -> MutexGuard<'_, keys::Vault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enables or disables a version of a key, or all of them; `false` if there is none.
    pub(crate) fn set_enabled(&self, key: &str, version: Option<&str>, enabled: bool) -> bool {
        self.vault().set_enabled(key, version, enabled)
    }
}

/// An error as the vault says it.
struct Problem {
    status: u16,
    code: &'static str,
    message: String,
    inner: Option<&'static str>,
}

fn problem(status: u16, code: &'static str, message: impl Into<String>) -> Problem {
    Problem { status, code, message: message.into(), inner: None }
}

fn bad_parameter(message: impl Into<String>) -> Problem {
    problem(400, "BadParameter", message)
}

impl Problem {
    fn inner(mut self, code: &'static str) -> Self {
        self.inner = Some(code);
        self
    }

    fn reply(&self) -> Reply {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = self.inner {
            error["innererror"] = json!({"code": inner});
        }
        Reply::json(self.status, MEDIA_TYPE, &json!({"error": error}))
    }
}

/// The operation, and the action that a role must allow for it.
fn route(call: &Call) -> Option<(&'static str, &'static str)> {
    let parts = parts(call);
    let method = call.method.as_str();
    Some(match (method, &parts[..]) {
        ("GET", ["keys"]) => ("listKeys", "read"),
        ("POST", ["keys", _, "create"]) => ("createKey", "create"),
        ("POST", ["keys", _, "rotate"]) => ("rotateKey", "rotate"),
        ("GET", ["keys", _, "versions"]) => ("listVersions", "read"),
        ("DELETE", ["keys", _]) => ("deleteKey", "delete"),
        ("POST", ["keys", _, _, "sign"]) => ("sign", "sign"),
        ("POST", ["keys", _, _, "verify"]) => ("verify", "verify"),
        ("GET", ["keys", _] | ["keys", _, _]) => ("getKey", "read"),
        ("PATCH", ["keys", _, _]) => ("updateKey", "update"),
        ("GET", ["deletedkeys"]) => ("listDeletedKeys", "read"),
        ("GET", ["deletedkeys", _]) => ("getDeletedKey", "read"),
        ("DELETE", ["deletedkeys", _]) => ("purgeDeletedKey", "purge"),
        ("POST", ["deletedkeys", _, "recover"]) => ("recoverDeletedKey", "recover"),
        _ => return None,
    })
}

/// The segments of the path; an empty version stays one.
fn parts(call: &Call) -> Vec<&str> {
    let mut parts: Vec<_> = call.path.trim_start_matches('/').split('/').collect();
    if parts.last() == Some(&"") {
        parts.pop();
    }
    parts
}

/// `azure.sign`.
pub(crate) fn operation(call: &Call) -> String {
    let challenge = if call.bearer().is_none() { "challenge" } else { "" };
    match (challenge, route(call)) {
        ("", Some((operation, _))) => format!("azure.{operation}"),
        ("", None) => "azure.unknown".to_owned(),
        _ => "azure.challenge".to_owned(),
    }
}

/// What the vault says on command.
pub(crate) fn fails(call: &Call, fault: &Fault) -> Option<Reply> {
    let action = route(call).map_or("read", |r| r.1);
    let error = match fault.kind {
        FaultKind::Throttle => problem(
            429,
            "Throttled",
            "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
        ),
        FaultKind::Unavailable => problem(503, "ServiceUnavailable", "The service is temporarily unavailable."),
        FaultKind::Internal => problem(500, "InternalServerError", "An unexpected error occurred."),
        FaultKind::Denied => problem(
            403,
            "Forbidden",
            format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role \
                 definitions were changed recently, please observe propagation time.\r\nCaller: \
                 appid=00000000;oid=00000000;iss=https://sts.windows.net/{AZURE_TENANT}/\r\nAction: \
                 'Microsoft.KeyVault/vaults/keys/{action}/action'\r\nResource: \
                 '/subscriptions/s/resourcegroups/g/providers/microsoft.keyvault/vaults/test{}'\r\nAssignment: (not found)",
                call.path
            ),
        )
        .inner("ForbiddenByRbac"),
        FaultKind::Expired => return Some(challenge(call, BadToken::Expired)),
        FaultKind::Disabled => disabled(action),
        FaultKind::PendingDeletion => problem(
            409,
            "Conflict",
            "Key is currently being deleted or is in a deleted but recoverable state and cannot be used",
        )
        .inner("ObjectIsDeletedButRecoverable"),
        FaultKind::NotFound => keys::not_found("the-key"),
        FaultKind::Conflict => {
            problem(409, "Conflict", "There was a conflict of operations. Try again later.").inner("ObjectIsBeingModified")
        }
        FaultKind::BadRequest => bad_parameter("Property has invalid value"),
        _ => return None,
    };
    let mut reply = error.reply();
    if let Some(seconds) = fault.retry_after {
        reply = reply.header("retry-after", seconds.to_string());
    }
    Some(reply)
}

fn disabled(action: &str) -> Problem {
    problem(403, "Forbidden", format!("Operation {action} is not allowed on a disabled key."))
        .inner("KeyDisabled")
}

/// 401, and where a token is to be had.
fn challenge(call: &Call, why: BadToken) -> Reply {
    let host = call.header("host").unwrap_or_default();
    let hsm = host.split(':').next().unwrap_or_default().ends_with(".managedhsm.azure.net");
    let resource = if hsm { "https://managedhsm.azure.net" } else { "https://vault.azure.net" };
    let text = match why {
        BadToken::Missing => "AKV10000: Request is missing a Bearer or PoP token.",
        BadToken::Unknown => "AKV10022: Invalid audience.",
        BadToken::Expired => "AKV10032: The token is expired.",
    };
    let challenge = format!(
        "Bearer authorization=\"https://login.microsoftonline.com/{AZURE_TENANT}\", resource=\"{resource}\""
    );
    problem(401, "Unauthorized", text).reply().header("www-authenticate", challenge)
}

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Reply {
    if !call.tls {
        return problem(400, "BadRequest", "The plain HTTP request was sent to HTTPS port").reply();
    }
    let Some((operation, _)) = route(call) else {
        return problem(404, "ResourceNotFound", "The resource you are looking for was not found.").reply();
    };
    if let Err(why) = shared.tokens.check(call, Audience::Azure) {
        return challenge(call, why);
    }
    match answer_or(shared, call, operation).await {
        Ok(Some(body)) => Reply::json(200, MEDIA_TYPE, &body),
        Ok(None) => Reply { status: 204, headers: Vec::new(), body: bytes::Bytes::new() },
        Err(problem) => problem.reply(),
    }
}

async fn answer_or(shared: &Shared, call: &Call, operation: &str) -> Result<Option<Value>, Problem> {
    match call.parameter("api-version") {
        None => return Err(bad_parameter("api-version must be specified")),
        Some(version) if !API_VERSIONS.contains(&version) => {
            return Err(bad_parameter(format!("The specified version ({version}) is not recognized.")));
        }
        Some(_) => {}
    }
    let parts = parts(call);
    let name = parts.get(1).copied().unwrap_or_default();
    if parts.len() > 1 && !keys::is_name(name) {
        return Err(bad_parameter(format!(
            "The request URI contains an invalid name: {name}. Names must match the pattern ^[0-9a-zA-Z-]{{1,127}}$"
        )));
    }
    let needs_body = !["GET", "DELETE"].contains(&call.method.as_str())
        && !["rotateKey", "recoverDeletedKey"].contains(&operation);
    let body = if needs_body {
        if call.content_type() != "application/json" {
            return Err(problem(415, "UnsupportedMediaType", "The content type must be application/json."));
        }
        let body = call.json().filter(Value::is_object);
        body.ok_or_else(|| bad_parameter("The request body could not be read as JSON."))?
    } else {
        json!({})
    };
    let request = Request { call, body, name, version: parts.get(2).copied().filter(|v| !v.is_empty()) };
    let azure = &shared.azure;
    match operation {
        "listKeys" => keys::list(azure, &request).map(Some),
        "listVersions" => keys::list_versions(azure, &request).map(Some),
        "createKey" => keys::create(azure, &request).await.map(Some),
        "rotateKey" => keys::rotate(azure, &request).await.map(Some),
        "getKey" => keys::get(shared, &request).map(Some),
        "updateKey" => keys::update(azure, &request).map(Some),
        "deleteKey" => keys::delete(azure, &request).map(Some),
        "listDeletedKeys" => keys::list_deleted(azure, &request).map(Some),
        "getDeletedKey" => keys::get_deleted(azure, &request).map(Some),
        "purgeDeletedKey" => keys::purge(azure, &request).map(|()| None),
        "recoverDeletedKey" => keys::recover(azure, &request).map(Some),
        "sign" => signing::sign(shared, &request).map(Some),
        _ => signing::verify(azure, &request).map(Some),
    }
}

struct Request<'a> {
    call: &'a Call,
    body: Value,
    name: &'a str,
    version: Option<&'a str>,
}

impl Request<'_> {
    /// `https://HOST`: identifiers begin with it.
    fn vault(&self) -> String {
        format!("https://{}", self.call.header("host").unwrap_or_default())
    }

    /// A page of a list.
    fn page(&self, path: &str, all: Vec<(String, Value)>) -> Result<Value, Problem> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let size = match self.call.parameter("maxresults") {
            None => 25,
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|n| (1..=25).contains(n))
                .ok_or_else(|| bad_parameter("maxresults must be between 1 and 25"))?,
        };
        let after = match self.call.parameter("$skiptoken") {
            None => None,
            Some(token) => {
                let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|b| String::from_utf8(b).ok());
                Some(token.ok_or_else(|| bad_parameter("The skiptoken is not valid"))?)
            }
        };
        let mut rest =
            all.into_iter().skip_while(|(id, _)| after.as_ref().is_some_and(|a| id <= a)).peekable();
        let (mut items, mut last) = (Vec::new(), String::new());
        while items.len() < size {
            let Some((id, item)) = rest.next() else { break };
            items.push(item);
            last = id;
        }
        let version = self.call.parameter("api-version").unwrap_or_default();
        let next = rest.peek().is_some().then(|| {
            let token = URL_SAFE_NO_PAD.encode(&last);
            format!("{}/{path}?api-version={version}&$skiptoken={token}&maxresults={size}", self.vault())
        });
        Ok(json!({"value": items, "nextLink": next}))
    }
}
