//! What a call says of itself to whoever is asked for a PIN or a touch.

use tonic::{
    codegen::http::HeaderMap,
    metadata::{BinaryMetadataValue, MetadataMap},
};

/// The metadata that a label travels in.
const NAME: &str = "signerd-label-bin";

/// The longest label that is shown, in characters.
const MAX_LEN: usize = 120;

/// The label that a call brought, fit to be shown: of a length that can be read, and without anything that would move the
/// cursor of a terminal or turn the direction of a line. `None` when there is none.
pub fn label_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(NAME)?;
    let metadata = MetadataMap::from_headers(HeaderMap::from_iter([(NAME.parse().ok()?, value.clone())]));
    let bytes = metadata.get_bin(NAME)?.to_bytes().ok()?;
    Some(shown(&String::from_utf8_lossy(&bytes))).filter(|label| !label.is_empty())
}

/// The label as metadata.
pub(crate) fn to_metadata(metadata: &mut MetadataMap, label: &str) {
    metadata.insert_bin(NAME, BinaryMetadataValue::from_bytes(shown(label).as_bytes()));
}

/// Whether a call brought a label.
pub fn has_label(headers: &HeaderMap) -> bool {
    headers.contains_key(NAME)
}

fn shown(text: &str) -> String {
    let harmless = |c: char| if c.is_control() || is_format(c) { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(MAX_LEN).map(harmless).collect();
    if text.chars().count() > MAX_LEN {
        shown.push('…');
    }
    shown
}

/// Characters that change how others are laid out (Unicode: Cf, line and paragraph separators).
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(label: &str) -> Option<String> {
        let mut metadata = MetadataMap::new();
        to_metadata(&mut metadata, label);
        label_of(&metadata.into_headers())
    }

    #[test]
    fn a_label_arrives_and_moves_no_cursor() {
        assert_eq!(through("release.tar.gz").as_deref(), Some("release.tar.gz"));
        assert_eq!(through("größe 1 – ✓").as_deref(), Some("größe 1 – ✓"));
        assert_eq!(through(""), None);
        let evil = through("a\u{1b}[2Jb\r\nc\u{202e}d\0").unwrap();
        assert_eq!(evil, "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d\u{fffd}");
        assert_eq!(through(&"x".repeat(1000)).unwrap().chars().count(), 121);
        assert_eq!(label_of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_label_is_none() {
        for bytes in ["%%%", "=", "-"] {
            let headers = HeaderMap::from_iter([(NAME.parse().unwrap(), bytes.parse().unwrap())]);
            let _ = label_of(&headers);
        }
    }
}
