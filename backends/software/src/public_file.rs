//! The public file of a key (`1.pub`): a PEM `PUBLIC KEY`, and before it what is known of the key.
//!
//! ```text
//! origin: generated
//! created: 2026-11-24T16:08:00Z
//! -----BEGIN PUBLIC KEY-----
//! ```
//!
//! openssl and cosign skip the words. A file without them is fine too: the key's origin is then unknown.

use std::time::SystemTime;

use signer_core::{KeyOrigin, PublicKey, Result};

/// What a public file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicFile {
    pub(crate) public_key: PublicKey,
    pub(crate) origin: KeyOrigin,
    /// To the second.
    pub(crate) created: Option<SystemTime>,
}

impl PublicFile {
    /// A key that is made or taken in now.
    pub(crate) fn new(public_key: PublicKey, origin: KeyOrigin) -> Self {
        let created = der::DateTime::from_system_time(SystemTime::now()).ok().map(|t| t.to_system_time());
        Self { public_key, origin, created }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let public_key = PublicKey::from_pem(text)?;
        let mut file = Self { public_key, origin: KeyOrigin::Unknown, created: None };
        for line in text.lines().take_while(|l| !l.starts_with("-----")) {
            match line.split_once(": ").map(|(field, value)| (field, value.trim_end())) {
                Some(("origin", value)) => {
                    file.origin = [KeyOrigin::Generated, KeyOrigin::Imported]
                        .into_iter()
                        .find(|o| o.name() == value)
                        .unwrap_or_default();
                }
                Some(("created", value)) => {
                    file.created = value.parse::<der::DateTime>().ok().map(|t| t.to_system_time());
                }
                _ => {}
            }
        }
        Ok(file)
    }

    pub(crate) fn to_text(&self) -> String {
        let created = self.created.and_then(|t| der::DateTime::from_system_time(t).ok());
        let created = created.map(|t| format!("created: {t}\n")).unwrap_or_default();
        format!("origin: {}\n{created}{}", self.origin.name(), self.public_key.to_pem())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::private_half::PrivateHalf;

    #[test]
    fn what_is_known_of_a_key_is_kept() {
        let key = PrivateHalf::generate(signer_core::KeyType::Ed25519).unwrap().public_key().unwrap();
        for origin in [KeyOrigin::Generated, KeyOrigin::Imported] {
            let file = PublicFile::new(key.clone(), origin);
            assert!(file.created.is_some());
            assert_eq!(PublicFile::parse(&file.to_text()).unwrap(), file);
        }
        let bare = PublicFile::parse(&key.to_pem()).unwrap();
        assert_eq!((bare.origin, bare.created), (KeyOrigin::Unknown, None));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(head in "(origin|created): \\PC{0,30}\n|\\PC{0,30}", tail in "\\PC{0,40}") {
            let _ = PublicFile::parse(&format!("{head}-----BEGIN PUBLIC KEY-----\n{tail}\n-----END PUBLIC KEY-----"));
        }
    }
}
