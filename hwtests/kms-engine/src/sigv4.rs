//! AWS Signature Version 4, as far as a service checks it.

use aws_lc_rs::{digest, hmac};

use crate::{call::Call, clock};

/// The access key that the engine knows.
pub const AWS_ACCESS_KEY_ID: &str = "AKIATESTENGINE000001";
/// Its secret.
pub const AWS_SECRET_ACCESS_KEY: &str = "the/test/engine/knows/this/secret/key+00";

/// Why a request is refused: the exception's name and its text.
pub(crate) type Refusal = (&'static str, String);

/// Who signs, as the `Authorization` header has it.
struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// Checks the signature of a request and gives the region that it was made for.
pub(crate) fn check(call: &Call) -> Result<String, Refusal> {
    let header = call
        .header("authorization")
        .ok_or_else(|| ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned()))?;
    let authorization = parse(header).ok_or_else(|| {
        (
            "IncompleteSignatureException",
            "Authorization header is not in the form of AWS4-HMAC-SHA256".to_owned(),
        )
    })?;
    if authorization.access_key != AWS_ACCESS_KEY_ID {
        let text = "The security token included in the request is invalid.".to_owned();
        return Err(("UnrecognizedClientException", text));
    }
    let bad = |text: &str| ("InvalidSignatureException", text.to_owned());
    if authorization.service != "kms" {
        return Err(bad("Credential should be scoped to correct service: 'kms'."));
    }
    let time = call.header("x-amz-date").unwrap_or_default();
    let seconds = clock::parse_basic(time).filter(|_| time.starts_with(authorization.date));
    match seconds {
        Some(seconds) if seconds.abs_diff(clock::now()) <= 15 * 60 => {}
        Some(_) => return Err(bad("Signature expired or not yet current.")),
        None => {
            return Err(bad(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.",
            ));
        }
    }
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        if !authorization.signed_headers.split(';').any(|h| h == needed) {
            return Err(bad(&format!("'{needed}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    if signature(call, &authorization, time) != authorization.signature {
        return Err(bad("The request signature we calculated does not match the signature you provided."));
    }
    Ok(authorization.region.to_owned())
}

fn parse(header: &str) -> Option<Authorization<'_>> {
    let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field =
        |name: &str| fields.split(',').map(str::trim).find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
    let scope: Vec<_> = field("Credential")?.split('/').collect();
    let [access_key, date, region, service, "aws4_request"] = scope[..] else { return None };
    Some(Authorization {
        access_key,
        date,
        region,
        service,
        signed_headers: field("SignedHeaders")?,
        signature: field("Signature")?,
    })
}

fn signature(call: &Call, authorization: &Authorization<'_>, time: &str) -> String {
    let sha256 = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
    let headers: String = authorization
        .signed_headers
        .split(';')
        .map(|name| format!("{name}:{}\n", call.header(name).unwrap_or_default().trim()))
        .collect();
    // The service's only resource is `/`, without a query.
    let request =
        format!("{}\n/\n\n{headers}\n{}\n{}", call.method, authorization.signed_headers, sha256(&call.body));
    let Authorization { date, region, service, .. } = authorization;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(request.as_bytes()));
    let mut key = format!("AWS4{AWS_SECRET_ACCESS_KEY}").into_bytes();
    for part in [date, region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    hex::encode(mac(&key, to_sign.as_bytes()))
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}
