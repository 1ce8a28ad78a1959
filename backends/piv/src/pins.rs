//! Asking for the PIN: before the card is held, so that nobody waits for whoever is asked.

use std::sync::Arc;

use signer_core::{PinPrompt, PinSource, Result};

use crate::{device::Device, login::PinUse};

/// Where the PIN of a card comes from.
pub(crate) struct Pins {
    pub(crate) source: Arc<dyn PinSource>,
    /// Whether the PIN that cards leave the factory with may be used.
    pub(crate) allow_default: bool,
}

impl Pins {
    /// Asks for the right to try the PIN once; `key` names a key that wants it for itself.
    pub(crate) async fn lease(&self, device: &Device, key: Option<String>) -> Result<PinUse> {
        let prompt = PinPrompt { device: device.name(), key, tries_left: device.tries_left() };
        Ok(PinUse::lent(self.source.lease(&prompt).await?, self.allow_default))
    }
}
