//! The parsers of foreign bytes as the fuzz targets call them.
#![allow(missing_docs)]

use crate::{
    Certificate, Statement,
    hsm::{Response, decompressed},
    tpm::{Attest, Public, Signature},
};

/// A file of a statement, whatever is in it.
pub fn statement(bytes: &[u8]) {
    let _ = Statement::read(&[bytes]);
    let _ = Statement::read(&[bytes, bytes]);
}

/// A certificate, and what is asked of it.
pub fn certificate(bytes: &[u8]) {
    for certificate in Certificate::all_from_pem_or_der(bytes).unwrap_or_default() {
        let _ = certificate.verify_signature(&certificate);
        let _ = certificate.constraints();
        let _ = certificate.may_sign_certificates();
        let _ = (certificate.subject_name(), certificate.issuer_name());
    }
}

/// A structure of a TPM.
pub fn tpm(bytes: &[u8]) {
    if let Some(attest) = Attest::parse(bytes) {
        let _ = attest.firmware_text();
        let _ = attest.signed_under_endorsement(bytes);
    }
    if let Some(public) = Public::from_either(bytes) {
        let _ = public.public_key();
        if let Some(signature) = Signature::parse(bytes)
            && let Ok(key) = public.public_key()
        {
            let _ = signature.verify(&key, bytes);
        }
    }
    let _ = Signature::parse(bytes);
}

/// The response of an HSM, compressed or not.
pub fn hsm(bytes: &[u8]) {
    let Ok(content) = decompressed(bytes) else { return };
    let Ok(response) = Response::parse(&content) else { return };
    for object in [response.private_key().ok(), response.public_key()].into_iter().flatten() {
        let _ = object.flag(crate::hsm::LOCAL);
        let _ = object.text(crate::hsm::LOCAL);
    }
}
