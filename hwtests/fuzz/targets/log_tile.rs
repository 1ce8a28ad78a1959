//! Tiles of entries, and their paths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signer_log_engine::{Format, TileId};

fuzz_target!(|bytes: &[u8]| {
    for format in [Format::Entries, Format::Certificates] {
        for entry in format.split_all(bytes).unwrap_or_default() {
            let _ = (entry.leaf_hash(), entry.identity(), entry.issuers(), entry.body());
        }
        let _ = format.cut(bytes, 7);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<TileId>()
    {
        assert_eq!(id.to_string(), text);
    }
});
