//! Making keys inside the card.

use signer_core::{BoxFuture, Error, Generate, GenerateRequest, KeyInfo, KeyOrigin, Result};

use crate::{
    PivBackend, algorithm,
    apdu::Command,
    changes::{made, policy_elements, refuse_taken, refuse_unknown, yubico},
    inventory::SlotKey,
    public_half,
    slot::Slot,
    tlv,
};

impl Generate for PivBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let name = request.name.clone();
            self.generate_now(request).await.map_err(|e| self.device.about(e.key(name)))
        })
    }
}

impl PivBackend {
    async fn generate_now(&self, request: GenerateRequest) -> Result<KeyInfo> {
        let slot = Slot::for_a_new_key(&request.name)?;
        refuse_identifier(request.id.as_deref())?;
        let identifier = algorithm::identifier(request.key_type);
        self.forget_list();
        self.change(move |applet| {
            let firmware = yubico(applet, "generate keys")?;
            refuse_unknown(request.key_type, &firmware.generated_types(), "generate", firmware)?;
            let policy = policy_elements(&request.policy, firmware)?;
            refuse_taken(applet, slot)?;
            let identifier = identifier.ok_or_else(|| Error::internal("the kind of key has no number"))?;
            let mut wishes = tlv::of(0x80, &[identifier]);
            wishes.extend_from_slice(&policy);
            let command = Command::new(0x47, 0, slot.reference()).data(tlv::of(0xac, &wishes));
            let answer = applet.send(&command)?.ok("generate a key")?;
            let elements = tlv::find(&answer, 0x7f49).unwrap_or_default();
            let public_key = public_half::of_elements(identifier, elements)?
                .ok_or_else(|| Error::internal("the card made a key that does not sign"))?;
            let fallback =
                SlotKey { public_key, origin: KeyOrigin::Generated, policy: request.policy.clone() };
            made(applet, slot, fallback)
        })
        .await
    }
}

/// A card has no identifiers of keys but its slots.
pub(crate) fn refuse_identifier(id: Option<&[u8]>) -> Result<()> {
    match id {
        None => Ok(()),
        Some(_) => {
            Err(Error::unsupported("give keys identifiers", "a PIV card").next("name the key by its slot"))
        }
    }
}
