//! Google's errors, classified: the one table.

use std::{error::Error as _, time::Duration};

use google_cloud_gax::error::rpc::{Code, Status, StatusDetails};
use google_cloud_kms_v1::Error as GoogleError;
use signer_core::{Error, ErrorKind};
use signer_remote::Failure;

/// What was being done: a permission of Google's IAM, and what it is for in words.
#[derive(Clone, Copy)]
pub(crate) struct Doing {
    permission: &'static str,
    role: &'static str,
}

pub(crate) const SIGN: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.useToSign", role: "roles/cloudkms.signer" };
pub(crate) const VIEW_PUBLIC_KEY: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.viewPublicKey", role: "roles/cloudkms.publicKeyViewer" };
pub(crate) const GET_VERSION: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.get", role: "roles/cloudkms.viewer" };
pub(crate) const LIST_VERSIONS: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.list", role: "roles/cloudkms.viewer" };
pub(crate) const LIST_KEYS: Doing =
    Doing { permission: "cloudkms.cryptoKeys.list", role: "roles/cloudkms.viewer" };
pub(crate) const CREATE_KEY: Doing =
    Doing { permission: "cloudkms.cryptoKeys.create", role: "roles/cloudkms.admin" };
pub(crate) const CREATE_VERSION: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.create", role: "roles/cloudkms.admin" };
pub(crate) const DESTROY: Doing =
    Doing { permission: "cloudkms.cryptoKeyVersions.destroy", role: "roles/cloudkms.admin" };

/// What a failed call means, and whether another may go better.
pub(crate) fn classify(error: &GoogleError, doing: Doing) -> Failure {
    let vendor = |e: Error| e.vendor(short(error));
    if let Some(status) = error.status() {
        let mut failure = of_status(status, error, doing);
        failure.error = failure.error.vendor(format!("{}: {}", status.code.name(), status.message));
        return failure;
    }
    if let Some(code) = error.http_status_code().filter(|code| *code >= 300) {
        return of_gateway(code, error);
    }
    if error.is_authentication() {
        return no_credentials(error);
    }
    let gone = |what: &str| Error::new(ErrorKind::DeviceGone, what);
    if error.is_deserialization() {
        let strange = gone("something else than Google Cloud KMS answers").next(
            "look for a proxy or a login page in between; `endpoint` must be the address of the service itself",
        );
        return Failure::few(vendor(strange)).lost();
    }
    if speaks_of_certificate(error) {
        let refused = gone("the certificate of the service is not accepted").next(
            "check this machine's clock and its CA certificates; SSL_CERT_FILE names a file with another CA",
        );
        return Failure::never(vendor(refused));
    }
    if error.is_connect() {
        let unreachable =
            gone("Google Cloud KMS cannot be reached").next("check the network, the proxy and `endpoint`");
        return Failure::few(vendor(unreachable));
    }
    if error.is_binding() || error.is_serialization() {
        return Failure::never(vendor(Error::bad_request("Google's client does not take this name")));
    }
    Failure::few(vendor(gone("the connection to Google Cloud KMS was cut"))).lost()
}

fn of_status(status: &Status, error: &GoogleError, doing: Doing) -> Failure {
    let new = |kind, what: &str| Error::new(kind, what);
    match status.code {
        Code::InvalidArgument if status.message.contains("checksum") => {
            Failure::few(new(ErrorKind::Internal, "the request arrived damaged at Google Cloud KMS"))
        }
        Code::InvalidArgument | Code::OutOfRange => {
            Failure::never(new(ErrorKind::BadRequest, "Google Cloud KMS refuses the request"))
        }
        Code::FailedPrecondition => of_state(&status.message),
        Code::Unauthenticated => Failure::few(
            new(ErrorKind::Denied, "Google does not accept the credentials")
                .next("they may have expired or been revoked: renew the file, or `gcloud auth application-default login`"),
        ),
        Code::PermissionDenied => Failure::never(denied(status, doing)),
        Code::NotFound => Failure::never(crate::name::no_such_key()),
        Code::AlreadyExists => Failure::never(new(ErrorKind::AlreadyExists, "there is a key of that name already").next(
            "Google keeps the name of a key for ever, even when all its versions are destroyed: choose another name, or make \
             a new version of it with `signer keys rotate`",
        )),
        Code::Aborted => Failure::few(new(
            ErrorKind::Busy { retry_after: Duration::from_secs(1) },
            "somebody else changed it at the same time",
        )),
        Code::ResourceExhausted => {
            let retry_after = retry_after(error, status).unwrap_or_default();
            Failure::patiently(
                new(ErrorKind::Throttled { retry_after }, "the quota of Google Cloud KMS is used up for now")
                    .next("ask for more under IAM & Admin, Quotas; or sign less often"),
            )
        }
        Code::Unavailable => gone_for_now(error, status),
        Code::DeadlineExceeded => gone_for_now(error, status).lost(),
        Code::Unimplemented => Failure::never(new(ErrorKind::Unsupported, "this endpoint cannot do that")),
        _ => Failure::few(new(ErrorKind::Internal, "Google Cloud KMS has an internal error")).lost(),
    }
}

/// A version that is not enabled: each state is told apart.
fn of_state(message: &str) -> Failure {
    let state = message.split("current state is: ").nth(1).unwrap_or_default().trim_end_matches('.');
    not_enabled(state).unwrap_or_else(|| {
        Failure::never(Error::new(ErrorKind::Denied, "the key is not in a state that allows this"))
    })
}

/// What a state other than `ENABLED` means to whoever wants to use the version.
pub(crate) fn not_enabled(state: &str) -> Option<Failure> {
    let new = |kind, what: &str| Error::new(kind, what);
    Some(match state {
        "DISABLED" => Failure::never(
            new(ErrorKind::Denied, "the key version is disabled")
                .next("enable it with `gcloud kms keys versions enable`"),
        ),
        "DESTROY_SCHEDULED" => Failure::never(
            new(ErrorKind::NotFound, "the key version waits for its destruction")
                .next("bring it back with `gcloud kms keys versions restore`, while there is time"),
        ),
        "DESTROYED" => Failure::never(new(ErrorKind::NotFound, "the key version is destroyed")),
        "PENDING_GENERATION" | "PENDING_IMPORT" => Failure::patiently(new(
            ErrorKind::Busy { retry_after: Duration::from_millis(50) },
            "the key version is still being made",
        )),
        "GENERATION_FAILED" | "IMPORT_FAILED" => {
            Failure::never(new(ErrorKind::NotFound, "the key version could not be made by the service"))
        }
        _ => return None,
    })
}

/// The permission is the one that the service names, or the one that the call needs.
fn denied(status: &Status, doing: Doing) -> Error {
    let info = status.details.iter().find_map(|detail| match detail {
        StatusDetails::ErrorInfo(info) => Some(info),
        _ => None,
    });
    let reason = info.map_or("", |i| i.reason.as_str());
    if ["SERVICE_DISABLED", "BILLING_DISABLED"].contains(&reason) {
        return Error::new(ErrorKind::Denied, "the project has Cloud KMS or its billing turned off")
            .next("enable cloudkms.googleapis.com and billing for the project");
    }
    let named = info.and_then(|i| i.metadata.get("permission")).map(String::as_str);
    let permission = named.filter(|p| !p.is_empty()).unwrap_or(doing.permission);
    Error::new(ErrorKind::Denied, format!("the permission {permission} is missing"))
        .next(format!("grant {} on the key or its key ring", doing.role))
}

fn gone_for_now(error: &GoogleError, status: &Status) -> Failure {
    let what = "Google Cloud KMS is not available for now";
    match retry_after(error, status) {
        Some(retry_after) => Failure::patiently(Error::new(ErrorKind::Busy { retry_after }, what)),
        None => {
            Failure::few(Error::new(ErrorKind::DeviceGone, what).next("see https://status.cloud.google.com"))
        }
    }
}

/// An answer without Google's own words: something in between.
fn of_gateway(code: u16, error: &GoogleError) -> Failure {
    let vendor = |e: Error| e.vendor(format!("HTTP {code}"));
    if code == 429 {
        let retry_after = header_seconds(error).unwrap_or_default();
        let kind = ErrorKind::Throttled { retry_after };
        return Failure::patiently(vendor(Error::new(
            kind,
            "something before Google Cloud KMS asks for fewer requests",
        )));
    }
    let gone = Error::new(ErrorKind::DeviceGone, "something before Google Cloud KMS answers in its place")
        .next("look for a proxy in between, and check `endpoint`");
    let failure = Failure::few(vendor(gone));
    if code >= 500 { failure.lost() } else { failure }
}

fn no_credentials(error: &GoogleError) -> Failure {
    let advice =
        "check `credentials`, GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`";
    let transient = error.to_string().contains("may succeed")
        || causes(error).any(|text| text.contains("but future attempts may succeed"));
    if transient {
        let gone = Error::new(ErrorKind::DeviceGone, "Google's token service cannot be reached").next(advice);
        return Failure::few(gone.vendor(short(error)));
    }
    Failure::never(
        Error::new(ErrorKind::Denied, "no credentials for Google can be had")
            .next(advice)
            .vendor(short(error)),
    )
}

/// What the service asks for, in a header or in its words.
fn retry_after(error: &GoogleError, status: &Status) -> Option<Duration> {
    let said = status.details.iter().find_map(|detail| match detail {
        StatusDetails::RetryInfo(info) => info.retry_delay,
        _ => None,
    });
    let said = said
        .and_then(|d| Some(Duration::new(u64::try_from(d.seconds()).ok()?, u32::try_from(d.nanos()).ok()?)));
    said.or_else(|| header_seconds(error))
}

fn header_seconds(error: &GoogleError) -> Option<Duration> {
    let seconds = error.http_headers()?.get("retry-after")?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

fn speaks_of_certificate(error: &GoogleError) -> bool {
    causes(error).any(|text| text.contains("certificate"))
}

/// The texts of all causes.
fn causes(error: &GoogleError) -> impl Iterator<Item = String> + '_ {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this.to_string())
    })
}

/// The innermost cause: the client's own words for it are long.
fn short(error: &GoogleError) -> String {
    let text = causes(error).last().unwrap_or_else(|| error.to_string());
    text.chars().take(200).collect()
}

/// An answer that was damaged or forged on its way: the signature or key in it is not passed on.
pub(crate) fn damaged(what: &str) -> Failure {
    Failure::few(
        Error::internal(format!("{what}: the answer of Google Cloud KMS is not passed on"))
            .next("if it stays so, look for something between here and the service that changes answers"),
    )
}
