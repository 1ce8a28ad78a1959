//! Wrapping a private area for a storage parent, outside of the TPM (TPM 2.0 Library part 1, section 23.3.2: the outer
//! wrapper of a duplicate, under a seed that only the parent can recover).

use aws_lc_rs::{
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    hmac,
    iv::FixedLength,
    rand::SystemRandom,
};
use signer_core::{Error, Result};
use tss_esapi::structures::{EncryptedSecret, Private, Public};
use zeroize::Zeroizing;

use crate::{key_file::sized, policy::sha256, public_area};

/// Bytes of a coordinate on P-256.
const LEN: usize = 32;

/// A wrapped private area.
pub(crate) struct Wrapped {
    pub(crate) duplicate: Private,
    pub(crate) seed: EncryptedSecret,
}

/// Wraps `TPMT_SENSITIVE` for a P-256 parent with AES-128 and SHA-256, which all parents here are.
pub(crate) fn wrap(parent: &Public, name: &[u8], sensitive: &[u8]) -> Result<Wrapped> {
    let broken = |_| Error::internal("the key cannot be wrapped for the TPM");
    let Public::Ecc { unique, .. } = parent else {
        return Err(Error::unsupported("wrap a key for such a storage parent", "signerd"));
    };
    let (x, y) =
        (public_area::padded(unique.x().value(), LEN)?, public_area::padded(unique.y().value(), LEN)?);

    // The seed: an ephemeral key agrees with the parent's (annex C.6.3).
    let random = SystemRandom::new();
    let ephemeral = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(broken)?;
    let point = ephemeral.compute_public_key().map_err(broken)?;
    let (our_x, our_y) = point.as_ref()[1..].split_at(LEN);
    let theirs = UnparsedPublicKey::new(&ECDH_P256, [&[4][..], &x, &y].concat());
    let unspecified = Error::internal("the key cannot be wrapped for the TPM");
    let seed = agree_ephemeral(ephemeral, theirs, unspecified, |z| Ok(kdf_e(z, b"DUPLICATE\0", our_x, &x)))?;

    // Encrypt, then authenticate.
    let mut encrypted = Zeroizing::new(sized(sensitive));
    let symmetric = kdf_a(&*seed, b"STORAGE\0", name, 128);
    let key =
        UnboundCipherKey::new(&AES_128, &symmetric[..16]).and_then(EncryptingKey::cfb128).map_err(broken)?;
    // Each key is used once, so the initial value may be zero, as the TPM wants it.
    let zero = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    key.less_safe_encrypt(&mut encrypted, zero).map_err(broken)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*kdf_a(&*seed, b"INTEGRITY\0", &[], 256));
    let tag = hmac::sign(&key, &[&encrypted[..], name].concat());

    let duplicate = [&sized(tag.as_ref())[..], &encrypted].concat();
    let point = [sized(our_x), sized(our_y)].concat();
    let expressed =
        |e: tss_esapi::Error| Error::internal("a wrapped key cannot be expressed for the TPM").vendor(e);
    Ok(Wrapped {
        duplicate: Private::try_from(duplicate).map_err(expressed)?,
        seed: EncryptedSecret::try_from(point).map_err(expressed)?,
    })
}

/// KDFe with SHA-256, for 256 bits (section 11.4.10.3).
fn kdf_e(z: &[u8], usage: &[u8], u: &[u8], v: &[u8]) -> Zeroizing<[u8; 32]> {
    let input = Zeroizing::new([&1_u32.to_be_bytes()[..], z, usage, u, v].concat());
    Zeroizing::new(sha256(&input))
}

/// KDFa with SHA-256, for up to 256 bits (section 11.4.10.2).
fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let input = [&1_u32.to_be_bytes()[..], label, context, &bits.to_be_bytes()].concat();
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(hmac::sign(&key, &input).as_ref());
    out
}
