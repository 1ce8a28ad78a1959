//! Signatures in the one encoding of their algorithm.

use std::fmt;

use der::{Decode, Encode, asn1::UintRef};

use crate::{Error, KeyType, Result};

/// A signature: DER `ECDSA-Sig-Value` for ECDSA, the plain bytes of the scheme for all others.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

/// RFC 3279 section 2.2.3.
#[derive(der::Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl Signature {
    /// Takes bytes that already are in the encoding that [`crate::SignatureAlgorithm`] fixes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Encodes the `r ‖ s` that PKCS#11, TPM and Azure devices give for ECDSA: two numbers of the same length each.
    pub fn from_ecdsa_raw(raw: &[u8]) -> Result<Self> {
        let (r, s) = raw
            .split_at_checked(raw.len() / 2)
            .filter(|(r, s)| r.len() == s.len() && !r.is_empty())
            .ok_or_else(|| {
                Error::internal(format!("the device gave an ECDSA signature of {} bytes", raw.len()))
            })?;
        let encode = || EcdsaSigValue { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der();
        Ok(Self(encode().map_err(|e| Error::internal("an ECDSA signature cannot be encoded").vendor(e))?))
    }

    /// The `r ‖ s` form of an ECDSA signature, each as long as the key's field.
    pub fn to_ecdsa_raw(&self, key_type: KeyType) -> Result<Vec<u8>> {
        let wrong = || Error::bad_request(format!("this is not an ECDSA signature by a {key_type} key"));
        let len = key_type.ecdsa_field_len().ok_or_else(wrong)?;
        let value = EcdsaSigValue::from_der(&self.0).map_err(|_| wrong())?;
        let mut raw = vec![0; 2 * len];
        for (half, number) in raw.chunks_mut(len).zip([value.r, value.s]) {
            let bytes = number.as_bytes();
            let start = len.checked_sub(bytes.len()).ok_or_else(wrong)?;
            half[start..].copy_from_slice(bytes);
        }
        Ok(raw)
    }

    /// The encoded signature.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoded signature.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn raw_ecdsa_signatures_survive_the_encoding(raw in proptest::collection::vec(any::<u8>(), 96)) {
            let signature = Signature::from_ecdsa_raw(&raw).unwrap();
            prop_assert_eq!(signature.to_ecdsa_raw(KeyType::EcdsaP384).unwrap(), raw);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Signature::new(bytes.clone()).to_ecdsa_raw(KeyType::EcdsaP256);
            let _ = Signature::from_ecdsa_raw(&bytes);
        }
    }

    #[test]
    fn small_numbers_are_padded_and_odd_lengths_refused() {
        let mut raw = [0; 64];
        raw[31] = 1;
        raw[63] = 0x80;
        let signature = Signature::from_ecdsa_raw(&raw).unwrap();
        assert_eq!(signature.as_bytes(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(signature.to_ecdsa_raw(KeyType::EcdsaP256).unwrap(), raw);
        assert!(Signature::from_ecdsa_raw(&[1; 63]).is_err());
        assert!(Signature::from_ecdsa_raw(&[]).is_err());
    }
}
