//! The parsers of foreign bytes as the fuzz targets call them.
#![allow(missing_docs)]

use crate::{certificate, signature, witness, x509::Certificate};

/// A request of the signature log.
pub fn signature_request(bytes: &[u8]) {
    signature::fuzz(bytes);
}

/// A certificate, and what is done with it.
pub fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::parse(bytes) {
        let _ = certificate.public_key();
        let _ = certificate.authority();
        let _ = certificate.extended_key_usages();
        let _ = certificate.tbs_without(crate::x509::oid::POISON);
    }
}

/// A request of the certificate log, with the first certificate as its only root.
pub fn add_chain(bytes: &[u8]) {
    certificate::fuzz(bytes);
}

/// A request to a witness, and a policy.
pub fn witness(bytes: &[u8]) {
    witness::fuzz(bytes);
}
