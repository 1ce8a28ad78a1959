//! What an answer of the service, or its absence, means: the one table.

use std::{error::Error as StdError, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use signer_core::{Error, ErrorKind};
use signer_remote::{Again, Failure};

/// What was asked of the service, in the words of its policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The operation: `Sign` for the permission `kms:Sign`.
    pub(crate) action: &'static str,
    /// On what: a key id, alias or ARN, or `*`.
    pub(crate) on: &'a str,
    /// Whether asking twice does the same as asking once.
    pub(crate) repeatable: bool,
}

/// How long to wait where the service does not say.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Characters of the service's own words that are repeated.
const MAX_TEXT: usize = 300;

/// What the SDK says, in the words of this house.
pub(crate) fn of_sdk<E>(asked: Asked<'_>, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(said) => {
            let status = said.raw().status().as_u16();
            let retry_after = said.raw().headers().get("retry-after").and_then(|v| v.parse().ok());
            let (code, message) = (said.err().code(), said.err().message());
            if said.raw().status().is_success() {
                return of_nonsense(status);
            }
            of_answer(asked, status, code, message, retry_after.map(Duration::from_secs))
        }
        SdkError::ResponseError(said) => of_nonsense(said.raw().status().as_u16()),
        SdkError::TimeoutError(_) => of_silence(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => of_silence(),
        SdkError::ConstructionFailure(_) => {
            Failure::never(Error::bad_request("the request cannot be written").vendor(innermost(error)))
        }
        _ => of_transport(error),
    }
}

/// An answer of the service that is not a success.
pub(crate) fn of_answer(
    asked: Asked<'_>,
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
    retry_after: Option<Duration>,
) -> Failure {
    let words = message.unwrap_or_default();
    let lower = words.to_ascii_lowercase();
    let has = |w: &str| lower.contains(w);
    let gone = |what: &str| (Error::new(ErrorKind::DeviceGone, what), Again::Few);
    let denied = |what: &str| Error::new(ErrorKind::Denied, what);
    // Some codes come with the name of their service before a `#`.
    let name = code.map_or("", |c| c.rsplit('#').next().unwrap_or(c));
    let (error, again) = match (name.trim_end_matches("Exception"), status) {
        (
            "Throttling"
            | "Throttled"
            | "ThrottledRequest"
            | "RequestThrottled"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "BandwidthLimitExceeded"
            | "ProvisionedThroughputExceeded",
            _,
        )
        | (_, 429) => (
            Error::new(
                ErrorKind::Throttled { retry_after: retry_after.unwrap_or(RETRY_AFTER) },
                "AWS KMS asks for fewer requests (request quota)",
            )
            .next("try again later, or raise the account's quota of KMS requests"),
            Again::Patiently,
        ),
        ("NotFound", _) => (no_key(), Again::Never),
        ("AlreadyExists", _) => (
            Error::new(ErrorKind::AlreadyExists, "there is a key of that name already")
                .next("choose another name"),
            Again::Never,
        ),
        ("Disabled", _) => (disabled(asked.on), Again::Never),
        ("KMSInvalidState", _) if has("pending deletion") || has("pendingdeletion") => {
            (pending_deletion(asked.on, None), Again::Never)
        }
        ("KMSInvalidState", _) if has("pending import") => (
            Error::new(ErrorKind::NotFound, "the key has no key material yet (pending import)")
                .next("import its material: aws kms import-key-material"),
            Again::Never,
        ),
        ("KMSInvalidState", _) if has("disabled") => (disabled(asked.on), Again::Never),
        ("KMSInvalidState", _) => (
            Error::new(
                ErrorKind::Busy { retry_after: RETRY_AFTER },
                "the key is in a state in which it does not do this",
            ),
            Again::Never,
        ),
        ("AccessDenied" | "UnauthorizedOperation" | "NotAuthorized", _) => (
            denied(&format!(
                "AWS does not permit kms:{} on {} for these credentials",
                asked.action, asked.on
            ))
            .next(format!("allow kms:{} in the identity's policy and in the key's policy", asked.action)),
            Again::Never,
        ),
        ("RequestExpired" | "RequestTimeTooSkewed" | "InvalidSignature" | "SignatureDoesNotMatch", _)
            if has("expired") || has("not yet") || has("skew") || has("clock") =>
        {
            (
                denied("AWS does not accept the time of the requests").next("set this machine's clock (NTP)"),
                Again::Few,
            )
        }
        ("ExpiredToken" | "TokenRefreshRequired" | "RequestExpired", _) => (
            denied("the AWS credentials have expired")
                .next("renew them (aws sso login), or configure credentials that renew themselves"),
            Again::Few,
        ),
        (
            "UnrecognizedClient"
            | "InvalidClientTokenId"
            | "InvalidSignature"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "IncompleteSignature"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "OptInRequired",
            _,
        ) => (
            denied("AWS does not accept the credentials").next("check them: aws sts get-caller-identity"),
            Again::Never,
        ),
        ("LimitExceeded", _) => (
            denied("a quota of this AWS account is used up")
                .next("delete what is not needed, or raise the quota"),
            Again::Never,
        ),
        ("UnsupportedOperation" | "InvalidKeyUsage", _) => (
            Error::new(
                ErrorKind::Unsupported,
                "AWS KMS does not do that with this key, or not in this region",
            ),
            Again::Never,
        ),
        (
            "KeyUnavailable"
            | "DependencyTimeout"
            | "ServiceUnavailable"
            | "CloudHsmClusterNotActive"
            | "CloudHsmClusterInvalidConfiguration"
            | "CustomKeyStoreInvalidState"
            | "XksProxyUriUnreachable",
            _,
        )
        | (_, 502..=504) => gone("AWS KMS cannot serve requests now"),
        (
            "KMSInternal"
            | "InternalFailure"
            | "InternalServerError"
            | "InternalError"
            | "InternalServiceError",
            _,
        )
        | (_, 500..=599) => (Error::internal("AWS KMS failed with an error of its own"), Again::Few),
        ("Conflict", _) | (_, 409) => (
            Error::new(ErrorKind::Busy { retry_after: RETRY_AFTER }, "another change is under way"),
            Again::Few,
        ),
        (_, 403) => {
            (denied(&format!("AWS does not permit kms:{} on {}", asked.action, asked.on)), Again::Never)
        }
        (_, 404) => (
            Error::new(ErrorKind::DeviceGone, "the endpoint does not serve AWS KMS")
                .next("check endpoint and region"),
            Again::Never,
        ),
        (_, 300..=399) => (
            Error::new(ErrorKind::DeviceGone, "the endpoint sends its clients elsewhere")
                .next("check endpoint and region"),
            Again::Never,
        ),
        _ => (Error::bad_request("AWS KMS refuses the request"), Again::Never),
    };
    let said = match (name, words) {
        ("", _) => format!("HTTP {status}"),
        (name, "") => name.to_owned(),
        (name, words) => format!("{name}: {}", short(words)),
    };
    Failure { error: error.vendor(said), again, lost: status >= 500 }
}

/// A body that is not what the service answers with.
fn of_nonsense(status: u16) -> Failure {
    let (error, again) = if (500..600).contains(&status) {
        (Error::new(ErrorKind::DeviceGone, "AWS KMS cannot serve requests now"), Again::Few)
    } else {
        let error = Error::internal("AWS KMS gave an answer that is not the JSON that belongs here");
        (error.next("check that nothing stands between that changes answers"), Again::Never)
    };
    Failure { error: error.vendor(format!("HTTP {status}")), again, lost: true }
}

/// An answer of success that lacks what it must have, or has what it must not.
pub(crate) fn of_lie(what: impl Into<String>) -> Error {
    Error::internal(what).next("check that nothing stands between that changes answers")
}

/// No answer at all.
fn of_transport(error: &(dyn StdError + 'static)) -> Failure {
    let mut cause = Some(error);
    // Where nothing says that there was no connection, the request may have arrived.
    let mut connecting = false;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            return Failure::never(of_credentials(error));
        }
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            connecting = error.is_connect();
        }
        cause = error.source();
    }
    let said = innermost(error);
    let lower = said.to_ascii_lowercase();
    let certificate = lower.contains("certificate") || lower.contains("unknownissuer");
    let mut error = Error::new(
        ErrorKind::DeviceGone,
        if certificate {
            "the certificate of the AWS KMS endpoint is not accepted"
        } else if connecting {
            "AWS KMS cannot be reached"
        } else {
            "the connection to AWS KMS was cut"
        },
    );
    if lower.contains("expired") {
        error = error.next("the endpoint's certificate has expired: renew it, or set this machine's clock");
    } else if certificate {
        error = error.next("set ca_file to the certificate authority of the endpoint");
    }
    Failure { error: error.vendor(said), again: Again::Few, lost: !connecting }
}

/// Credentials that cannot be had.
pub(crate) fn of_credentials(error: &CredentialsError) -> Error {
    let what = match error {
        CredentialsError::CredentialsNotLoaded(_) => "there are no AWS credentials",
        CredentialsError::InvalidConfiguration(_) => {
            "the configuration of the AWS credentials cannot be used"
        }
        _ => "the AWS credentials cannot be renewed",
    };
    Error::new(ErrorKind::Denied, what)
        .vendor(innermost(error))
        .next("set profile, or give the daemon AWS_PROFILE, AWS_ACCESS_KEY_ID and so on: aws sts get-caller-identity shows what is found")
}

/// No answer in time. A service that hangs is not asked a second time: the caller is to know soon.
fn of_silence() -> Failure {
    Failure::never(Error::new(ErrorKind::DeviceGone, "AWS KMS gave no whole answer in time")).lost()
}

/// The caller's deadline came first.
pub(crate) fn of_deadline() -> Error {
    Error::new(ErrorKind::TimedOut, "there was no answer before the deadline")
        .next("try again, or allow more time")
}

pub(crate) fn no_key() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key in this account and region")
}

pub(crate) fn disabled(key: &str) -> Error {
    Error::new(ErrorKind::Denied, "the key is disabled").next(format!("aws kms enable-key --key-id {key}"))
}

pub(crate) fn pending_deletion(key: &str, when: Option<String>) -> Error {
    let when = when.map_or_else(String::new, |w| format!(" on {w}"));
    Error::new(ErrorKind::NotFound, format!("the key is scheduled for deletion{when}"))
        .next(format!("to have it back: aws kms cancel-key-deletion --key-id {key}, then enable-key"))
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    short(&error.to_string())
}

fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no engine can be made to say; the rest is tested against them.
    #[test]
    fn exceptions_are_classified() {
        let busy = ErrorKind::Busy { retry_after: RETRY_AFTER };
        let throttled = ErrorKind::Throttled { retry_after: RETRY_AFTER };
        for (status, code, message, kind, again) in [
            (400, "RequestLimitExceeded", "", throttled, Again::Patiently),
            (429, "", "", throttled, Again::Patiently),
            (400, "com.amazonaws.kms#ThrottlingException", "", throttled, Again::Patiently),
            (400, "LimitExceededException", "", ErrorKind::Denied, Again::Never),
            (400, "KMSInvalidStateException", "k is pending import.", ErrorKind::NotFound, Again::Never),
            (400, "KMSInvalidStateException", "k is disabled.", ErrorKind::Denied, Again::Never),
            (400, "KMSInvalidStateException", "k is Creating.", busy, Again::Never),
            (400, "InvalidKeyUsageException", "", ErrorKind::Unsupported, Again::Never),
            (
                400,
                "InvalidSignatureException",
                "Signature expired: 1 is earlier",
                ErrorKind::Denied,
                Again::Few,
            ),
            (400, "InvalidSignatureException", "does not match", ErrorKind::Denied, Again::Never),
            (400, "UnrecognizedClientException", "", ErrorKind::Denied, Again::Never),
            (403, "", "", ErrorKind::Denied, Again::Never),
            (404, "", "", ErrorKind::DeviceGone, Again::Never),
            (500, "KeyUnavailableException", "", ErrorKind::DeviceGone, Again::Few),
            (503, "DependencyTimeoutException", "", ErrorKind::DeviceGone, Again::Few),
            (301, "", "", ErrorKind::DeviceGone, Again::Never),
            (418, "", "", ErrorKind::BadRequest, Again::Never),
        ] {
            let asked = Asked { action: "Sign", on: "k", repeatable: true };
            let code = Some(code).filter(|c| !c.is_empty());
            let fault = of_answer(asked, status, code, Some(message), None);
            assert_eq!((fault.error.kind(), fault.again), (kind, again), "{code:?} {message}");
            // What may have been done is not asked for again where it is a change.
            assert_eq!(fault.lost, status >= 500, "{code:?}");
        }
    }
}
