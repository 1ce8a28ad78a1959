//! Certificates beside keys, as PEM files.

use der::{Decode, Encode, pem};
use signer_core::{BoxFuture, Error, KeySelector, PublicKey, Result, StoreCertificate};
use x509_cert::Certificate;

use crate::{
    TpmBackend,
    backend::not_found,
    material::{Material, Place},
    store::Store,
};

const LABEL: &str = "CERTIFICATE";

impl StoreCertificate for TpmBackend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.store_certificate_now(key, certificate).map_err(|e| self.device.about(e).key(key))
        })
    }
}

impl TpmBackend {
    fn store_certificate_now(&self, selector: &KeySelector, certificate: &[u8]) -> Result<()> {
        let key = self.find(selector)?;
        if certified_key(certificate)? != key.public_key {
            return Err(Error::bad_request("the certificate is about another public key")
                .next("have one made for this key, or name the key that it is for"));
        }
        let pem = pem::encode_string(LABEL, pem::LineEnding::LF, certificate)
            .map_err(|e| Error::internal("the certificate cannot be encoded").vendor(e))?;
        let store = &self.device.store;
        let _alone = store.lock()?;
        // Nothing is put beside a key that somebody deleted meanwhile.
        if matches!(key.place, Place::File { .. }) && store.key_id(&key.stem).is_none() {
            return Err(not_found());
        }
        store.put_certificate(&key.stem, &pem)
    }
}

/// The certificate beside a key, DER. One that is about another key is not its certificate.
pub(crate) fn stored(store: &Store, key: &Material) -> Option<Vec<u8>> {
    let pem = store.certificate(&key.stem)?;
    let (label, der) = pem::decode_vec(pem.trim().as_bytes()).ok()?;
    (label == LABEL && certified_key(&der).ok()? == key.public_key).then_some(der)
}

fn certified_key(certificate: &[u8]) -> Result<PublicKey> {
    let wrong = |e: der::Error| Error::bad_request("this is not an X.509 certificate").vendor(e);
    let certificate = Certificate::from_der(certificate).map_err(wrong)?;
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(wrong)?;
    PublicKey::from_der(&spki)
}
