//! The AWS face: the JSON 1.1 protocol of `TrentService`.

mod aliases;
mod keys;
mod signing;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::{
    call::{Call, Reply},
    engine::Shared,
    fault::{Fault, FaultKind},
    sigv4,
};

pub(crate) const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

/// The account that every key belongs to.
const ACCOUNT: &str = "111122223333";

/// What the service keeps.
#[derive(Default)]
pub(crate) struct Aws(Mutex<State>);

#[derive(Default)]
struct State {
    keys: keys::Keys,
    aliases: aliases::Aliases,
}

impl Aws {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exception of the service.
struct Exception {
    status: u16,
    name: &'static str,
    message: String,
}

/// Most exceptions have status 400.
fn exception(name: &'static str, message: impl Into<String>) -> Exception {
    Exception { status: 400, name, message: message.into() }
}

fn validation(message: impl Into<String>) -> Exception {
    exception("ValidationException", message)
}

impl Exception {
    fn reply(&self) -> Reply {
        let body = json!({"__type": self.name, "message": self.message});
        Reply::json(self.status, MEDIA_TYPE, &body)
            .header("x-amzn-errortype", self.name)
            .header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000")
    }
}

/// `aws.Sign`.
pub(crate) fn operation(call: &Call) -> String {
    let target = call.header("x-amz-target").unwrap_or_default();
    format!("aws.{}", target.strip_prefix("TrentService.").unwrap_or("unknown"))
}

/// What the service says on command.
pub(crate) fn fails(call: &Call, fault: &Fault) -> Option<Reply> {
    let operation = operation(call);
    let action = operation.trim_start_matches("aws.");
    let key = call.json().and_then(|b| b["KeyId"].as_str().map(str::to_owned)).unwrap_or_default();
    let arn = format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{key}");
    let (status, name, message) = match fault.kind {
        FaultKind::Throttle => (400, "ThrottlingException", "Rate exceeded".to_owned()),
        FaultKind::Unavailable => {
            (503, "ServiceUnavailableException", "Service is unable to handle request.".into())
        }
        FaultKind::Internal => {
            (500, "KMSInternalException", "The request was rejected because of an internal error.".into())
        }
        FaultKind::Denied => (
            400,
            "AccessDeniedException",
            format!(
                "User: arn:aws:iam::{ACCOUNT}:user/tester is not authorized to perform: kms:{action} on resource: {arn} \
                 because no identity-based policy allows the kms:{action} action"
            ),
        ),
        FaultKind::Expired => {
            (400, "ExpiredTokenException", "The security token included in the request is expired".into())
        }
        FaultKind::Disabled => (400, "DisabledException", format!("{arn} is disabled.")),
        FaultKind::PendingDeletion => {
            (400, "KMSInvalidStateException", format!("{arn} is pending deletion."))
        }
        FaultKind::NotFound => (400, "NotFoundException", format!("Key '{arn}' does not exist")),
        FaultKind::Conflict => (409, "ConflictException", "The request conflicts with another one.".into()),
        FaultKind::BadRequest => (400, "ValidationException", "1 validation error detected".into()),
        _ => return None,
    };
    let mut reply = Exception { status, name, message }.reply();
    if let Some(seconds) = fault.retry_after {
        reply = reply.header("retry-after", seconds.to_string());
    }
    Some(reply)
}

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Reply {
    match answer_or(shared, call).await {
        Ok(body) => Reply::json(200, MEDIA_TYPE, &body),
        Err(exception) => exception.reply(),
    }
}

async fn answer_or(shared: &Shared, call: &Call) -> Result<Value, Exception> {
    let unknown = || exception("UnknownOperationException", "");
    if call.method != "POST" || call.path != "/" {
        return Err(unknown());
    }
    if call.content_type() != MEDIA_TYPE {
        return Err(unknown());
    }
    let region = sigv4::check(call).map_err(|(name, message)| exception(name, message))?;
    let body = call.json().filter(Value::is_object);
    let body = Request(body.ok_or_else(|| exception("SerializationException", "Unexpected token"))?);
    let aws = &shared.aws;
    let operation = operation(call);
    match operation.trim_start_matches("aws.") {
        "CreateKey" => keys::create(aws, &region, &body).await,
        "DescribeKey" => keys::describe(aws, &body),
        "ListKeys" => keys::list(aws, &body),
        "EnableKey" => keys::set_enabled(aws, &body, true),
        "DisableKey" => keys::set_enabled(aws, &body, false),
        "ScheduleKeyDeletion" => keys::schedule_deletion(aws, &body),
        "CancelKeyDeletion" => keys::cancel_deletion(aws, &body),
        "UpdateKeyDescription" => keys::update_description(aws, &body),
        "TagResource" => keys::tag(aws, &body),
        "UntagResource" => keys::untag(aws, &body),
        "ListResourceTags" => keys::list_tags(aws, &body),
        "GetPublicKey" => signing::public_key(shared, call, &body),
        "Sign" => signing::sign(shared, call, &body),
        "Verify" => signing::verify(aws, &body),
        "ListAliases" => aliases::list(aws, &region, &body),
        "CreateAlias" => aliases::create(aws, &body),
        "UpdateAlias" => aliases::update(aws, &body),
        "DeleteAlias" => aliases::delete(aws, &body),
        _ => Err(unknown()),
    }
}

/// The fields of a request.
struct Request(Value);

impl Request {
    fn text(&self, name: &str) -> Result<Option<&str>, Exception> {
        match &self.0[name] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(exception("SerializationException", format!("{name} can not be converted to a String"))),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Exception> {
        self.text(name)?.filter(|t| !t.is_empty()).ok_or_else(|| {
            validation(format!(
                "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
                lower_first(name)
            ))
        })
    }

    /// A member of an enumeration.
    fn choice<'a>(
        &'a self,
        name: &str,
        among: &[&'a str],
        default: Option<&'a str>,
    ) -> Result<&'a str, Exception> {
        let value = match default {
            Some(default) => self.text(name)?.unwrap_or(default),
            None => self.required(name)?,
        };
        if among.contains(&value) {
            return Ok(value);
        }
        Err(validation(format!(
            "1 validation error detected: Value '{value}' at '{}' failed to satisfy constraint: Member must satisfy enum \
             value set: [{}]",
            lower_first(name),
            among.join(", ")
        )))
    }

    /// A number within bounds.
    fn number(&self, name: &str, low: u64, high: u64, default: u64) -> Result<u64, Exception> {
        let value = match &self.0[name] {
            Value::Null => return Ok(default),
            value => value.as_u64(),
        };
        value.filter(|n| (low..=high).contains(n)).ok_or_else(|| {
            validation(format!(
                "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must have value \
                 between {low} and {high}",
                self.0[name],
                lower_first(name)
            ))
        })
    }

    /// Bytes in base64, with a length within bounds.
    fn bytes(&self, name: &str, longest: usize) -> Result<Vec<u8>, Exception> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let bytes = STANDARD
            .decode(self.text(name)?.unwrap_or_default())
            .map_err(|_| exception("SerializationException", format!("{name} is not Base64")))?;
        if bytes.is_empty() || bytes.len() > longest {
            return Err(validation(format!(
                "1 validation error detected: Value at '{}' failed to satisfy constraint: Member must have length \
                 between 1 and {longest}",
                lower_first(name)
            )));
        }
        Ok(bytes)
    }
}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|c| c.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// A page of a list: items after the marker, in their order.
fn page<T>(
    all: impl Iterator<Item = (String, T)>,
    marker: Option<&str>,
    limit: u64,
) -> (Vec<T>, Option<String>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rest = all.skip_while(|(id, _)| marker.is_some_and(|m| id.as_str() <= m)).peekable();
    let mut items = Vec::new();
    let mut last = None;
    while items.len() < limit {
        let Some((id, item)) = rest.next() else { break };
        last = Some(id);
        items.push(item);
    }
    (items, last.filter(|_| rest.peek().is_some()))
}

/// Writes and reads a marker, so that no caller makes one up.
fn marker_of(id: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(format!("after:{id}"))
}

fn read_marker(request: &Request) -> Result<Option<String>, Exception> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let Some(marker) = request.text("Marker")? else { return Ok(None) };
    let id = URL_SAFE_NO_PAD.decode(marker).ok().and_then(|b| String::from_utf8(b).ok());
    let id = id.and_then(|t| t.strip_prefix("after:").map(str::to_owned));
    id.map(Some).ok_or_else(|| exception("InvalidMarkerException", "The marker is not valid."))
}
