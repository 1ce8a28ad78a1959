//! How an algorithm is asked of the TPM, and what it gives is encoded.

use signer_core::{Digest, Error, HashAlgorithm, Input, PinPolicy, Result, Signature, SignatureAlgorithm};
use tss_esapi::{
    constants::{StructureTag, tss::TPM2_RH_NULL},
    handles::KeyHandle,
    structures::{
        Data, HashScheme, HashcheckTicket, PublicKeyRsa, RsaDecryptionScheme, Signature as TpmSignature,
        SignatureScheme,
    },
    tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK},
};

use crate::{
    connection::Connection,
    fault::Fault,
    login::{Attempt, use_key},
    material::Material,
    pss, public_area,
};

/// Signs a digest.
pub(crate) fn sign(
    connection: &mut Connection,
    key: &Material,
    algorithm: SignatureAlgorithm,
    digest: &Digest,
    attempt: Option<&Attempt<'_>>,
) -> Result<Signature, Fault> {
    use_key(connection, key, attempt, |c, handle| match algorithm {
        SignatureAlgorithm::RsaPss(hash) => sign_pss(c, key, handle, hash, digest),
        _ => sign_plain(c, key, handle, algorithm, digest),
    })
}

/// Signs something that nobody wants, and verifies it: proves that the key works, and that its PIN is right.
pub(crate) fn trial(
    connection: &mut Connection,
    key: &Material,
    attempt: Option<&Attempt<'_>>,
) -> Result<(), Fault> {
    let algorithms = key.algorithms(&connection.capabilities);
    let algorithm = algorithms
        .first()
        .copied()
        .ok_or_else(|| Error::unsupported("sign with any algorithm of this key", "the TPM"))?;
    let hash = algorithm.prehash().unwrap_or(HashAlgorithm::Sha256);
    let random = connection.context.execute_without_session(|c| c.get_random(16))?;
    let digest = Digest::of(hash, &[&b"signerd: does this key sign? "[..], random.value()].concat());
    let signature = sign(connection, key, algorithm, &digest, attempt)?;
    key.public_key
        .verify(algorithm, &Input::Digest(digest), signature.as_bytes())
        .map_err(|e| Error::internal("what the TPM signs with the key does not verify").vendor(e))?;
    Ok(())
}

/// Whether a key's PIN can be tried by a trial signature that is not stopped by anything else.
pub(crate) fn can_try_pin(key: &Material) -> bool {
    key.pin != PinPolicy::Never && key.our_pin && key.policy.is_none()
}

fn sign_plain(
    connection: &mut Connection,
    key: &Material,
    handle: KeyHandle,
    algorithm: SignatureAlgorithm,
    digest: &Digest,
) -> Result<Signature, Fault> {
    let scheme = HashScheme::new(public_area::tpm_hash(digest.algorithm()));
    let scheme = match algorithm {
        SignatureAlgorithm::Ecdsa(_) => SignatureScheme::EcDsa { hash_scheme: scheme },
        SignatureAlgorithm::RsaPkcs1(_) => SignatureScheme::RsaSsa { hash_scheme: scheme },
        SignatureAlgorithm::RsaPss(_) => SignatureScheme::RsaPss { hash_scheme: scheme },
        other => return Err(Error::unsupported(format_args!("sign with {other}"), "a TPM").into()),
    };
    let digest = tss_esapi::structures::Digest::try_from(digest.as_bytes())?;
    let ticket = no_ticket()?;
    let signature = connection.authorised(key, |c| c.sign(handle, digest, scheme, ticket))?;
    Ok(encode(key, &signature)?)
}

/// RSASSA-PSS with a salt as long as the digest. The TPM's own PSS may have the longest salt that fits instead (part 1,
/// annex B.7): then the padding is made here.
fn sign_pss(
    connection: &mut Connection,
    key: &Material,
    handle: KeyHandle,
    hash: HashAlgorithm,
    digest: &Digest,
) -> Result<Signature, Fault> {
    let algorithm = SignatureAlgorithm::RsaPss(hash);
    let pads_here = key.public.object_attributes().decrypt();
    if !(connection.longest_salt && pads_here) {
        let signature = sign_plain(connection, key, handle, algorithm, digest)?;
        let input = Input::Digest(*digest);
        if key.public_key.verify(algorithm, &input, signature.as_bytes()).is_ok() {
            return Ok(signature);
        }
        connection.longest_salt = true;
    }
    if !pads_here {
        return Err(Error::unsupported("sign RSA-PSS with a salt as long as the digest", "the TPM")
            .next("the key may not decrypt, so that the padding cannot be made outside; use rsa-pkcs1, or a key that signerd made")
            .into());
    }
    let bits = key.public_key.key_type().rsa_bits().unwrap_or_default();
    let encoded = pss::encode(digest, bits)?;
    let encoded = PublicKeyRsa::try_from(encoded)?;
    let signature = connection
        .authorised(key, |c| c.rsa_decrypt(handle, encoded, RsaDecryptionScheme::Null, Data::default()))?;
    Ok(Signature::new(public_area::padded(signature.value(), bits / 8)?))
}

fn encode(key: &Material, signature: &TpmSignature) -> Result<Signature> {
    let key_type = key.public_key.key_type();
    match (signature, key_type.ecdsa_field_len(), key_type.rsa_bits()) {
        (TpmSignature::EcDsa(signature), Some(len), _) => {
            let r = public_area::padded(signature.signature_r().value(), len)?;
            let s = public_area::padded(signature.signature_s().value(), len)?;
            Signature::from_ecdsa_raw(&[r, s].concat())
        }
        (TpmSignature::RsaSsa(signature) | TpmSignature::RsaPss(signature), _, Some(bits)) => {
            Ok(Signature::new(public_area::padded(signature.signature().value(), bits / 8)?))
        }
        _ => Err(Error::internal("the TPM gave a signature of another kind than was asked for")),
    }
}

/// The digest was not made by the TPM: unrestricted keys do not care.
fn no_ticket() -> tss_esapi::Result<HashcheckTicket> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: StructureTag::Hashcheck.into(),
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hwtests::engines::SwTpm;
    use signer_core::{
        BoxFuture, ErrorKind, Generate, GenerateRequest, KeyName, KeySelector, KeyType, PinLease, PinPrompt,
        PinSource,
    };

    use super::*;
    use crate::{TpmBackend, TpmConfig};

    struct NoPins;

    impl PinSource for NoPins {
        fn lease<'a>(&'a self, _: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>> {
            Box::pin(async { Err(Error::new(ErrorKind::PinRequired, "there is no PIN")) })
        }
    }

    /// libtpms makes salts as long as the digest by itself; other TPMs do not.
    #[test]
    fn padding_that_is_made_here_is_as_good_as_the_tpms() {
        let tpm = SwTpm::with_options(&[]);
        let config = TpmConfig::from_json(tpm.options()).unwrap();
        let backend = TpmBackend::new(config, "tpm", Arc::new(NoPins)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for key_type in [KeyType::Rsa2048, KeyType::Rsa3072] {
            let name = KeyName::label(key_type.name()).unwrap();
            let request = GenerateRequest::new(name.clone(), key_type);
            runtime.block_on(Generate::generate(&backend, request)).unwrap();
            let key = backend.find(&KeySelector::Name(name)).unwrap();
            for hash in HashAlgorithm::ALL {
                let (algorithm, digest) = (SignatureAlgorithm::RsaPss(hash), Digest::of(hash, b"x"));
                let signature = backend
                    .with(|c| {
                        c.longest_salt = true;
                        sign(c, &key, algorithm, &digest, None)
                    })
                    .unwrap();
                key.public_key.verify(algorithm, &Input::Digest(digest), signature.as_bytes()).unwrap();
            }
        }
    }
}
