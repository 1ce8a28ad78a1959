//! The card's own statements on its keys.

use signer_core::{Attest, BoxFuture, Error, Evidence, EvidenceFormat, KeyOrigin, KeySelector, Result};

use crate::{PivBackend, inventory};

impl Attest for PivBackend {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        Box::pin(async move { self.attest_now(key).map_err(|e| self.device.about(e.key(key))) })
    }
}

impl PivBackend {
    fn attest_now(&self, key: &KeySelector) -> Result<Evidence> {
        let slot = self.slot_of(key)?;
        self.device.run(None, move |applet| {
            let firmware = applet.identity.firmware.filter(|f| f.attests());
            if firmware.is_none() {
                return Err(Error::unsupported("attest its keys", applet.identity)
                    .next("YubiKeys do from firmware 4.3 on")
                    .into());
            }
            let found = inventory::key(applet, slot)?;
            let Some(statement) = inventory::attestation(applet, slot)? else {
                let what = if found.origin == KeyOrigin::Imported {
                    "vouch for a key that was imported"
                } else {
                    "vouch for this key"
                };
                return Err(Error::unsupported(what, "the card")
                    .next("only keys that were made inside the card are attested")
                    .into());
            };
            let issuer = inventory::attestation_certificate(applet)?.ok_or_else(|| {
                Error::unsupported("attest its keys", "the card")
                    .next("the certificate of its slot f9 was deleted")
            })?;
            Ok(Evidence { format: EvidenceFormat::PivAttestation, parts: vec![statement, issuer] })
        })
    }
}
