//! Public keys as cards give them: in the answer to GENERATE, in metadata, in certificates.

use der::{Decode, Encode};
use signer_core::{Error, KeyType, PublicKey, Result};
use x509_cert::Certificate;

use crate::{algorithm, tlv};

/// Reads the elements of a public key of this algorithm (SP 800-73-4 part 2, table 11): 81 and 82 for RSA, 86 for
/// elliptic curves. `Ok(None)` for a kind of key that does not sign here.
pub(crate) fn of_elements(identifier: u8, elements: &[u8]) -> Result<Option<PublicKey>> {
    let Some(key_type) = algorithm::key_type(identifier) else { return Ok(None) };
    let element = |tag| {
        tlv::find(elements, tag)
            .ok_or_else(|| Error::internal("the card gave a public key that is not whole"))
    };
    let key = match key_type {
        KeyType::Ed25519 => PublicKey::from_raw(key_type, element(0x86)?)?,
        _ if key_type.rsa_bits().is_some() => PublicKey::from_rsa(element(0x81)?, element(0x82)?)?,
        _ => PublicKey::from_ec_point(key_type, element(0x86)?)?,
    };
    Ok(Some(key))
}

/// The public key of a certificate; `BadRequest` if the bytes are none.
pub(crate) fn of_certificate(certificate: &[u8]) -> Result<PublicKey> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|e| Error::bad_request("this is not an X.509 certificate").vendor(e))?;
    let spki = parsed
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()
        .map_err(|e| Error::bad_request("the certificate's public key cannot be read").vendor(e))?;
    PublicKey::from_der(&spki)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_do_not_sign_here_are_none() {
        assert_eq!(of_elements(0x06, &[]).unwrap(), None, "RSA-1024");
        assert_eq!(of_elements(0xe1, &[]).unwrap(), None, "X25519");
        assert!(of_elements(0x11, &[]).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), identifier: u8) {
            let _ = of_elements(identifier, &bytes);
            let _ = of_certificate(&bytes);
        }
    }
}
