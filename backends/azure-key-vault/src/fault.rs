//! Azure's errors, classified: the one table.

use std::{error::Error as _, time::Duration};

use azure_core::{
    Error as AzureError,
    error::{ErrorKind as AzureKind, ErrorResponse},
    http::{RawResponse, headers::HeaderName},
};
use signer_core::{Error, ErrorKind};
use signer_remote::Failure;

/// What was being done: the permission of an access policy, and the action of a role.
#[derive(Clone, Copy)]
pub(crate) struct Doing {
    permission: &'static str,
    role: &'static str,
}

pub(crate) const SIGN: Doing = Doing { permission: "sign", role: "Key Vault Crypto User" };
pub(crate) const GET: Doing = Doing { permission: "get", role: "Key Vault Crypto User" };
pub(crate) const LIST: Doing = Doing { permission: "list", role: "Key Vault Crypto User" };
pub(crate) const CREATE: Doing = Doing { permission: "create", role: "Key Vault Crypto Officer" };
pub(crate) const ROTATE: Doing = Doing { permission: "rotate", role: "Key Vault Crypto Officer" };
pub(crate) const DELETE: Doing = Doing { permission: "delete", role: "Key Vault Crypto Officer" };

/// What the vault says, taken apart.
struct Said {
    status: u16,
    code: String,
    /// What the code is about: `KeyDisabled`, `ForbiddenByRbac`.
    inner: String,
    message: String,
    retry_after: Option<Duration>,
}

/// What a failed call means, and whether another may go better.
pub(crate) fn classify(error: AzureError, doing: Doing) -> Failure {
    let text = short(&error);
    match error.kind() {
        AzureKind::HttpResponse { status, raw_response, .. } => {
            let status = u16::from(*status);
            let retry_after = raw_response.as_deref().and_then(retry_after);
            match said(error, status, retry_after) {
                Some(said) => of_service(&said, doing),
                None => of_gateway(status, retry_after),
            }
        }
        AzureKind::Credential => no_credentials(&error),
        _ if speaks_of_certificate(&error) => Failure::never(
            gone("the certificate of the vault is not accepted")
                .next("check this machine's clock and its CA certificates; `ca` names a file with another CA")
                .vendor(text),
        ),
        AzureKind::Connection => Failure::few(
            gone("the vault cannot be reached")
                .next("check the network, the proxy and the vault's firewall")
                .vendor(text),
        ),
        AzureKind::DataConversion => Failure::few(strange().vendor(text)).lost(),
        AzureKind::Io => Failure::few(gone("the connection to the vault was cut").vendor(text)).lost(),
        AzureKind::Other if text.contains("challenge") => Failure::never(
            Error::new(ErrorKind::Denied, "the vault asks for a token for another service than itself")
                .next("check that `vault` is the vault's own name")
                .vendor(text),
        ),
        AzureKind::Other => Failure::few(gone("the request to the vault failed").vendor(text)).lost(),
    }
}

fn gone(what: &str) -> Error {
    Error::new(ErrorKind::DeviceGone, what)
}

fn strange() -> Error {
    gone("something else than Azure Key Vault answers")
        .next("look for a proxy or a login page in between; `vault` must be the address of the vault itself")
}

/// The vault's own words, if the answer has any.
fn said(error: AzureError, status: u16, retry_after: Option<Duration>) -> Option<Said> {
    let detail = ErrorResponse::try_from(error).ok()?.error?;
    let inner = detail.inner_error.and_then(|i| i.code).unwrap_or_default();
    let message = detail.message.unwrap_or_default();
    Some(Said { status, code: detail.code.unwrap_or_default(), inner, message, retry_after })
}

fn of_service(said: &Said, doing: Doing) -> Failure {
    let retry_after = said.retry_after.unwrap_or_default();
    let failure = match (said.status, said.inner.as_str()) {
        (400, _) => Failure::never(Error::bad_request("Azure Key Vault refuses the request")),
        (401, _) => Failure::few(
            Error::new(ErrorKind::Denied, "Azure Key Vault does not accept the credentials")
                .next("they may have expired or been revoked: renew the secret, or `az login`"),
        ),
        (403, "KeyDisabled") => Failure::never(disabled()),
        (403, "KeyOperationForbidden") => Failure::never(
            Error::new(ErrorKind::Denied, "the key was made without the operation that is asked for")
                .next("make it with `sign` among its operations"),
        ),
        (403, "KeyNotYetValid" | "KeyExpired") => {
            Failure::never(Error::new(ErrorKind::Denied, "the key is outside of its time"))
        }
        (403, "ForbiddenByFirewall") => Failure::never(
            Error::new(ErrorKind::Denied, "the vault's firewall does not let this machine in")
                .next("add its address to the vault's network rules"),
        ),
        (403, _) => Failure::never(denied(said, doing)),
        (404, _) => Failure::never(crate::name::no_such_key()),
        (409, "ObjectIsDeletedButRecoverable" | "ObjectIsBeingDeleted") => Failure::never(deleted()),
        (409, _) => Failure::few(Error::new(
            ErrorKind::Busy { retry_after: Duration::from_secs(1) },
            "somebody else changes the key at the same time",
        )),
        (429, _) => Failure::patiently(
            Error::new(ErrorKind::Throttled { retry_after }, "Azure Key Vault asks for fewer requests")
                .next("spread the keys over several vaults, or sign less often"),
        ),
        (503, _) if said.retry_after.is_some() => Failure::patiently(Error::new(
            ErrorKind::Busy { retry_after },
            "Azure Key Vault is not available for now",
        )),
        (502..=504, _) => Failure::few(
            gone("Azure Key Vault is not available for now").next("see https://azure.status.microsoft"),
        )
        .lost(),
        (500.., _) => Failure::few(Error::internal("Azure Key Vault has an internal error")).lost(),
        _ => Failure::never(Error::new(ErrorKind::BadRequest, "Azure Key Vault refuses the request")),
    };
    let code = [said.code.as_str(), said.inner.as_str()]
        .iter()
        .filter(|c| !c.is_empty())
        .copied()
        .collect::<Vec<_>>();
    let first_line = said.message.lines().next().unwrap_or_default();
    let words: String = format!("{}: {first_line}", code.join("/")).chars().take(300).collect();
    Failure { error: failure.error.vendor(words), ..failure }
}

pub(crate) fn disabled() -> Error {
    Error::new(ErrorKind::Denied, "the key version is disabled")
        .next("enable it with `az keyvault key set-attributes --enabled true`")
}

pub(crate) fn deleted() -> Error {
    Error::new(ErrorKind::NotFound, "the key is deleted and waits to be purged")
        .next("bring it back with `az keyvault key recover`, while there is time")
}

/// The action is the one that the vault names, or the one that the call needs.
fn denied(said: &Said, doing: Doing) -> Error {
    let named = said.message.split("Action: '").nth(1).and_then(|rest| rest.split('\'').next());
    let permission = named.map_or_else(|| format!("keys/{}", doing.permission), str::to_owned);
    Error::new(ErrorKind::Denied, format!("the permission {permission} is missing")).next(format!(
        "give the role \"{}\" on the key or the vault (or, with access policies, the key permission {})",
        doing.role, doing.permission
    ))
}

/// An answer without the vault's words: something in between.
fn of_gateway(status: u16, retry_after: Option<Duration>) -> Failure {
    let vendor = format!("HTTP {status}");
    if status == 429 {
        let kind = ErrorKind::Throttled { retry_after: retry_after.unwrap_or_default() };
        let asks = Error::new(kind, "something before Azure Key Vault asks for fewer requests");
        return Failure::patiently(asks.vendor(vendor));
    }
    let failure = Failure::few(strange().vendor(vendor));
    if status >= 500 { failure.lost() } else { failure }
}

pub(crate) const CREDENTIAL_ADVICE: &str =
    "check `credential`, `tenant`, `client_id` and `client_secret`, the AZURE_… variables, or run `az login`";

fn no_credentials(error: &AzureError) -> Failure {
    let text = short(error);
    let unreachable = causes(error).any(|t| t.contains("error sending request"))
        || ["temporarily_unavailable", "server_error", "503", "502", "500"]
            .iter()
            .any(|word| text.contains(word));
    if unreachable {
        let gone = gone("Microsoft's token service cannot be reached").next(CREDENTIAL_ADVICE);
        return Failure::few(gone.vendor(text));
    }
    let denied = Error::new(ErrorKind::Denied, "no credentials for Azure can be had").next(CREDENTIAL_ADVICE);
    Failure::never(denied.vendor(text))
}

fn retry_after(response: &RawResponse) -> Option<Duration> {
    let header = |name: &'static str| response.headers().get_optional_str(&HeaderName::from_static(name));
    let ms = header("retry-after-ms")
        .or_else(|| header("x-ms-retry-after-ms"))
        .and_then(|t| t.trim().parse().ok());
    let seconds =
        || header("retry-after").and_then(|t| t.trim().parse::<u64>().ok()).map(Duration::from_secs);
    Some(ms.map(Duration::from_millis).or_else(seconds)?.min(Duration::from_hours(1)))
}

fn speaks_of_certificate(error: &AzureError) -> bool {
    causes(error).any(|text| text.contains("certificate"))
}

/// The texts of the error and of all its causes.
fn causes(error: &AzureError) -> impl Iterator<Item = String> + '_ {
    let mut next = error.source();
    let rest = std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this.to_string())
    });
    std::iter::once(error.to_string()).chain(rest)
}

/// The innermost cause: the client's own words for it are long.
fn short(error: &AzureError) -> String {
    causes(error).last().unwrap_or_default().chars().take(200).collect()
}

/// An answer that was damaged or forged on its way: the signature or key in it is not passed on.
pub(crate) fn damaged(what: &str) -> Failure {
    Failure::few(
        Error::internal(format!("{what}: the answer of Azure Key Vault is not passed on"))
            .next("if it stays so, look for something between here and the service that changes answers"),
    )
}
