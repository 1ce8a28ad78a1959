//! The protocol's messages and the types of signer-core, one into the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signer_core::{
    BackendInfo, Error, ErrorKind, Evidence, EvidenceFormat, KeyInfo, KeyOrigin, KeyPage, KeyPolicy, KeyType,
    PcrSelection, PublicKey, Result,
};

use crate::pb;

pub(crate) fn error_to_pb(error: &Error) -> pb::Error {
    pb::Error {
        kind: error.kind().name().to_owned(),
        what: error.what().to_owned(),
        key: error.key_name().map(str::to_owned),
        device: error.device_name().map(str::to_owned),
        next: error.advice().map(str::to_owned),
        vendor: error.vendor_code().map(str::to_owned),
        may_have_happened: error.is_uncertain(),
        tries_left: error.kind().tries_left(),
        retry_after_ms: error.kind().retry_after().map(|d| d.as_millis() as u64),
    }
}

pub(crate) fn error_from_pb(error: pb::Error) -> Error {
    let retry_after = error.retry_after_ms.map(Duration::from_millis);
    let kind =
        ErrorKind::from_parts(&error.kind, error.tries_left, retry_after).unwrap_or(ErrorKind::Internal);
    let mut out = Error::new(kind, error.what);
    if let Some(key) = error.key {
        out = out.key(key);
    }
    if let Some(device) = error.device {
        out = out.device(device);
    }
    if let Some(next) = error.next {
        out = out.next(next);
    }
    if let Some(vendor) = error.vendor {
        out = out.vendor(vendor);
    }
    if error.may_have_happened { out.may_have_happened() } else { out }
}

pub(crate) fn key_to_pb(key: &KeyInfo) -> pb::KeyInfo {
    pb::KeyInfo {
        name: key.name.to_string(),
        public_key: key.public_key.as_der().to_vec(),
        algorithms: key.algorithms.iter().map(|a| a.name().to_owned()).collect(),
        origin: key.origin.name().to_owned(),
        extractable: key.extractable,
        created_unix: key.created.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs()),
        id: key.id.clone(),
        address: key.address.as_ref().map(ToString::to_string),
        certificate: key.certificate.clone(),
        policy: policy_to_pb(&key.policy),
    }
}

/// No message for no demands.
pub(crate) fn policy_to_pb(policy: &KeyPolicy) -> Option<pb::KeyPolicy> {
    (*policy != KeyPolicy::default()).then(|| pb::KeyPolicy {
        pin: policy.pin.map(|p| p.name().to_owned()),
        touch: policy.touch.map(|p| p.name().to_owned()),
        pcrs: policy.pcrs.iter().flat_map(|s| s.registers()).map(u32::from).collect(),
        pcr_authority: policy.pcr_authority.as_ref().map(|k| k.as_der().to_vec()),
    })
}

pub(crate) fn policy_from_pb(policy: Option<pb::KeyPolicy>) -> Result<KeyPolicy> {
    let Some(policy) = policy else { return Ok(KeyPolicy::default()) };
    Ok(KeyPolicy {
        pin: policy.pin.map(|p| p.parse()).transpose()?,
        touch: policy.touch.map(|p| p.parse()).transpose()?,
        pcrs: match &policy.pcrs[..] {
            [] => None,
            pcrs => Some(PcrSelection::new(pcrs.iter().map(|n| u8::try_from(*n).unwrap_or(u8::MAX)))?),
        },
        pcr_authority: policy.pcr_authority.map(|k| PublicKey::from_der(&k)).transpose()?,
    })
}

pub(crate) fn evidence_to_pb(evidence: Evidence) -> pb::Evidence {
    pb::Evidence { format: evidence.format.name().to_owned(), parts: evidence.parts }
}

pub(crate) fn evidence_from_pb(evidence: pb::Evidence) -> Result<Evidence> {
    Ok(Evidence { format: EvidenceFormat::from_name(&evidence.format)?, parts: evidence.parts })
}

pub(crate) fn key_from_pb(key: pb::KeyInfo) -> Result<KeyInfo> {
    let algorithms = key.algorithms.iter().map(|a| a.parse()).collect::<Result<Vec<_>>>()?;
    if algorithms.is_empty() || algorithms.len() > 255 {
        return Err(Error::internal("the driver described a key without algorithms").key(key.name));
    }
    Ok(KeyInfo {
        name: key.name.parse()?,
        public_key: PublicKey::from_der(&key.public_key)?,
        algorithms,
        origin: match key.origin.as_str() {
            "generated" => KeyOrigin::Generated,
            "imported" => KeyOrigin::Imported,
            _ => KeyOrigin::Unknown,
        },
        extractable: key.extractable,
        created: key.created_unix.and_then(|s| SystemTime::checked_add(&UNIX_EPOCH, Duration::from_secs(s))),
        id: key.id,
        address: key.address.map(|a| a.parse()).transpose()?,
        certificate: key.certificate,
        policy: policy_from_pb(key.policy)?,
    })
}

pub(crate) fn page_to_pb(page: &KeyPage) -> pb::KeyPage {
    pb::KeyPage { keys: page.keys.iter().map(key_to_pb).collect(), next: page.next.clone() }
}

pub(crate) fn page_from_pb(page: pb::KeyPage) -> Result<KeyPage> {
    Ok(KeyPage { keys: page.keys.into_iter().map(key_from_pb).collect::<Result<_>>()?, next: page.next })
}

pub(crate) fn info_to_pb(info: BackendInfo) -> pb::BackendInfo {
    let names = |types: &[KeyType]| types.iter().map(|t| t.name().to_owned()).collect();
    pb::BackendInfo {
        generates: names(&info.generates),
        imports: names(&info.imports),
        kind: info.kind,
        device: info.device,
        model: info.model,
        firmware: info.firmware,
        serial: info.serial,
        max_message: info.max_message,
    }
}

pub(crate) fn info_from_pb(info: pb::BackendInfo) -> BackendInfo {
    // A kind of key that only a newer driver knows is left out: nobody here could use it.
    let types = |names: Vec<String>| names.iter().filter_map(|n| n.parse().ok()).collect();
    BackendInfo {
        generates: types(info.generates),
        imports: types(info.imports),
        kind: info.kind,
        device: info.device,
        model: info.model,
        firmware: info.firmware,
        serial: info.serial,
        max_message: info.max_message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        for kind in ErrorKind::ALL {
            let error =
                Error::new(kind, "what").key("k").device("d").next("n").vendor("v").may_have_happened();
            assert_eq!(error_from_pb(error_to_pb(&error)), error);
            let plain = Error::new(kind, "what");
            assert_eq!(error_from_pb(error_to_pb(&plain)), plain);
        }
    }
}
