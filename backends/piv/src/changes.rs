//! What every change of a card needs: the management key, and the PIN where the card keeps the key behind it.

use std::sync::MutexGuard;

use signer_core::{Error, ErrorKind, KeyInfo, KeyPolicy, KeyType, Result, TouchPolicy};

use crate::{
    PivBackend,
    applet::{Applet, pin_policy_number, touch_policy_number},
    fault::Fault,
    firmware::Firmware,
    inventory::{self, Content},
    login,
    management::{self, ManagementKey},
    slot::Slot,
    tlv,
};

impl PivBackend {
    /// Does something that needs the management key, in one transaction.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Applet<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let allow_default = self.pins.allow_default;
        let configured = self.management_key_file.as_deref().map(management::from_file).transpose()?;
        let mut pin = None;
        if configured.is_none() && self.device.run(None, |a| management::is_behind_the_pin(a))? {
            pin = Some(self.pins.lease(&self.device, None).await?);
        }
        self.device.run(None, move |applet| {
            let key: ManagementKey = match (&configured, &mut pin) {
                (Some(key), _) => key.clone(),
                (None, Some(pin)) => {
                    login::verify(applet, pin)?;
                    management::behind_the_pin(applet)?
                }
                (None, None) => management::default(allow_default)?,
            };
            management::authenticate(applet, &key, allow_default)?;
            work(applet)
        })
    }

    /// Makes sure that this is the only change that is under way here.
    pub(crate) fn forget_list(&self) {
        let mut listed: MutexGuard<'_, _> = self.listed();
        *listed = None;
    }
}

/// The firmware of a card that can be changed at all.
pub(crate) fn yubico(applet: &Applet<'_>, what: &str) -> Result<Firmware> {
    applet.identity.firmware.ok_or_else(|| {
        Error::unsupported(what, "a PIV card that is not a YubiKey").next("use the tool of the card's maker")
    })
}

/// Refuses a slot that has a key already.
pub(crate) fn refuse_taken(applet: &Applet<'_>, slot: Slot) -> Result<(), Fault> {
    match inventory::look(applet, slot)? {
        Content::Empty => Ok(()),
        Content::Key(_) | Content::Other => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a key in slot {slot} of the card already"),
        )
        .next("use another slot, or delete that key first")
        .into()),
    }
}

/// The elements that say what the card shall demand for a new key.
pub(crate) fn policy_elements(policy: &KeyPolicy, firmware: Firmware) -> Result<Vec<u8>> {
    let cannot =
        |what: &str| Err(Error::unsupported(what, format_args!("a YubiKey with firmware {firmware}")));
    if policy.pcrs.is_some() || policy.pcr_authority.is_some() {
        return cannot("tie a key to PCRs");
    }
    if (policy.pin.is_some() || policy.touch.is_some()) && !firmware.has_policies() {
        return cannot("give a key a PIN or touch policy of its own");
    }
    if policy.touch == Some(TouchPolicy::Cached) && !firmware.caches_touch() {
        return cannot("remember a touch");
    }
    let mut elements = Vec::new();
    if let Some(pin) = policy.pin {
        tlv::push(&mut elements, 0xaa, &[pin_policy_number(pin)]);
    }
    if let Some(touch) = policy.touch {
        tlv::push(&mut elements, 0xab, &[touch_policy_number(touch)]);
    }
    Ok(elements)
}

/// Refuses a kind of key that the card does not know.
pub(crate) fn refuse_unknown(
    key_type: KeyType,
    known: &[KeyType],
    what: &str,
    firmware: Firmware,
) -> Result<()> {
    if known.contains(&key_type) {
        return Ok(());
    }
    let names: Vec<_> = known.iter().map(|t| t.name()).collect();
    let error = Error::unsupported(
        format_args!("{what} {key_type} keys"),
        format_args!("a YubiKey with firmware {firmware}"),
    );
    let weak = key_type.rsa_bits().is_some() && firmware.makes_weak_rsa_keys() && what == "generate";
    Err(error.next(if weak {
        format!(
            "RSA keys that it makes can be factored (CVE-2017-15361): import one, or use {}",
            names.join(", ")
        )
    } else {
        format!("use {}", names.join(", "))
    }))
}

/// What is known of a key that was just made; it is there whatever happens now.
pub(crate) fn made(applet: &Applet<'_>, slot: Slot, fallback: inventory::SlotKey) -> Result<KeyInfo, Fault> {
    let key = match inventory::look(applet, slot)? {
        Content::Key(key) => key,
        // An old card does not show what was imported into it.
        Content::Empty | Content::Other => fallback,
    };
    inventory::info(applet, slot, key)
}
