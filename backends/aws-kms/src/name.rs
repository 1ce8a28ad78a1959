//! Names: what is a label here, and which alias or key id stands for it.
//!
//! `alias/NAME` is the label NAME, where NAME has only what AWS allows in an alias. A key id is a label, too. Any other label
//! has the alias `alias/label-` and its SHA-256 in hexadecimal; the label itself is then in the key's description.

use signer_core::{Digest, HashAlgorithm, KeyName};

/// How the service is asked for a label: a key id, or an alias.
pub(crate) fn key_id_of(label: &str) -> String {
    if is_key_id(label) { label.to_owned() } else { alias_of(label) }
}

/// The alias of a label that is no key id.
pub(crate) fn alias_of(label: &str) -> String {
    if is_alias_name(label) && !is_hashed(label) {
        return format!("{ALIAS}{label}");
    }
    let digest = Digest::of(HashAlgorithm::Sha256, label.as_bytes());
    let mut alias = format!("{ALIAS}{HASHED}");
    for byte in digest.as_bytes() {
        alias.extend([byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)])));
    }
    alias
}

/// The label of a key with that alias and description. An alias that looks like a key id gives none.
pub(crate) fn label_of(alias: &str, description: &str) -> Option<String> {
    let name = alias.strip_prefix(ALIAS)?;
    if is_hashed(name) {
        let described = described(description).filter(|label| alias_of(label) == alias);
        // A description that was changed by hand: the alias is all there is.
        return described.or_else(|| Some(name.to_owned()).filter(|n| alias_of(n) == alias));
    }
    (!is_key_id(name)).then(|| name.to_owned())
}

/// What is written into the description of a new key.
pub(crate) fn description_of(name: &KeyName) -> String {
    format!("{DESCRIBED}{name}")
}

fn described(description: &str) -> Option<String> {
    let name: KeyName = description.strip_prefix(DESCRIBED)?.parse().ok()?;
    name.as_label().map(str::to_owned)
}

/// `1234abcd-12ab-34cd-56ef-1234567890ab`, or `mrk-` and 32 digits.
pub(crate) fn is_key_id(text: &str) -> bool {
    let hex = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if let Some(rest) = text.strip_prefix("mrk-") {
        return rest.len() == 32 && hex(rest);
    }
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|p| hex(p))
}

/// Whether AWS takes it behind `alias/`. Slashes in odd places are left out, too, and what is AWS's own.
fn is_alias_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
        && text.split('/').all(|part| !part.is_empty())
        && !text.starts_with("aws/")
}

fn is_hashed(name: &str) -> bool {
    name.strip_prefix(HASHED).is_some_and(|rest| rest.len() == 64)
}

pub(crate) const ALIAS: &str = "alias/";
const HASHED: &str = "label-";
const DESCRIBED: &str = "signerd key ";
/// An alias has 256 characters at most, `alias/` included.
const MAX_NAME: usize = 250;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_ids_are_told_from_names() {
        for id in ["1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab"] {
            assert!(is_key_id(id));
            assert_eq!(key_id_of(id), id);
            assert_eq!(label_of(&format!("alias/{id}"), ""), None);
        }
        for name in ["release", "1234abcd", "1234ABCD-12AB-34CD-56EF-1234567890AB", "mrk-1"] {
            assert!(!is_key_id(name));
            assert_eq!(key_id_of(name), format!("alias/{name}"));
        }
        assert_eq!(alias_of("aws/kms").len(), "alias/label-".len() + 64);
    }

    proptest! {
        #[test]
        fn labels_are_read_back(label in "[^\\x00]{1,300}|(label-)?[a-f0-9]{64}|[a-z/_-]{1,20}") {
            prop_assume!(label.len() <= 1024 && !is_key_id(&label));
            let alias = alias_of(&label);
            prop_assert!(alias.len() <= 256 && is_alias_name(&alias[6..]), "{alias}");
            let name = KeyName::label(label.clone()).unwrap();
            let description = description_of(&name);
            prop_assert!(description.chars().count() <= 8192);
            prop_assert_eq!(label_of(&alias, &description), Some(label));
        }

        #[test]
        fn foreign_aliases_and_descriptions_never_panic(alias in "\\PC{0,80}", description in "\\PC{0,80}") {
            let _ = label_of(&alias, &description);
            let _ = label_of(&format!("alias/{alias}"), &format!("signerd key {description}"));
        }
    }
}
