//! What is in the slots.

use std::io::Read;

use der::{
    Decode,
    asn1::{ObjectIdentifier, OctetStringRef},
};
use flate2::read::GzDecoder;
use signer_core::{Address, Error, ErrorKind, KeyInfo, KeyOrigin, KeyPolicy, PivAddress, PublicKey, Result};
use x509_cert::Certificate;

use crate::{
    algorithm,
    apdu::Command,
    applet::{Applet, pin_policy, touch_policy},
    fault::Fault,
    firmware::Firmware,
    identity::Identity,
    public_half,
    slot::{ATTESTATION_OBJECT, Slot},
    status::Status,
    tlv,
};

/// More than any certificate that fits a card is long.
const MAX_CERTIFICATE: u64 = 64 * 1024;
/// Yubico's extension with the policies of an attested key: a byte for the PIN, a byte for the touch.
const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.8");

/// What is in one slot.
pub(crate) enum Content {
    Empty,
    /// A key of a kind that does not sign here (RSA-1024, X25519).
    Other,
    Key(SlotKey),
}

/// A key in a slot, as the card describes it.
#[derive(Clone)]
pub(crate) struct SlotKey {
    pub(crate) public_key: PublicKey,
    pub(crate) origin: KeyOrigin,
    pub(crate) policy: KeyPolicy,
}

/// Finds out what is in a slot: from the card's metadata, where it has them; else from its attestation, which says more,
/// or from the certificate. On an old card a key that was imported and has no certificate cannot be seen.
pub(crate) fn look(applet: &Applet<'_>, slot: Slot) -> Result<Content, Fault> {
    if applet.identity.firmware.is_some_and(Firmware::has_metadata) {
        let Some(metadata) = applet.metadata(slot.reference())? else { return Ok(Content::Empty) };
        let Some(public_key) = public_half::of_elements(metadata.algorithm, &metadata.public)? else {
            return Ok(Content::Other);
        };
        let origin = if metadata.imported { KeyOrigin::Imported } else { KeyOrigin::Generated };
        let policy = KeyPolicy { pin: metadata.pin, touch: metadata.touch, ..KeyPolicy::default() };
        return Ok(Content::Key(SlotKey { public_key, origin, policy }));
    }
    if let Some(attested) = attested(applet, slot)? {
        return Ok(attested);
    }
    let Some(certificate) = certificate(applet, slot)? else { return Ok(Content::Empty) };
    Ok(match public_half::of_certificate(&certificate) {
        Ok(public_key) => {
            let pin = Some(slot.default_pin_policy());
            let policy = KeyPolicy { pin, ..KeyPolicy::default() };
            Content::Key(SlotKey { public_key, origin: KeyOrigin::Unknown, policy })
        }
        Err(_) => Content::Other,
    })
}

/// The key in a slot; `NotFound` when there is none that signs.
pub(crate) fn key(applet: &Applet<'_>, slot: Slot) -> Result<SlotKey, Fault> {
    match look(applet, slot)? {
        Content::Key(key) => Ok(key),
        Content::Empty => Err(not_found(slot).into()),
        Content::Other => Err(Error::new(
            ErrorKind::NotFound,
            format!("what is in slot {slot} of the card is not a key that signs here"),
        )
        .into()),
    }
}

pub(crate) fn not_found(slot: Slot) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no key in slot {slot} of the card"))
}

/// The same key with what others need to know of it.
pub(crate) fn info(applet: &Applet<'_>, slot: Slot, key: SlotKey) -> Result<KeyInfo, Fault> {
    let certificate = certificate(applet, slot)?
        .filter(|c| public_half::of_certificate(c).is_ok_and(|certified| certified == key.public_key));
    Ok(KeyInfo {
        name: slot.name()?,
        algorithms: algorithm::algorithms(key.public_key.key_type()),
        public_key: key.public_key,
        origin: key.origin,
        extractable: Some(false),
        policy: key.policy,
        created: None,
        id: None,
        address: address(applet.identity, slot)?,
        certificate,
    })
}

/// All keys that sign.
pub(crate) fn all(applet: &Applet<'_>) -> Result<Vec<KeyInfo>, Fault> {
    let mut keys = Vec::new();
    for slot in Slot::all() {
        if let Content::Key(key) = look(applet, slot)? {
            keys.push(info(applet, slot, key)?);
        }
    }
    Ok(keys)
}

fn address(identity: &Identity, slot: Slot) -> Result<Option<Address>> {
    let address = identity.serial().map(|serial| PivAddress::new(serial, slot.reference())).transpose()?;
    Ok(address.map(Address::Piv))
}

/// The certificate in a slot, whoever's it is.
pub(crate) fn certificate(applet: &Applet<'_>, slot: Slot) -> Result<Option<Vec<u8>>, Fault> {
    Ok(applet.object(slot.certificate_object())?.and_then(|object| read_certificate(&object)))
}

/// The certificate that signs the card's attestations.
pub(crate) fn attestation_certificate(applet: &Applet<'_>) -> Result<Option<Vec<u8>>, Fault> {
    Ok(applet.object(ATTESTATION_OBJECT)?.and_then(|object| read_certificate(&object)))
}

/// Takes a certificate object apart (SP 800-73-4 part 1, table 10): 70 is the certificate, 71 says whether it is
/// compressed.
fn read_certificate(object: &[u8]) -> Option<Vec<u8>> {
    let bytes = tlv::find(object, 0x70).filter(|b| !b.is_empty())?;
    let compressed = tlv::find(object, 0x71).and_then(|i| i.first()).is_some_and(|i| i & 1 != 0);
    if !compressed {
        return Some(bytes.to_vec());
    }
    let mut whole = Vec::new();
    GzDecoder::new(bytes).take(MAX_CERTIFICATE).read_to_end(&mut whole).ok()?;
    Some(whole)
}

/// The object that holds a certificate.
pub(crate) fn certificate_object(certificate: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(certificate.len() + 16);
    tlv::push(&mut object, 0x70, certificate);
    tlv::push(&mut object, 0x71, &[0]);
    tlv::push(&mut object, 0xfe, &[]);
    object
}

/// ATTEST; `None` when the card does not vouch for the key, or there is none.
pub(crate) fn attestation(applet: &Applet<'_>, slot: Slot) -> Result<Option<Vec<u8>>, Fault> {
    let answer = applet.send(&Command::new(0xf9, slot.reference(), 0))?;
    Ok((answer.status == Status::OK && !answer.data.is_empty()).then(|| answer.data.to_vec()))
}

/// A key that was made in a card without metadata, as its attestation describes it.
fn attested(applet: &Applet<'_>, slot: Slot) -> Result<Option<Content>, Fault> {
    if !applet.identity.firmware.is_some_and(Firmware::attests) {
        return Ok(None);
    }
    let Some(statement) = attestation(applet, slot)? else { return Ok(None) };
    let Ok(public_key) = public_half::of_certificate(&statement) else { return Ok(Some(Content::Other)) };
    let policy = attested_policy(&statement);
    Ok(Some(Content::Key(SlotKey { public_key, origin: KeyOrigin::Generated, policy })))
}

fn attested_policy(statement: &[u8]) -> KeyPolicy {
    let parsed = Certificate::from_der(statement).ok();
    let bytes = parsed.as_ref().and_then(|certificate| {
        let extensions = certificate.tbs_certificate().extensions()?;
        let value = extensions.iter().find(|e| e.extn_id == POLICIES)?.extn_value.as_bytes();
        // Older firmware writes the two bytes as they are, newer wraps them.
        Some(<&OctetStringRef>::from_der(value).map_or(value, OctetStringRef::as_bytes))
    });
    let byte = |at: usize| bytes.and_then(|b| b.get(at)).copied();
    KeyPolicy {
        pin: byte(0).and_then(pin_policy),
        touch: byte(1).and_then(touch_policy),
        ..KeyPolicy::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn certificates_are_read_as_they_are_and_compressed() {
        assert_eq!(
            read_certificate(&certificate_object(b"certificate")).as_deref(),
            Some(&b"certificate"[..])
        );
        let mut compressor = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        compressor.write_all(b"certificate").unwrap();
        let mut object = Vec::new();
        tlv::push(&mut object, 0x70, &compressor.finish().unwrap());
        tlv::push(&mut object, 0x71, &[1]);
        assert_eq!(read_certificate(&object).as_deref(), Some(&b"certificate"[..]));
    }

    #[test]
    fn a_bomb_is_no_certificate_of_any_size() {
        let mut compressor = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        compressor.write_all(&vec![0; 10_000_000]).unwrap();
        let mut object = Vec::new();
        tlv::push(&mut object, 0x70, &compressor.finish().unwrap());
        tlv::push(&mut object, 0x71, &[1]);
        assert!(read_certificate(&object).unwrap().len() <= 64 * 1024);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_certificate(&bytes);
            let _ = attested_policy(&bytes);
        }
    }
}
