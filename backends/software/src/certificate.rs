//! Certificates beside keys: read, compared with their key, kept as PEM.

use der::{Decode, Encode, pem};
use signer_core::{Error, PublicKey, Result};
use x509_cert::Certificate;

const LABEL: &str = "CERTIFICATE";

/// The PEM of a DER certificate (RFC 5280), which must be of this public key. `BadRequest` otherwise.
pub(crate) fn to_pem(certificate: &[u8], key: &PublicKey) -> Result<String> {
    let malformed = |e: der::Error| Error::bad_request("this is not a certificate").vendor(e);
    let parsed = Certificate::from_der(certificate).map_err(malformed)?;
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der().map_err(malformed)?;
    let certified = PublicKey::from_der(&spki)
        .map_err(|e| Error::bad_request("the certificate is of another kind of key").vendor(e.what()))?;
    // Not the whole encoding: RSA's parameters may be absent where they should be NULL.
    if (certified.key_type(), certified.key_bytes()) != (key.key_type(), key.key_bytes()) {
        return Err(Error::bad_request("the certificate is of another key: its public key differs"));
    }
    pem::encode_string(LABEL, pem::LineEnding::LF, certificate)
        .map_err(|e| Error::internal("the certificate could not be encoded").vendor(e))
}

/// The DER of the first certificate in a PEM file.
pub(crate) fn from_pem(file: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok()?;
    let end_line = format!("-----END {LABEL}-----");
    let begin = text.find(&format!("-----BEGIN {LABEL}-----"))?;
    let end = text[begin..].find(&end_line)? + begin + end_line.len();
    pem::decode_vec(&text.as_bytes()[begin..end]).ok().map(|(_, der)| der)
}
