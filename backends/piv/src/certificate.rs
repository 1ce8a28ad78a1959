//! Keeping certificates in the card, beside their keys.

use signer_core::{BoxFuture, Error, KeySelector, Result, StoreCertificate};

use crate::{PivBackend, changes::yubico, inventory, public_half};

impl StoreCertificate for PivBackend {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.store_certificate_now(key, certificate).await.map_err(|e| self.device.about(e.key(key)))
        })
    }
}

impl PivBackend {
    async fn store_certificate_now(&self, key: &KeySelector, certificate: &[u8]) -> Result<()> {
        let slot = self.slot_of(key)?;
        let certified = public_half::of_certificate(certificate)?;
        let object = inventory::certificate_object(certificate);
        self.forget_list();
        self.change(move |applet| {
            let firmware = yubico(applet, "store certificates")?;
            match inventory::key(applet, slot) {
                Ok(key) if key.public_key != certified => {
                    return Err(Error::bad_request("the certificate is about another public key")
                        .next("have one made for this key, or name the key that it is for")
                        .into());
                }
                Ok(_) => {}
                // An old card does not show what was imported into it before there is a certificate.
                Err(_) if !firmware.has_metadata() => {}
                Err(fault) => return Err(fault),
            }
            applet.put_object(slot.certificate_object(), &object)
        })
        .await
    }
}
