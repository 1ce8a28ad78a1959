//! A card in a file, between two runs.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{card::Card, firmware::Firmware, piv::Stored, virtual_card::CardOptions};

/// What the state file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    serial: u32,
    firmware: Firmware,
    stored: Stored,
}

/// The card of the file, or a new one where there is none.
pub(crate) fn load(options: &CardOptions) -> io::Result<Card> {
    let Some(path) = options.state.as_deref().filter(|path| path.exists()) else {
        return Ok(Card::new(options.serial, options.firmware));
    };
    let saved: Saved = serde_json::from_slice(&fs::read(path)?)?;
    Ok(Card::restore(saved.serial, saved.firmware, saved.stored))
}

/// Appears whole or not at all.
pub(crate) fn write(path: &Path, card: &Card) -> io::Result<()> {
    let saved = Saved { serial: card.serial(), firmware: card.firmware(), stored: card.stored().clone() };
    let next = path.with_extension("next");
    fs::write(&next, serde_json::to_vec(&saved)?)?;
    fs::rename(next, path)
}
