//! Taking keys in: wrapped for the storage parent outside of the TPM, so that a private key never crosses the bus.

use der::{Decode, asn1::OctetStringRef};
use pkcs8::PrivateKeyInfoRef;
use signer_core::{
    BoxFuture, Error, Import, ImportRequest, KeyInfo, KeyOrigin, PinLease, PrivateKey, Result,
};
use tss_esapi::{interface_types::session_handles::AuthSession, structures::SymmetricDefinitionObject};
use zeroize::Zeroizing;

use crate::{
    TpmBackend,
    connection::auth_of,
    login::Attempt,
    material::Material,
    public_area, signing,
    store::FileId,
    wrap::{self, Wrapped},
};

/// Types of private areas (TPM_ALG_ID).
const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;
/// The only public exponent that is worth having: every TPM takes it.
const EXPONENT: [u8; 3] = [1, 0, 1];

impl Import for TpmBackend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            self.import_now(&request).await.map_err(|e| self.device.about(e).key(&request.name))
        })
    }
}

impl TpmBackend {
    async fn import_now(&self, request: &ImportRequest) -> Result<KeyInfo> {
        let plan =
            self.plan(&request.name, request.id.as_deref(), &request.policy, request.key.key_type())?;
        let secret = secret(&request.key)?;
        let lent = self.pin_for_new_key(&plan).await?;
        let half = request.key.public_key();
        let made = self.make(
            &plan,
            |c, pin| {
                let policy = plan.policy(c)?;
                let public = plan.wanted(policy.as_ref(), Some(half.clone()))?.public()?;
                let auth = pin.map(auth_of).transpose()?.unwrap_or_default();
                let parent = c.parent(true)?;
                let sensitive = secret.sensitive(auth.value());
                let Wrapped { duplicate, seed } =
                    wrap::wrap(&parent.public, &public_area::name(&public)?, &sensitive)?;
                let private = c.with_room(None, |context| {
                    context.execute_with_session(Some(AuthSession::Password), |context| {
                        context.import(
                            parent.handle.into(),
                            None,
                            public.clone(),
                            duplicate.clone(),
                            seed.clone(),
                            SymmetricDefinitionObject::Null,
                        )
                    })
                })?;
                let file =
                    plan.file(policy, KeyOrigin::Imported, self.device.config.parent.0, public, private);
                // TPMs need not check that what they were given is a key.
                let material = Material::of_file(
                    plan.label.clone(),
                    plan.stem.clone(),
                    file.clone(),
                    FileId::default(),
                )?;
                let attempt = pin.map(|pin| Attempt::new(pin, true));
                let proven = signing::trial(c, &material, attempt.as_ref());
                c.evict(&material);
                proven?;
                Ok(file)
            },
            lent.as_deref().map(PinLease::pin),
        );
        self.made(lent, made)
    }
}

/// What of a private key is secret: a scalar, or a prime.
struct Secret {
    kind: u16,
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// `TPMT_SENSITIVE` (part 2, section 12.3.2.4).
    fn sensitive(&self, auth: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut sensitive = Zeroizing::new(Vec::with_capacity(8 + auth.len() + self.bytes.len()));
        sensitive.extend(self.kind.to_be_bytes());
        for part in [auth, &[], &self.bytes] {
            sensitive.extend((part.len() as u16).to_be_bytes());
            sensitive.extend(part);
        }
        sensitive
    }
}

fn secret(key: &PrivateKey) -> Result<Secret> {
    let malformed = |e: der::Error| Error::bad_request("the private key cannot be read").vendor(e);
    let info = PrivateKeyInfoRef::from_der(key.pkcs8_der()).map_err(malformed)?;
    let inner: &OctetStringRef = info.private_key;
    if let Some(bits) = key.key_type().rsa_bits() {
        let rsa = pkcs1::RsaPrivateKeyRef::from_der(inner.as_bytes()).map_err(malformed)?;
        if rsa.public_exponent.as_bytes() != EXPONENT {
            return Err(Error::unsupported(
                "hold RSA keys with another public exponent than 65537",
                "the TPM",
            ));
        }
        // A TPM takes one prime of half the modulus' length and computes the rest.
        let prime = rsa.prime1.as_bytes();
        if prime.len() != bits / 16 {
            return Err(Error::unsupported("hold RSA keys with primes of unequal length", "the TPM"));
        }
        return Ok(Secret { kind: RSA, bytes: Zeroizing::new(prime.to_vec()) });
    }
    let len = key.key_type().ecdsa_field_len().unwrap_or_default();
    let sec1 = sec1::EcPrivateKey::from_der(inner.as_bytes()).map_err(malformed)?;
    Ok(Secret { kind: ECC, bytes: Zeroizing::new(public_area::padded(sec1.private_key, len)?) })
}
