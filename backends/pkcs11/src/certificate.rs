//! Keeping certificates in the token, beside their keys.

use cryptoki_sys as sys;
use signer_core::{BoxFuture, Error, KeySelector, Result, StoreCertificate};
use x509_cert::{
    Certificate,
    der::{self, Decode, Encode},
};

use crate::{
    Pkcs11Backend, creation, fault::once, inventory, objects::certified_key, raw::Template, select,
    token::Need,
};

impl StoreCertificate for Pkcs11Backend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.store_certificate_now(key, certificate).map_err(|e| e.key(key)) })
    }
}

impl Pkcs11Backend {
    fn store_certificate_now(&self, selector: &KeySelector, certificate: &[u8]) -> Result<()> {
        let certified = certified_key(certificate)?;
        let template = template(certificate)
            .map_err(|e| Error::bad_request("this is not an X.509 certificate").vendor(e))?;
        let _alone = self.changes();
        self.token.with(Need::Login, |inside| {
            let key = select::any(inside, selector)?;
            if inventory::public_half_of(inside, &key)? != certified {
                return Err(Error::bad_request("the certificate is about another public key")
                    .next("have one made for this key, or name the key that it is for")
                    .into());
            }
            let before = inventory::certificates_of(inside, &key.mark)?;
            let mut template = template.clone();
            for (kind, value) in [(sys::CKA_ID, &key.mark.id), (sys::CKA_LABEL, &key.mark.label)] {
                if !value.is_empty() {
                    template = template.bytes(kind, value);
                }
            }
            // The new one first: at no moment is there none.
            inside.token.module.create_object(inside.session, &template).map_err(creation::not_stored)?;
            for old in before {
                if old.mark == key.mark || old.public_key().as_ref() == Some(&certified) {
                    inside.token.module.destroy_object(inside.session, old.handle).map_err(once)?;
                }
            }
            Ok(())
        })
    }
}

/// The attributes that a certificate object is made with.
fn template(certificate: &[u8]) -> der::Result<Template> {
    let parsed = Certificate::from_der(certificate)?;
    let tbs = parsed.tbs_certificate();
    Ok(Template::of(sys::CKO_CERTIFICATE)
        .number(sys::CKA_CERTIFICATE_TYPE, sys::CKC_X_509)
        .flag(sys::CKA_TOKEN, true)
        .flag(sys::CKA_PRIVATE, false)
        .bytes(sys::CKA_SUBJECT, &tbs.subject().to_der()?)
        .bytes(sys::CKA_ISSUER, &tbs.issuer().to_der()?)
        .bytes(sys::CKA_SERIAL_NUMBER, &tbs.serial_number().to_der()?)
        .bytes(sys::CKA_VALUE, certificate))
}
