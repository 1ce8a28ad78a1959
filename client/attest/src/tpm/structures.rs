//! The structures of a statement (TPM 2.0 Library, part 2). Each is read whole: what is behind it makes it malformed.

use signer_core::{Digest, Error, HashAlgorithm, Input, KeyType, PublicKey, Result, SignatureAlgorithm};

use crate::bytes::Reader;

/// TPM_GENERATED_VALUE: only the TPM itself signs what begins so with a restricted key.
const GENERATED: u32 = 0xFF54_4347;
/// TPM_ST_ATTEST_CERTIFY.
const CERTIFY: u16 = 0x8017;
/// TPM_RH_ENDORSEMENT.
const ENDORSEMENT: u32 = 0x4000_000B;

/// TPM_ALG_ID (section 6.3).
mod alg {
    pub(super) const RSA: u16 = 0x0001;
    pub(super) const NULL: u16 = 0x0010;
    pub(super) const RSASSA: u16 = 0x0014;
    pub(super) const RSAES: u16 = 0x0015;
    pub(super) const RSAPSS: u16 = 0x0016;
    pub(super) const ECDSA: u16 = 0x0018;
    pub(super) const ECDAA: u16 = 0x001A;
    pub(super) const ECC: u16 = 0x0023;
}

/// TPMA_OBJECT (section 8.3).
mod attribute {
    pub(super) const FIXED_TPM: u32 = 1 << 1;
    pub(super) const FIXED_PARENT: u32 = 1 << 4;
    pub(super) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub(super) const USER_WITH_AUTH: u32 = 1 << 6;
    pub(super) const RESTRICTED: u32 = 1 << 16;
    pub(super) const DECRYPT: u32 = 1 << 17;
    pub(super) const SIGN: u32 = 1 << 18;
}

/// `TPMS_ATTEST` (section 10.12.12).
pub(crate) struct Attest<'a> {
    /// The whole of it: what is signed.
    pub(crate) bytes: &'a [u8],
    /// Whether it has the magic number of what a TPM makes itself.
    pub(crate) is_generated: bool,
    /// The Qualified Name of the key that signed.
    qualified_signer: &'a [u8],
    /// What whoever asked gave.
    pub(crate) qualifying: &'a [u8],
    firmware: u64,
    /// The Name of the certified key; `None` when the statement is of another kind.
    pub(crate) certified: Option<&'a [u8]>,
}

impl<'a> Attest<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let is_generated = reader.u32()? == GENERATED;
        let kind = reader.u16()?;
        let qualified_signer = reader.sized()?;
        let qualifying = reader.sized()?;
        // TPMS_CLOCK_INFO: the clock, how often it was reset and restarted, whether the clock is safe.
        let _clock = (reader.u64()?, reader.u32()?, reader.u32()?, reader.u8()?);
        let firmware = reader.u64()?;
        let certified = if kind == CERTIFY {
            // TPMS_CERTIFY_INFO: Name and Qualified Name.
            let name = reader.sized()?;
            reader.sized()?;
            if !reader.is_empty() {
                return None;
            }
            Some(name)
        } else {
            None
        };
        Some(Self { bytes, is_generated, qualified_signer, qualifying, firmware, certified })
    }

    /// The version of the firmware, in the four numbers that most makers mean by it.
    pub(crate) fn firmware_text(&self) -> String {
        let [a, b, c, d, e, f, g, h] = self.firmware.to_be_bytes();
        let numbers = [[a, b], [c, d], [e, f], [g, h]].map(|n| u16::from_be_bytes(n).to_string());
        numbers.join(".")
    }

    /// Whether the key of this Name signed as a primary key of the endorsement hierarchy: its Qualified Name is the digest
    /// of the hierarchy and its Name (part 1, section 16).
    pub(crate) fn signed_under_endorsement(&self, name: &[u8]) -> bool {
        let Some((algorithm, _)) = name.split_at_checked(2) else { return false };
        let whole = [&ENDORSEMENT.to_be_bytes()[..], name].concat();
        name_of(algorithm, &whole).is_some_and(|qualified| qualified == self.qualified_signer)
    }
}

/// `TPMT_PUBLIC` (section 12.2.4) of a key that signs.
pub(crate) struct Public {
    attributes: u32,
    /// The digest of its policy, empty when it has none.
    pub(crate) policy: Vec<u8>,
    /// Its Name.
    pub(crate) name: Vec<u8>,
    unique: Unique,
}

enum Unique {
    Rsa { modulus: Vec<u8>, exponent: u32 },
    Ecc { curve: u16, x: Vec<u8>, y: Vec<u8> },
}

impl Public {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        let name_algorithm = reader.take(2)?;
        let attributes = reader.u32()?;
        let policy = reader.sized()?.to_vec();
        // TPMT_SYM_DEF_OBJECT: an algorithm, and unless it is none the length of its key and its mode.
        if reader.u16()? != alg::NULL {
            reader.take(4)?;
        }
        let scheme = reader.u16()?;
        match scheme {
            alg::NULL | alg::RSAES => {}
            alg::ECDAA => {
                reader.take(4)?;
            }
            _ => {
                reader.take(2)?;
            }
        }
        let unique = match kind {
            alg::RSA => {
                let _bits = reader.u16()?;
                let exponent = match reader.u32()? {
                    0 => 65_537,
                    other => other,
                };
                Unique::Rsa { modulus: reader.sized()?.to_vec(), exponent }
            }
            alg::ECC => {
                let curve = reader.u16()?;
                // TPMT_KDF_SCHEME.
                if reader.u16()? != alg::NULL {
                    reader.take(2)?;
                }
                Unique::Ecc { curve, x: reader.sized()?.to_vec(), y: reader.sized()?.to_vec() }
            }
            _ => return None,
        };
        if !reader.is_empty() {
            return None;
        }
        let name = name_of(name_algorithm, bytes)?;
        Some(Self { attributes, policy, name, unique })
    }

    /// With or without the length in front: `TPM2B_PUBLIC` as well.
    pub(crate) fn from_either(bytes: &[u8]) -> Option<Self> {
        Self::parse(without_len(bytes))
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey> {
        match &self.unique {
            Unique::Rsa { modulus, exponent } => {
                let exponent = exponent.to_be_bytes();
                let leading = exponent.iter().take_while(|b| **b == 0).count();
                PublicKey::from_rsa(modulus, &exponent[leading..])
            }
            Unique::Ecc { curve, x, y } => {
                let unknown = || {
                    Error::new(
                        signer_core::ErrorKind::Unsupported,
                        format!("the TPM's key is on a curve that is not known here (0x{curve:04x})"),
                    )
                };
                let key_type = match curve {
                    3 => KeyType::EcdsaP256,
                    4 => KeyType::EcdsaP384,
                    5 => KeyType::EcdsaP521,
                    _ => return Err(unknown()),
                };
                let len = key_type.ecdsa_field_len().ok_or_else(unknown)?;
                let mut point = vec![4];
                for number in [x, y] {
                    point.extend(padded(number, len).ok_or_else(unknown)?);
                }
                PublicKey::from_ec_point(key_type, &point)
            }
        }
    }

    fn has(&self, attributes: u32) -> bool {
        self.attributes & attributes == attributes
    }

    pub(crate) fn fixed_tpm(&self) -> bool {
        self.has(attribute::FIXED_TPM)
    }

    pub(crate) fn fixed_parent(&self) -> bool {
        self.has(attribute::FIXED_PARENT)
    }

    pub(crate) fn sensitive_data_origin(&self) -> bool {
        self.has(attribute::SENSITIVE_DATA_ORIGIN)
    }

    pub(crate) fn user_with_auth(&self) -> bool {
        self.has(attribute::USER_WITH_AUTH)
    }

    /// Whether it is a key that never left its TPM and signs nothing from outside that could be taken for a statement.
    pub(crate) fn signs_only_statements(&self) -> bool {
        use attribute::{FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN};
        self.has(RESTRICTED | SIGN | FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN)
            && !self.has(attribute::DECRYPT)
    }
}

/// `TPMT_SIGNATURE` (section 11.3.4).
pub(crate) struct Signature {
    algorithm: SignatureAlgorithm,
    value: Value,
}

enum Value {
    Rsa(Vec<u8>),
    Ecdsa { r: Vec<u8>, s: Vec<u8> },
}

impl Signature {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        let hash = hash(reader.u16()?)?;
        let (algorithm, value) = match kind {
            alg::RSASSA => (SignatureAlgorithm::RsaPkcs1(hash), Value::Rsa(reader.sized()?.to_vec())),
            alg::RSAPSS => (SignatureAlgorithm::RsaPss(hash), Value::Rsa(reader.sized()?.to_vec())),
            alg::ECDSA => {
                let (r, s) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
                (SignatureAlgorithm::Ecdsa(hash), Value::Ecdsa { r, s })
            }
            _ => return None,
        };
        reader.is_empty().then_some(Self { algorithm, value })
    }

    /// `Denied` when it is not by this key.
    pub(crate) fn verify(&self, key: &PublicKey, message: &[u8]) -> Result<()> {
        let wrong = || Error::new(signer_core::ErrorKind::Denied, "the signature does not verify");
        let signature = match &self.value {
            Value::Rsa(bytes) => bytes.clone(),
            Value::Ecdsa { r, s } => {
                let len = key.key_type().ecdsa_field_len().ok_or_else(wrong)?;
                let raw = [padded(r, len).ok_or_else(wrong)?, padded(s, len).ok_or_else(wrong)?].concat();
                signer_core::Signature::from_ecdsa_raw(&raw).map_err(|_| wrong())?.into_bytes()
            }
        };
        if !key.key_type().algorithms().contains(&self.algorithm) {
            return Err(wrong());
        }
        key.verify(self.algorithm, &Input::Message(message.to_vec().into()), &signature)
    }
}

/// Whether it has the form of a Name of a known hash function.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    bytes.split_at_checked(2).is_some_and(|(algorithm, digest)| {
        let id = u16::from_be_bytes([algorithm[0], algorithm[1]]);
        hash(id).is_some_and(|hash| digest.len() == hash.len())
    })
}

/// Takes the length off that tpm2-tools put in front of some structures.
pub(crate) fn without_len(bytes: &[u8]) -> &[u8] {
    let mut reader = Reader::new(bytes);
    match reader.sized() {
        Some(inside) if reader.is_empty() => inside,
        _ => bytes,
    }
}

/// A hash function's identifier, and the digest by it (part 1, section 16).
fn name_of(algorithm: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(algorithm.try_into().ok()?);
    let digest = Digest::of(hash(id)?, bytes);
    Some([algorithm, digest.as_bytes()].concat())
}

/// SHA-1, which can be forged, is not among them.
fn hash(id: u16) -> Option<HashAlgorithm> {
    match id {
        0x000B => Some(HashAlgorithm::Sha256),
        0x000C => Some(HashAlgorithm::Sha384),
        0x000D => Some(HashAlgorithm::Sha512),
        _ => None,
    }
}

/// A number in so many bytes: TPMs leave zeros in front away, or do not.
fn padded(number: &[u8], len: usize) -> Option<Vec<u8>> {
    let significant = &number[number.iter().take_while(|b| **b == 0).count()..];
    let missing = len.checked_sub(significant.len())?;
    Some([&vec![0; missing], significant].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzz::tpm(&bytes);
        }

        /// A public area that begins as one does reaches further into the parser.
        #[test]
        fn foreign_public_areas_never_panic(
            kind in prop_oneof![Just(alg::RSA), Just(alg::ECC)],
            rest in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [&kind.to_be_bytes()[..], &[0, 0x0B], &rest].concat();
            if let Some(public) = Public::parse(&bytes) {
                prop_assert!(is_name(&public.name));
                let _ = public.public_key();
            }
        }
    }

    #[test]
    fn lengths_in_front_are_taken_off_when_they_fit() {
        assert_eq!(without_len(&[0, 2, 7, 8]), [7, 8]);
        assert_eq!(without_len(&[0, 1, 7, 8]), [0, 1, 7, 8]);
        assert_eq!(padded(&[0, 0, 1], 2), Some(vec![0, 1]));
        assert_eq!(padded(&[1, 1, 1], 2), None);
    }
}
