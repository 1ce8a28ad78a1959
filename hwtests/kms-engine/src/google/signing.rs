//! Public keys and signatures.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signer_core::HashAlgorithm;

use super::{Request, Status, crc32c, enums::KeyFormat, invalid, keys::Version};
use crate::{
    engine::Shared,
    fault::FaultKind,
    material::{Material, Signed},
};

/// Bytes of the longest `data`.
const LONGEST: usize = 64 * 1024;

pub(super) fn public_key(shared: &Shared, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    let format = match request.call.parameter("publicKeyFormat").filter(|f| !["", "0"].contains(f)) {
        None => None,
        Some(text) => {
            let value = text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n));
            Some(KeyFormat::read(&value).ok_or_else(|| invalid("Invalid value at 'public_key_format'"))?)
        }
    };
    let version = shared.google.state().version(name)?.clone();
    let key = material(shared, request, &version)?;
    let post_quantum = version.algorithm.name.starts_with("PQ_");
    let public = key.public();
    let mut answer = json!({
        "algorithm": request.member(version.algorithm),
        "name": answering(request, name),
        "protectionLevel": request.member(&version.protection),
    });
    let checksum = |bytes: &[u8]| if is(request, FaultKind::Badcrc) { json!("1") } else { crc32c(bytes) };
    match format {
        None if post_quantum => return Err(invalid("public_key_format is required for PQC algorithms")),
        Some(KeyFormat::NistPqc) if !post_quantum => {
            return Err(invalid("NIST_PQC is supported only for PQC algorithms"));
        }
        None => {
            let pem = public.to_pem();
            answer["pemCrc32c"] = checksum(pem.as_bytes());
            answer["pem"] = json!(pem);
        }
        Some(format) => {
            let data = match format {
                KeyFormat::Pem => public.to_pem().into_bytes(),
                KeyFormat::Der => public.as_der().to_vec(),
                KeyFormat::NistPqc => public.key_bytes().to_vec(),
            };
            answer["publicKeyFormat"] = request.member(&format);
            answer["publicKey"] = json!({"crc32cChecksum": checksum(&data), "data": STANDARD.encode(data)});
        }
    }
    Ok(answer)
}

pub(super) fn sign(shared: &Shared, request: &Request<'_>, name: &str) -> Result<Value, Status> {
    let version = shared.google.state().version(name)?.clone();
    let key = material(shared, request, &version)?;
    let body = &request.body;
    let digest = &body["digest"];
    let data = body["data"].as_str().filter(|d| !d.is_empty());
    let algorithm = version.algorithm.signs;
    let (bytes, is_digest) = match (data, digest.is_object()) {
        (Some(_), true) => return Err(invalid("digest and data cannot both be set")),
        (None, false) => return Err(invalid("either digest or data must be set")),
        (Some(data), false) => {
            let data = base64("data", data)?;
            if data.len() > LONGEST {
                return Err(invalid(format!(
                    "data has {} bytes, but at most {LONGEST} are allowed",
                    data.len()
                )));
            }
            (data, false)
        }
        (None, true) => {
            let Some(hash) = algorithm.prehash() else {
                return Err(invalid(format!("{} signs data, not a digest", version.algorithm.name)));
            };
            let field = match hash {
                HashAlgorithm::Sha256 => "sha256",
                HashAlgorithm::Sha384 => "sha384",
                HashAlgorithm::Sha512 => "sha512",
            };
            let text = digest[field].as_str().ok_or_else(|| {
                invalid(format!("digest.{field} is required for {}", version.algorithm.name))
            })?;
            let bytes = base64(field, text)?;
            if bytes.len() != hash.len() {
                return Err(invalid(format!(
                    "digest.{field} has {} bytes, but must have {}",
                    bytes.len(),
                    hash.len()
                )));
            }
            (bytes, true)
        }
    };
    let verified = check("digestCrc32c", body, &bytes, is_digest)?;
    let verified_data = check("dataCrc32c", body, &bytes, !is_digest)?;
    let signed = if is_digest { Signed::Digest(&bytes) } else { Signed::Message(&bytes) };
    let mut signature = key.sign(algorithm, signed).ok_or_else(|| invalid("the key cannot sign that"))?;
    if is(request, FaultKind::WrongSignature) {
        let last = signature.len() - 1;
        signature[last] ^= 1;
    }
    let checksum = if is(request, FaultKind::Badcrc) { json!("1") } else { crc32c(&signature) };
    Ok(json!({
        "signature": STANDARD.encode(&signature),
        "signatureCrc32c": checksum,
        "verifiedDigestCrc32c": verified,
        "verifiedDataCrc32c": verified_data,
        "name": answering(request, name),
        "protectionLevel": request.member(&version.protection),
    }))
}

/// Compares a checksum that was sent, and says whether there was one.
fn check(field: &str, body: &Value, bytes: &[u8], fits: bool) -> Result<bool, Status> {
    let sent = match &body[field] {
        Value::Null => return Ok(false),
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    if !fits || sent != Some(u64::from(::crc32c::crc32c(bytes))) {
        return Err(invalid(format!(
            "The checksum in field {field} did not match the data in field {}.",
            &field[..4]
        )));
    }
    Ok(true)
}

fn base64(field: &str, text: &str) -> Result<Vec<u8>, Status> {
    STANDARD
        .decode(text)
        .map_err(|_| invalid(format!("Invalid value at '{field}' (TYPE_BYTES), Base64 decoding failed")))
}

/// The key that answers: another one, on command.
fn material(shared: &Shared, request: &Request<'_>, version: &Version) -> Result<Arc<Material>, Status> {
    let key = version.enabled()?;
    if is(request, FaultKind::ChangedKey) { Ok(shared.stranger(key.key_type())) } else { Ok(key) }
}

fn answering(request: &Request<'_>, name: &str) -> String {
    match name.rsplit_once('/') {
        Some((front, _)) if is(request, FaultKind::WrongVersion) => format!("{front}/4711"),
        _ => name.to_owned(),
    }
}

fn is(request: &Request<'_>, fault: FaultKind) -> bool {
    request.call.twist == Some(fault)
}
