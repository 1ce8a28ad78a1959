//! Approvals of PCR values: what lets a key survive an update of the firmware.
//!
//! They are files in the folder `NAME.approvals` beside the key, two for each: `ANY.policy` with the 32 bytes of the
//! policy's digest (TPM2_PolicyPCR over the new values, SHA-256), and `ANY.sig` with the authority's signature over those
//! 32 bytes (SHA-256; DER for ECDSA, PKCS#1 v1.5 for RSA), as `openssl dgst -sha256 -sign` writes it.

use std::{fs, path::Path};

use signer_core::{Digest, HashAlgorithm, Input, KeyType, PublicKey, Signature, SignatureAlgorithm};
use tss_esapi::{
    interface_types::algorithm::HashingAlgorithm,
    structures::{EccParameter, EccSignature, PublicKeyRsa, RsaSignature},
};

use crate::policy::Sha256;

/// So many approvals are looked at.
const MOST: usize = 1000;

/// The authority's signature that approves the policy, if there is one that verifies.
pub(crate) fn find(
    folder: &Path,
    policy: &Sha256,
    authority: &PublicKey,
) -> Option<tss_esapi::structures::Signature> {
    let entries = fs::read_dir(folder).ok()?;
    let policies =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "policy"));
    for path in policies.take(MOST) {
        if read(&path).as_deref() != Some(&policy[..]) {
            continue;
        }
        let signature_path = path.with_extension("sig");
        let Some(signature) = read(&signature_path) else {
            tracing::warn!(path = %signature_path.display(), "an approval has no signature");
            continue;
        };
        let signed = Input::Digest(Digest::of(HashAlgorithm::Sha256, policy));
        if let Err(e) = authority.verify(algorithm(authority), &signed, &signature) {
            tracing::warn!(path = %signature_path.display(), error = %e, "an approval is not the authority's");
            continue;
        }
        return for_tpm(authority, signature);
    }
    None
}

/// How an authority signs.
pub(crate) fn algorithm(authority: &PublicKey) -> SignatureAlgorithm {
    if authority.key_type().rsa_bits().is_some() {
        SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256)
    } else {
        SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)
    }
}

/// Whether a TPM can check this authority's signatures.
pub(crate) fn can_be_authority(key_type: KeyType) -> bool {
    key_type.ecdsa_field_len().is_some() || key_type.rsa_bits().is_some()
}

/// No digest and no signature is longer.
fn read(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= 4096).then(|| fs::read(path).ok())?
}

fn for_tpm(authority: &PublicKey, signature: Vec<u8>) -> Option<tss_esapi::structures::Signature> {
    use tss_esapi::structures::Signature as Tpm;
    let hash = HashingAlgorithm::Sha256;
    if authority.key_type().rsa_bits().is_some() {
        let signature = RsaSignature::create(hash, PublicKeyRsa::try_from(signature).ok()?).ok()?;
        return Some(Tpm::RsaSsa(signature));
    }
    let raw = Signature::new(signature).to_ecdsa_raw(authority.key_type()).ok()?;
    let (r, s) = raw.split_at(raw.len() / 2);
    let signature =
        EccSignature::create(hash, EccParameter::try_from(r).ok()?, EccParameter::try_from(s).ok()?).ok()?;
    Some(Tpm::EcDsa(signature))
}
