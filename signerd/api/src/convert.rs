//! Keys and backends as the API's messages, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signer_core::{
    Ability, BackendInfo, BackendName, Error, Evidence, EvidenceFormat, KeyInfo, KeyName, KeyOrigin,
    KeyPolicy, KeyRef, KeyType, PcrSelection, PublicKey, Result,
};

use crate::{BackendStatus, MemberStatus, NamedKey, error_from_pb, error_to_pb, pb};

/// A key of `backend` as a message.
pub fn key_to_pb(backend: &str, key: &KeyInfo) -> pb::Key {
    pb::Key {
        reference: format!("{backend}/{}", key.name),
        key_type: key.public_key.key_type().name().to_owned(),
        public_key: key.public_key.as_der().to_vec(),
        algorithms: key.algorithms.iter().map(|a| a.name().to_owned()).collect(),
        origin: key.origin.name().to_owned(),
        extractable: key.extractable,
        created_unix: key.created.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs()),
        id: key.id.clone(),
        address: key.address.as_ref().map(ToString::to_string),
        certificate: key.certificate.clone(),
        policy: policy_to_pb(&key.policy),
        members: Vec::new(),
        order: String::new(),
    }
}

/// A key that several places hold, by its configured name, as a message.
pub fn group_to_pb(order: &str, key: &KeyInfo, members: Vec<pb::Member>) -> pb::Key {
    let name = key.name.to_string();
    pb::Key { reference: name.clone(), order: order.to_owned(), members, ..key_to_pb(&name, key) }
}

/// A key that several places hold.
pub(crate) fn named_key_from_pb(key: pb::NamedKey) -> NamedKey {
    NamedKey { name: key.name, order: key.order, members: members_from_pb(key.members) }
}

pub(crate) fn members_from_pb(members: Vec<pb::Member>) -> Vec<MemberStatus> {
    let member = |m: pb::Member| MemberStatus {
        reference: m.reference,
        state: m.state,
        error: m.error.map(error_from_pb),
    };
    members.into_iter().map(member).collect()
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

/// What a caller demands of a new key; a word that is not known here is an error.
pub fn policy_from_pb(policy: Option<pb::KeyPolicy>) -> Result<KeyPolicy> {
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

/// A device's statement as a message.
pub fn evidence_to_pb(evidence: Evidence) -> pb::Evidence {
    pb::Evidence { format: evidence.format.name().to_owned(), parts: evidence.parts }
}

pub(crate) fn evidence_from_pb(evidence: pb::Evidence) -> Result<Evidence> {
    Ok(Evidence { format: EvidenceFormat::from_name(&evidence.format)?, parts: evidence.parts })
}

/// The backend and the key that a message describes; a key that several places hold has its configured name for both.
/// Algorithms and addresses that only a newer daemon knows are
/// left out; a key without any algorithm known here is an error.
pub fn key_from_pb(key: pb::Key) -> Result<(BackendName, KeyInfo)> {
    let (backend, name) = match key.reference.parse()? {
        KeyRef::InBackend { backend, key } => (backend, key),
        KeyRef::Configured(name) => {
            let label = KeyName::label(name.as_str())?;
            (name, label)
        }
        KeyRef::Address(_) => {
            return Err(Error::internal("the daemon described a key without its backend").key(key.reference));
        }
    };
    let algorithms: Vec<_> = key.algorithms.iter().filter_map(|a| a.parse().ok()).collect();
    if algorithms.is_empty() {
        return Err(Error::internal("the daemon described a key without algorithms").key(key.reference));
    }
    let info = KeyInfo {
        name,
        public_key: PublicKey::from_der(&key.public_key)?,
        algorithms,
        origin: [KeyOrigin::Generated, KeyOrigin::Imported]
            .into_iter()
            .find(|o| o.name() == key.origin)
            .unwrap_or_default(),
        extractable: key.extractable,
        created: key.created_unix.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))),
        id: key.id,
        address: key.address.and_then(|a| a.parse().ok()),
        certificate: key.certificate,
        policy: policy_from_pb(key.policy)?,
    };
    Ok((backend, info))
}

/// A backend as a message. `health` is the error that it has now.
pub fn backend_to_pb(
    name: &str,
    info: &BackendInfo,
    abilities: &[Ability],
    health: Option<&Error>,
) -> pb::Backend {
    let names = |types: &[KeyType]| types.iter().map(|t| t.name().to_owned()).collect();
    pb::Backend {
        name: name.to_owned(),
        kind: info.kind.clone(),
        device: info.device.clone(),
        model: info.model.clone(),
        firmware: info.firmware.clone(),
        serial: info.serial.clone(),
        abilities: abilities.iter().map(|a| a.name().to_owned()).collect(),
        generates: names(&info.generates),
        imports: names(&info.imports),
        max_message: info.max_message,
        health: health.map(error_to_pb),
    }
}

/// The backend that a message describes. Abilities and kinds of keys that only a newer daemon knows are left out.
pub fn backend_from_pb(backend: pb::Backend) -> Result<BackendStatus> {
    let types = |names: Vec<String>| names.iter().filter_map(|n| n.parse().ok()).collect();
    Ok(BackendStatus {
        name: backend.name.parse()?,
        abilities: backend.abilities.iter().filter_map(|a| Ability::from_name(a)).collect(),
        info: BackendInfo {
            generates: types(backend.generates),
            imports: types(backend.imports),
            kind: backend.kind,
            device: backend.device,
            model: backend.model,
            firmware: backend.firmware,
            serial: backend.serial,
            max_message: backend.max_message,
        },
        health: backend.health.map(error_from_pb),
    })
}

/// A moment of an event, to the microsecond; the beginning of 1970 for anything before.
pub(crate) fn time_from_us(us: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(us)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use signer_core::{ErrorKind, SignatureAlgorithm};

    use super::*;

    fn key() -> KeyInfo {
        // RFC 8410 section 10.1.
        let raw = [
            0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96,
            0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
        ];
        KeyInfo {
            name: "a key/with@2".parse().unwrap(),
            public_key: PublicKey::from_raw(KeyType::Ed25519, &raw).unwrap(),
            algorithms: vec![SignatureAlgorithm::Ed25519ph, SignatureAlgorithm::Ed25519],
            origin: KeyOrigin::Generated,
            extractable: Some(false),
            created: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            id: Some(vec![1, 2]),
            address: Some("pkcs11:token=t;object=k".parse().unwrap()),
            certificate: Some(vec![0x30, 0]),
            policy: KeyPolicy {
                pin: Some(signer_core::PinPolicy::Always),
                touch: Some(signer_core::TouchPolicy::Cached),
                pcrs: Some("0,7".parse().unwrap()),
                pcr_authority: Some(PublicKey::from_raw(KeyType::Ed25519, &raw).unwrap()),
            },
        }
    }

    #[test]
    fn a_key_survives_the_wire() {
        let (backend, back) = key_from_pb(key_to_pb("hsm", &key())).unwrap();
        assert_eq!(backend.as_str(), "hsm");
        assert_eq!(back, key());
    }

    #[test]
    fn what_only_a_newer_daemon_knows_is_left_out() {
        let mut newer = key_to_pb("hsm", &key());
        newer.algorithms.push("falcon".into());
        newer.address = Some("mars://crater".into());
        let (_, back) = key_from_pb(newer.clone()).unwrap();
        assert_eq!(back.algorithms.len(), 2);
        assert_eq!(back.address, None);
        newer.algorithms = vec!["falcon".into()];
        assert_eq!(key_from_pb(newer).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_backend_survives_the_wire() {
        let info = BackendInfo {
            kind: "pkcs11".into(),
            device: "token".into(),
            generates: vec![KeyType::EcdsaP256],
            max_message: Some(7),
            ..BackendInfo::default()
        };
        let gone = Error::new(ErrorKind::DeviceGone, "away").device("hsm");
        let back = backend_from_pb(backend_to_pb("hsm", &info, &[Ability::Rotate], Some(&gone))).unwrap();
        assert_eq!(back.info, info);
        assert_eq!(back.abilities, [Ability::Rotate]);
        assert_eq!(back.health, Some(gone));
    }
}
