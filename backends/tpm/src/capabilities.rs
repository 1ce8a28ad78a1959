//! What a TPM says of itself (TPM2_GetCapability). Nothing of it is assumed.

use signer_core::{KeyType, SignatureAlgorithm};
use tss_esapi::{
    Context,
    constants::{AlgorithmIdentifier, CapabilityType},
    structures::{CapabilityData, TaggedProperty},
};

use crate::{
    fault::Fault,
    public_area::{Shape, needs},
};

/// TPM_PT: properties (part 2, section 6.13).
pub(crate) mod property {
    pub(crate) const REVISION: u32 = 0x102;
    pub(crate) const MANUFACTURER: u32 = 0x105;
    pub(crate) const VENDOR_STRINGS: std::ops::RangeInclusive<u32> = 0x106..=0x109;
    pub(crate) const FIRMWARE_VERSION_1: u32 = 0x10B;
    pub(crate) const FIRMWARE_VERSION_2: u32 = 0x10C;
    pub(crate) const TRANSIENT_MIN: u32 = 0x10E;
    pub(crate) const PERMANENT: u32 = 0x200;
    pub(crate) const LOCKOUT_COUNTER: u32 = 0x20E;
    pub(crate) const MAX_AUTH_FAIL: u32 = 0x20F;
    pub(crate) const LOCKOUT_INTERVAL: u32 = 0x210;
}

/// What does not change while it is connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capabilities {
    algorithms: Vec<SignatureAlgorithm>,
    /// Kinds of keys that it makes and takes.
    pub(crate) key_types: Vec<KeyType>,
    pub(crate) manufacturer: String,
    pub(crate) vendor: String,
    pub(crate) firmware: String,
    pub(crate) revision: u32,
    /// How many keys may be loaded at once, at the least.
    pub(crate) slots: usize,
}

impl Capabilities {
    /// Asks for all of it.
    pub(crate) fn read(context: &mut Context) -> Result<Self, Fault> {
        let mut known = Vec::new();
        for algorithm in SignatureAlgorithm::ALL {
            let Some(needs) = needs(algorithm) else { continue };
            if needs.into_iter().all(|id| has(context, id)) {
                known.push(algorithm);
            }
        }
        let mut key_types = Vec::new();
        for key_type in KeyType::ALL {
            let Some(shape) = Shape::of(key_type) else { continue };
            let signs = key_type.algorithms().iter().any(|a| known.contains(a));
            if signs && context.test_parms(shape.parameters()).is_ok() {
                key_types.push(key_type);
            }
        }
        let text = |number: u32| String::from_utf8_lossy(&number.to_be_bytes()).replace('\0', "");
        let manufacturer = text(read(context, property::MANUFACTURER)?.unwrap_or_default());
        let mut vendor = String::new();
        for tag in property::VENDOR_STRINGS {
            vendor.push_str(&text(read(context, tag)?.unwrap_or_default()));
        }
        let one = read(context, property::FIRMWARE_VERSION_1)?.unwrap_or_default();
        let two = read(context, property::FIRMWARE_VERSION_2)?.unwrap_or_default();
        Ok(Self {
            algorithms: known,
            key_types,
            manufacturer: manufacturer.trim().to_owned(),
            vendor: vendor.split_whitespace().collect::<Vec<_>>().join(" "),
            firmware: format!("{}.{}.{}.{}", one >> 16, one & 0xFFFF, two >> 16, two & 0xFFFF),
            revision: read(context, property::REVISION)?.unwrap_or_default(),
            slots: read(context, property::TRANSIENT_MIN)?.unwrap_or(3) as usize,
        })
    }

    /// Whether it signs so.
    pub(crate) fn signs(&self, algorithm: SignatureAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// A property as it is now. (The TSS crate's own look-up answers from what it once read.)
pub(crate) fn read(context: &mut Context, tag: u32) -> Result<Option<u32>, Fault> {
    match context.get_capability(CapabilityType::TpmProperties, tag, 1) {
        Ok((CapabilityData::TpmProperties(list), _)) => {
            Ok(list.iter().find(|p| u32::from(p.property()) == tag).map(TaggedProperty::value))
        }
        // It has not got this one, and answered with the next, which the crate may not know.
        Ok(_) | Err(tss_esapi::Error::WrapperError(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The handles of one kind, from `first` on.
pub(crate) fn handles(context: &mut Context, first: u32) -> Result<Vec<u32>, Fault> {
    let mut all = Vec::new();
    let mut from = first;
    loop {
        let (data, more) = context.get_capability(CapabilityType::Handles, from, 64)?;
        let CapabilityData::Handles(list) = data else { return Ok(all) };
        let page: Vec<u32> = list.into_inner().into_iter().map(u32::from).collect();
        let Some(last) = page.last().copied() else { return Ok(all) };
        all.extend(page);
        if !more || last < from {
            return Ok(all);
        }
        from = last + 1;
    }
}

fn has(context: &mut Context, id: AlgorithmIdentifier) -> bool {
    let answer = context.get_capability(CapabilityType::Algorithms, u32::from(u16::from(id)), 1);
    matches!(answer, Ok((CapabilityData::Algorithms(list), _)) if list.find(id).is_some())
}
