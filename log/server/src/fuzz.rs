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

/// A tile of entries, as the monitor and the page take its entries apart.
pub fn entries(bytes: &[u8]) {
    use signer_log_engine::Format;
    for format in [Format::Entries, Format::Certificates] {
        for entry in format.split_all(bytes).unwrap_or_default() {
            let decoded = crate::decode::Decoded::new(&entry, format);
            for signer in &decoded.signers {
                if let Some(certificate) = &signer.certificate {
                    certificate.extensions.iter().for_each(|e| drop(e.in_words()));
                }
            }
        }
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
