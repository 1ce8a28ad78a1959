//! The response of a LiquidSecurity card, big-endian throughout.
//!
//! Firmware 3 (`CAVIUM_V2`): a header of four words (result, flags, length of all, length of the information); the
//! information ends where the signature begins, and starts with four half-words (version, flags, where the first object is
//! in it, where the second). Firmware 2 (`CAVIUM_V1`): one object, 20 bytes behind the beginning.
//! An object is three words (handle, number of attributes, bytes of them), then each attribute as type, length, value, with
//! PKCS#11's numbers. A key pair has two objects. The last 256 bytes are the partition's signature over all before.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use signer_core::{Error, KeyType, PublicKey, Result};

use crate::bytes::Reader;

const SIGNATURE_LEN: usize = 256;
/// Behind what stands in front of the only object in a response of firmware 2.
const FIRST_OBJECT_V1: usize = 20;
/// A response has two kilobytes; compressed data that grows to more than this is no response.
const MAX_LEN: u64 = 1 << 20;
/// Keys have three dozen.
const MAX_ATTRIBUTES: u32 = 512;

/// CKA_CLASS, and its values.
const CLASS: u32 = 0x0000;
const PUBLIC_KEY: u64 = 2;
const PRIVATE_KEY: u64 = 3;
/// CKA_ID.
pub(crate) const ID: u32 = 0x0102;
/// CKA_SENSITIVE.
pub(crate) const SENSITIVE: u32 = 0x0103;
/// CKA_MODULUS; of an elliptic curve key the point.
const MODULUS: u32 = 0x0120;
/// CKA_PUBLIC_EXPONENT.
const PUBLIC_EXPONENT: u32 = 0x0122;
/// CKA_EXTRACTABLE.
pub(crate) const EXTRACTABLE: u32 = 0x0162;
/// CKA_LOCAL.
pub(crate) const LOCAL: u32 = 0x0163;
/// CKA_NEVER_EXTRACTABLE.
pub(crate) const NEVER_EXTRACTABLE: u32 = 0x0164;
/// Marvell's "extended key check value": SHA-256 of the SubjectPublicKeyInfo.
const KEY_DIGEST: u32 = 0x1003;

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    /// What the signature is over.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8],
    objects: Vec<Object<'a>>,
}

/// The attributes of one object.
#[derive(Debug)]
pub(crate) struct Object<'a>(Vec<(u32, &'a [u8])>);

/// Undoes the compression, where there is one.
pub(crate) fn decompressed(content: &[u8]) -> Result<Vec<u8>> {
    if !content.starts_with(&[0x1F, 0x8B]) {
        return Ok(content.to_vec());
    }
    let mut whole = Vec::new();
    let read = MultiGzDecoder::new(content).take(MAX_LEN + 1).read_to_end(&mut whole);
    read.map_err(|e| Error::bad_request("the HSM's statement cannot be decompressed").vendor(e))?;
    if whole.len() as u64 > MAX_LEN {
        return Err(Error::bad_request("the HSM's statement is longer than any that an HSM makes"));
    }
    Ok(whole)
}

impl<'a> Response<'a> {
    pub(crate) fn parse(content: &'a [u8]) -> Result<Self> {
        let malformed = || Error::bad_request("this is not the statement of an HSM that is known here");
        let at = content.len().checked_sub(SIGNATURE_LEN).ok_or_else(malformed)?;
        let (signed, signature) = content.split_at(at);
        let objects =
            objects_v2(content.len(), signed).or_else(|| objects_v1(signed)).ok_or_else(malformed)?;
        Ok(Self { signed, signature, objects })
    }

    pub(crate) fn private_key(&self) -> Result<&Object<'a>> {
        self.of_class(PRIVATE_KEY)
            .ok_or_else(|| Error::bad_request("the HSM's statement is not about a private key"))
    }

    pub(crate) fn public_key(&self) -> Option<&Object<'a>> {
        self.of_class(PUBLIC_KEY)
    }

    fn of_class(&self, class: u64) -> Option<&Object<'a>> {
        self.objects.iter().find(|o| o.number(CLASS) == Some(class))
    }
}

fn objects_v2(whole: usize, signed: &[u8]) -> Option<Vec<Object<'_>>> {
    let mut header = Reader::new(signed);
    let (_result, _flags) = (header.u32()?, header.u32()?);
    let (total, information) = (header.u32()? as usize, header.u32()? as usize);
    if total != whole {
        return None;
    }
    let information = signed.get(signed.len().checked_sub(information)?..)?;
    let mut header = Reader::new(information);
    let (_version, _flags) = (header.u16()?, header.u16()?);
    let (first, second) = (usize::from(header.u16()?), usize::from(header.u16()?));
    let mut objects = vec![Object::parse(information.get(first..)?)?];
    // A secret key has no second one.
    if second != 0 {
        objects.push(Object::parse(information.get(second..)?)?);
    }
    Some(objects)
}

fn objects_v1(signed: &[u8]) -> Option<Vec<Object<'_>>> {
    Some(vec![Object::parse(signed.get(FIRST_OBJECT_V1..)?)?])
}

impl<'a> Object<'a> {
    /// Reads one object; something may stand behind it.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (_handle, count, _len) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if count == 0 || count > MAX_ATTRIBUTES {
            return None;
        }
        let mut attributes: Vec<(u32, &[u8])> = Vec::new();
        for _ in 0..count {
            let (attribute, len) = (reader.u32()?, reader.u32()? as usize);
            let value = reader.take(len)?;
            // Said twice is not said.
            if attributes.iter().any(|(there, _)| *there == attribute) {
                return None;
            }
            attributes.push((attribute, value));
        }
        Some(Self(attributes))
    }

    fn value(&self, attribute: u32) -> Option<&'a [u8]> {
        self.0.iter().find(|(a, _)| *a == attribute).map(|(_, value)| *value)
    }

    fn number(&self, attribute: u32) -> Option<u64> {
        let value = self.value(attribute).filter(|v| !v.is_empty() && v.len() <= 8)?;
        Some(value.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&self, attribute: u32) -> Option<bool> {
        match self.value(attribute)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// Text in a field of fixed length.
    pub(crate) fn text(&self, attribute: u32) -> Option<String> {
        let text = std::str::from_utf8(self.value(attribute)?).ok()?.trim_matches('\0');
        let printable = !text.is_empty() && text.chars().all(|c| !c.is_control());
        printable.then(|| text.to_owned())
    }

    /// Whether the digest of the public key that is there is of this one.
    pub(crate) fn digest_fits(&self, key: &PublicKey) -> Option<bool> {
        self.value(KEY_DIGEST).map(|digest| digest == key.fingerprint().as_bytes())
    }

    /// Whether the public key that is there is this one.
    pub(crate) fn material_fits(&self, key: &PublicKey) -> Option<bool> {
        let material = self.value(MODULUS).filter(|m| !m.is_empty())?;
        Some(match key.key_type() {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                let exponent = self.number(PUBLIC_EXPONENT).unwrap_or(65_537).to_be_bytes();
                PublicKey::from_rsa(unpadded(material), unpadded(&exponent)).is_ok_and(|k| k == *key)
            }
            _ => material == key.key_bytes(),
        })
    }
}

fn unpadded(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|b| **b == 0).count()..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The attributes of a public key in a real response, as the guide of the program kms-attestation (PeculiarVentures) shows
    /// them: the digest is SHA-256 of the key's SubjectPublicKeyInfo, and the "modulus" its point.
    #[test]
    fn a_real_key_fits_its_attributes() {
        let point = hex::decode(
            "0448325169a37687389bf6de2febaf15985d0352708bbe022b2b9c4c6efb78dc7fd54e0d20a3aa6e06ee53b1052f611a0d42b61081498d\
             b789c09756b8010ada70",
        );
        let digest = hex::decode("4075a3e5a13e33095430962abcbacbef32d7737234868785d2420893293fc86a").unwrap();
        let point = point.unwrap();
        let key = PublicKey::from_ec_point(KeyType::EcdsaP256, &point).unwrap();
        let object = Object(vec![(MODULUS, &point), (KEY_DIGEST, &digest)]);
        assert_eq!((object.material_fits(&key), object.digest_fits(&key)), (Some(true), Some(true)));
        let other = Object(vec![(MODULUS, &digest), (KEY_DIGEST, &point)]);
        assert_eq!((other.material_fits(&key), other.digest_fits(&key)), (Some(false), Some(false)));
        assert_eq!(Object(Vec::new()).digest_fits(&key), None);
    }

    #[test]
    fn compressed_data_does_not_grow_without_end() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&vec![0; 2 << 20]).unwrap();
        assert!(decompressed(&gz.finish().unwrap()).unwrap_err().what().contains("longer"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            crate::fuzz::hsm(&bytes);
        }

        /// What claims its own length reaches the objects.
        #[test]
        fn foreign_objects_never_panic(
            information in 0_u32..400,
            rest in proptest::collection::vec(any::<u8>(), 256..700),
        ) {
            let total = 16 + rest.len() as u32;
            let header = [0, 3, total, information].into_iter().flat_map(u32::to_be_bytes);
            let bytes: Vec<u8> = header.chain(rest).collect();
            crate::fuzz::hsm(&bytes);
        }
    }
}
