//! Destroying keys.

use signer_core::{BoxFuture, Delete, Error, ErrorKind, KeySelector, Result};

use crate::{
    PivBackend,
    apdu::Command,
    changes::yubico,
    fault::Fault,
    inventory::{self, Content},
};

impl Delete for PivBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.delete_now(key).await.map_err(|e| self.device.about(e.key(key))) })
    }
}

impl PivBackend {
    async fn delete_now(&self, key: &KeySelector) -> Result<()> {
        let slot = self.slot_of(key)?;
        self.forget_list();
        self.change(move |applet| {
            let firmware = yubico(applet, "delete keys")?;
            let object = slot.certificate_object();
            let has_key = !matches!(inventory::look(applet, slot)?, Content::Empty);
            let has_certificate = applet.object(object)?.is_some();
            if !has_key && !has_certificate {
                return Err(inventory::not_found(slot).into());
            }
            if has_key && firmware.deletes_keys() {
                // MOVE KEY to nowhere. The key first: with it the key is gone, whatever happens to the rest.
                applet.send(&Command::new(0xf6, 0xff, slot.reference()))?.ok("delete a key")?;
            }
            if has_certificate {
                applet.put_object(object, &[]).map_err(|fault| match fault {
                    Fault::Answer(error) => Fault::Answer(error.may_have_happened()),
                    gone @ Fault::Reader(_) => gone,
                })?;
            }
            if has_key && !firmware.deletes_keys() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "a YubiKey with firmware {firmware} cannot destroy a single key: its certificate is deleted, \
                         the private key is still there"
                    ),
                )
                .next(
                    "overwrite it (`ykman piv keys generate` into the same slot) or reset the whole PIV application \
                     (`ykman piv reset`)",
                )
                .into());
            }
            Ok(())
        })
        .await
    }
}
