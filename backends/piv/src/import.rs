//! Taking keys in.

use der::{Decode, asn1::OctetStringRef};
use pkcs8::PrivateKeyInfoRef;
use signer_core::{BoxFuture, Error, Import, ImportRequest, KeyInfo, KeyOrigin, KeyType, PrivateKey, Result};
use zeroize::Zeroizing;

use crate::{
    PivBackend, algorithm,
    apdu::Command,
    changes::{made, policy_elements, refuse_taken, refuse_unknown, yubico},
    generate::refuse_identifier,
    inventory::SlotKey,
    slot::Slot,
    tlv,
};

impl Import for PivBackend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            let name = request.name.clone();
            self.import_now(request).await.map_err(|e| self.device.about(e.key(name)))
        })
    }
}

impl PivBackend {
    async fn import_now(&self, request: ImportRequest) -> Result<KeyInfo> {
        let slot = Slot::for_a_new_key(&request.name)?;
        refuse_identifier(request.id.as_deref())?;
        let key_type = request.key.key_type();
        let secrets = match algorithm::identifier(key_type) {
            Some(identifier) => Some((identifier, secrets(&request.key)?)),
            None => None,
        };
        self.forget_list();
        self.change(move |applet| {
            let firmware = yubico(applet, "import keys")?;
            refuse_unknown(key_type, &firmware.key_types(), "import", firmware)?;
            let policy = policy_elements(&request.policy, firmware)?;
            refuse_taken(applet, slot)?;
            let (identifier, secrets) =
                secrets.as_ref().ok_or_else(|| Error::internal("the kind of key has no number"))?;
            let mut data = Zeroizing::new(Vec::with_capacity(secrets.len() + policy.len()));
            data.extend_from_slice(secrets);
            data.extend_from_slice(&policy);
            let command = Command::new(0xfe, *identifier, slot.reference()).data(data);
            applet.send(&command)?.ok("import a key")?;
            let public_key = request.key.public_key().clone();
            let fallback =
                SlotKey { public_key, origin: KeyOrigin::Imported, policy: request.policy.clone() };
            let info = made(applet, slot, fallback)?;
            if info.public_key == *request.key.public_key() {
                return Ok(info);
            }
            Err(Error::internal("the card took the key, but shows another public key for it")
                .next("delete what is in the slot now")
                .into())
        })
        .await
    }
}

/// The private half as a card takes it: the five numbers of RSA's Chinese remainder form, a scalar, or a seed.
fn secrets(key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>> {
    let malformed = |e: der::Error| Error::bad_request("the private key cannot be read").vendor(e);
    let info = PrivateKeyInfoRef::from_der(key.pkcs8_der()).map_err(malformed)?;
    let inner = info.private_key.as_bytes();
    let key_type = key.key_type();
    let mut data = Zeroizing::new(Vec::with_capacity(2048));
    if let Some(bits) = key_type.rsa_bits() {
        let rsa = pkcs1::RsaPrivateKeyRef::from_der(inner).map_err(malformed)?;
        if rsa.public_exponent.as_bytes() != [1, 0, 1] {
            return Err(Error::unsupported("use RSA keys with another exponent than 65537", "a YubiKey"));
        }
        let parts = [rsa.prime1, rsa.prime2, rsa.exponent1, rsa.exponent2, rsa.coefficient];
        for (tag, part) in (1..).zip(parts) {
            tlv::push(&mut data, tag, &filled(part.as_bytes(), bits / 16)?);
        }
    } else if let Some(len) = key_type.ecdsa_field_len() {
        let sec1 = sec1::EcPrivateKey::from_der(inner).map_err(malformed)?;
        tlv::push(&mut data, 0x06, &filled(sec1.private_key, len)?);
    } else if key_type == KeyType::Ed25519 {
        // RFC 8410 section 7: an OCTET STRING in the OCTET STRING.
        let seed = <&OctetStringRef>::from_der(inner).map_err(malformed)?;
        tlv::push(&mut data, 0x07, &filled(seed.as_bytes(), 32)?);
    }
    Ok(data)
}

/// A number of exactly so many bytes.
fn filled(number: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>> {
    let start = len
        .checked_sub(number.len())
        .ok_or_else(|| Error::bad_request("a number of the private key is longer than its kind allows"))?;
    let mut filled = Zeroizing::new(vec![0; len]);
    filled[start..].copy_from_slice(number);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_full_length() {
        assert_eq!(filled(&[1, 2], 4).unwrap()[..], [0, 0, 1, 2]);
        assert!(filled(&[1, 2, 3], 2).is_err());
    }
}
