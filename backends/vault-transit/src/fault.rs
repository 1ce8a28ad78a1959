//! What an answer of the server, or its absence, means: the one table.

use std::time::Duration;

use signer_core::{Error, ErrorKind};
use signer_remote::{Again, Failure};

/// What was asked of the server, in the words of its policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The path, as policies name it: `transit/sign/release`.
    pub(crate) path: &'a str,
    /// The capability that it needs: `read`, `list`, `update`, `delete`.
    pub(crate) capability: &'static str,
    /// Whether asking twice does the same as asking once.
    pub(crate) repeatable: bool,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    /// The token is not valid any more: another one may be.
    pub(crate) stale_token: bool,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self { failure, stale_token: false }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Failure::never(error).into()
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        fault.failure
    }
}

/// When to come back where the server does not say.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Characters of a server's own words that are repeated.
const MAX_TEXT: usize = 300;

/// An answer that is not a success.
pub(crate) fn of_answer(asked: Asked<'_>, status: u16, body: &[u8], retry_after: Option<Duration>) -> Fault {
    let said = said(body);
    let text = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let stale_token =
        status == 403 && has(&["invalid token", "bad token", "missing client token", "token expired"]);
    let (error, again) = match status {
        403 if stale_token => (
            Error::new(ErrorKind::Denied, "Vault does not take the token: it has expired or was revoked")
                .next("give the backend a new token, or a login that gets one by itself"),
            Again::Never,
        ),
        403 => (
            Error::new(
                ErrorKind::Denied,
                format!("Vault's policies for this token lack {} on {}", asked.capability, asked.path),
            )
            .next(format!(
                "add to its policy: path \"{}\" {{ capabilities = [\"{}\"] }}",
                asked.path, asked.capability
            )),
            Again::Never,
        ),
        404 if has(&["no handler for route", "route entry not found", "unsupported path"]) => (
            Error::new(ErrorKind::NotFound, format!("Vault serves nothing at {}", asked.path))
                .next("check mount and namespace, or enable the engine: vault secrets enable transit"),
            Again::Never,
        ),
        400 if has(&["signing key not found", "no existing key named", "invalid key name"]) => {
            (no_key(), Again::Never)
        }
        400 | 500 if has(&["could not delete key; not found", "not found"]) && asked.capability != "read" => {
            (no_key(), Again::Never)
        }
        404 => (no_key(), Again::Never),
        400 | 500 if has(&["requested version", "key version"]) => (
            Error::new(ErrorKind::NotFound, "Vault does not sign with this version of the key"),
            Again::Never,
        ),
        400 | 500 if has(&["deletion is not allowed"]) => (
            Error::new(ErrorKind::Denied, "Vault protects this key from deletion").next(format!(
                "vault write {} deletion_allowed=true, or set allow_deletion = true for this backend",
                config_path(asked.path)
            )),
            Again::Never,
        ),
        400 | 500
            if has(&[
                "does not support signing",
                "unknown key type",
                "enterprise",
                "unsupported key type",
            ]) =>
        {
            (
                Error::new(ErrorKind::Unsupported, "this Vault server cannot do that with keys of this kind"),
                Again::Never,
            )
        }
        400 | 413 | 500 if has(&["exceeds", "too large", "body too large"]) => {
            (Error::bad_request("Vault refuses a request of this size"), Again::Never)
        }
        400 => (Error::bad_request("Vault refuses the request"), Again::Never),
        405 => (
            Error::new(
                ErrorKind::Unsupported,
                format!("this Vault server has no {} of {}", asked.capability, asked.path),
            ),
            Again::Never,
        ),
        409 => (
            Error::new(
                ErrorKind::Busy { retry_after: RETRY_AFTER },
                "another change of this key is under way",
            ),
            Again::Few,
        ),
        412 => (
            Error::new(ErrorKind::Busy { retry_after: RETRY_AFTER }, "this Vault node has not caught up yet"),
            Again::Few,
        ),
        413 => (Error::bad_request("Vault refuses a request of this size"), Again::Never),
        429 => (
            Error::new(
                ErrorKind::Throttled { retry_after: retry_after.unwrap_or(RETRY_AFTER) },
                "Vault asks for fewer requests (rate limit quota)",
            )
            .next("try again later, or raise the quota: vault read sys/quotas/rate-limit/NAME"),
            Again::Patiently,
        ),
        503 if has(&["sealed"]) => (
            Error::new(ErrorKind::DeviceGone, "Vault is sealed").next("unseal it: vault operator unseal"),
            Again::Never,
        ),
        472 | 473 | 502 | 503 | 504 => {
            (Error::new(ErrorKind::DeviceGone, "Vault cannot serve requests now"), Again::Few)
        }
        500 if has(&["local node not active", "no active", "barrier"]) => {
            (Error::new(ErrorKind::DeviceGone, "Vault cannot serve requests now"), Again::Few)
        }
        300..=399 => (
            Error::new(ErrorKind::DeviceGone, "Vault sends its clients elsewhere")
                .next("set address to the active node or the load balancer of the cluster"),
            Again::Never,
        ),
        500..=599 => (Error::internal("Vault failed with an error of its own"), Again::Few),
        _ => (Error::internal("Vault gave an answer that makes no sense here"), Again::Never),
    };
    let vendor = if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
    let lost = matches!(status, 500 | 502 | 504);
    Fault { failure: Failure { error: error.vendor(vendor), again, lost }, stale_token }
}

/// An answer of success whose body is not what it must be.
pub(crate) fn of_nonsense(what: impl Into<String>) -> Error {
    Error::internal(what)
        .next("check that address names a Vault server, and nothing stands between that changes answers")
}

/// No answer at all.
pub(crate) fn of_transport(error: &reqwest::Error) -> Fault {
    let causes = causes(error);
    let lower = causes.to_ascii_lowercase();
    let connecting = error.is_connect();
    let mut said = Error::new(
        ErrorKind::DeviceGone,
        if lower.contains("certificate") || lower.contains("unknownissuer") {
            "Vault's certificate is not accepted"
        } else if connecting {
            "Vault cannot be reached"
        } else {
            "the connection to Vault was cut"
        },
    );
    if lower.contains("expired") {
        said = said.next("the server's certificate has expired: renew it");
    } else if lower.contains("certificate") || lower.contains("unknownissuer") {
        said = said.next("set ca_file to the certificate authority of the server, and address to a name in its certificate");
    }
    Failure { error: said.vendor(causes), again: Again::Few, lost: !connecting }.into()
}

/// No answer in time. A server that hangs is not asked a second time: the caller is to know soon.
pub(crate) fn of_silence(after: Duration) -> Fault {
    let error = Error::new(
        ErrorKind::DeviceGone,
        format!("Vault gave no whole answer within {:.1} s", after.as_secs_f32()),
    );
    Failure::never(error).lost().into()
}

fn no_key() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key in the transit engine")
}

/// `transit/keys/release/config` for any path of a key.
fn config_path(path: &str) -> String {
    if path.contains("/keys/") && !path.ends_with("/config") {
        format!("{path}/config")
    } else {
        path.to_owned()
    }
}

/// The server's own words: its list of errors, or the beginning of whatever it sent.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let words = match serde_json::from_slice::<Errors>(body) {
        Ok(body) => body.errors.join("; "),
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(4 * MAX_TEXT)]).into_owned(),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // The innermost says it all; those around it repeat it.
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no test of a whole request shows.
    #[test]
    fn an_answer_after_which_a_change_may_have_been_made_is_lost() {
        for (status, lost) in
            [(400, false), (403, false), (429, false), (500, true), (502, true), (503, false), (504, true)]
        {
            let asked = Asked { path: "transit/keys/k/rotate", capability: "update", repeatable: false };
            assert_eq!(of_answer(asked, status, b"{}", None).failure.lost, lost, "{status}");
        }
    }

    #[test]
    fn foreign_texts_are_cut_and_cleaned() {
        let text = format!("\u{1b}[31m{}\n\0", "x ".repeat(1000));
        let asked = Asked { path: "p", capability: "read", repeatable: true };
        let fault = of_answer(asked, 418, text.as_bytes(), None);
        let said = fault.failure.error.vendor_code().unwrap();
        assert!(said.len() < 400 && !said.chars().any(char::is_control), "{said:?}");
    }
}
