//! A key as it is found: in a file of the state folder, or at a persistent handle.

use signer_core::{KeyInfo, KeyName, KeyOrigin, KeyPolicy, PinPolicy, PublicKey, Result};
use tss_esapi::structures::{Private, Public};

use crate::{capabilities::Capabilities, key_file::KeyFile, policy::Policy, public_area, store::FileId};

/// What is needed to use a key.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) label: String,
    /// The stem of its files.
    pub(crate) stem: String,
    pub(crate) place: Place,
    pub(crate) public: Public,
    pub(crate) public_key: PublicKey,
    /// The key's Name.
    pub(crate) name: Vec<u8>,
    pub(crate) origin: KeyOrigin,
    pub(crate) pin: PinPolicy,
    /// Its PIN is the one of all keys here, for sure.
    pub(crate) our_pin: bool,
    pub(crate) policy: Option<Policy>,
    created: Option<std::time::SystemTime>,
}

/// Where the private half is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Sealed in a file.
    File { parent: u32, private: Private, file: FileId },
    /// In the TPM, at this handle.
    Persistent(u32),
}

impl Material {
    /// The key of a file.
    pub(crate) fn of_file(label: String, stem: String, key: KeyFile, file: FileId) -> Result<Self> {
        Ok(Self {
            public_key: public_area::public_key(&key.public)?,
            name: public_area::name(&key.public)?,
            label,
            stem,
            place: Place::File { parent: key.parent, private: key.private, file },
            public: key.public,
            origin: key.origin,
            pin: key.pin,
            our_pin: key.our_pin,
            policy: key.policy,
            created: key.created,
        })
    }

    /// The key at a handle.
    pub(crate) fn persistent(handle: u32, public: Public, pin: bool) -> Result<Self> {
        let label = handle_label(handle);
        Ok(Self {
            public_key: public_area::public_key(&public)?,
            name: public_area::name(&public)?,
            stem: label.clone(),
            label,
            place: Place::Persistent(handle),
            origin: public_area::origin(&public),
            public,
            pin: if pin { PinPolicy::Once } else { PinPolicy::Never },
            our_pin: pin,
            policy: None,
            created: None,
        })
    }

    /// What the TPM signs with it.
    pub(crate) fn algorithms(&self, capabilities: &Capabilities) -> Vec<signer_core::SignatureAlgorithm> {
        let fits = |a: &signer_core::SignatureAlgorithm| {
            capabilities.signs(*a) && public_area::allows(&self.public, *a)
        };
        self.public_key.key_type().algorithms().iter().copied().filter(fits).collect()
    }

    /// What is known of it; `None` if it signs nothing here.
    pub(crate) fn info(&self, capabilities: &Capabilities, certificate: Option<Vec<u8>>) -> Option<KeyInfo> {
        let algorithms = self.algorithms(capabilities);
        if algorithms.is_empty() || !public_area::signs(&self.public) {
            return None;
        }
        let pcrs = self.policy.as_ref().and_then(Policy::pcrs);
        Some(KeyInfo {
            name: KeyName::label(self.label.clone()).ok()?,
            public_key: self.public_key.clone(),
            algorithms,
            origin: self.origin,
            extractable: Some(false),
            policy: KeyPolicy {
                pin: Some(self.pin),
                touch: None,
                pcrs: pcrs.map(|p| p.selection),
                pcr_authority: pcrs.and_then(|p| p.authority.clone()),
            },
            created: self.created,
            id: None,
            address: None,
            certificate,
        })
    }

    /// Wrong PINs of this key count.
    pub(crate) fn counts_tries(&self) -> bool {
        !self.public.object_attributes().no_da()
    }
}

/// The label of a persistent key.
pub(crate) fn handle_label(handle: u32) -> String {
    format!("{handle:#010x}")
}

/// The handle that a label names; `None` for every other label.
pub(crate) fn handle_of(label: &str) -> Option<u32> {
    let handle = u32::from_str_radix(label.strip_prefix("0x")?, 16).ok()?;
    ((handle >> 24) == 0x81 && handle_label(handle) == label).then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_have_one_form() {
        assert_eq!(handle_of("0x81010001"), Some(0x8101_0001));
        for no in ["0x8101001", "81010001", "0x8101000A", "0x01c00002", "0x81010001 ", "x"] {
            assert_eq!(handle_of(no), None, "{no}");
        }
    }
}
