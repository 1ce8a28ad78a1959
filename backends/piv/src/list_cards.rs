//! The cards that there are, for whoever writes a configuration.

use serde::Serialize;
use signer_core::Result;

use crate::find::Finder;

/// A card in a reader.
#[derive(Clone, Debug, Serialize)]
pub struct CardInfo {
    /// `YubiKey`, or `PIV card`.
    pub model: String,
    /// What `serial` must be in the configuration.
    pub serial: String,
    /// The firmware's version; empty for other makers' cards.
    pub firmware: String,
    /// The reader that it is in.
    pub reader: String,
}

/// Every PIV card in every reader. Cards that another program has to itself are left out.
pub fn list_cards() -> Result<Vec<CardInfo>> {
    let cards = Finder::new(None).all()?;
    Ok(cards
        .into_iter()
        .map(|card| CardInfo {
            model: card.model().to_owned(),
            serial: card.number.to_string(),
            firmware: card.firmware.map(|f| f.to_string()).unwrap_or_default(),
            reader: card.reader,
        })
        .collect())
}
