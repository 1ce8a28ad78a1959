//! The encryption of key files: PBES2 (RFC 8018) with scrypt or PBKDF2, and AES-256-CBC, in PEM.
//!
//! All files of a folder have one passphrase, so they may share the salt as well: who guesses the passphrase of one has
//! them all either way. New files therefore take the salt of the folder's check file, and deriving the encryption key,
//! which is slow on purpose, happens once in a process and not once a key. Each file has an initialisation vector of
//! its own. Files with another salt or another cipher, from `openssl pkcs8` say, are read all the same.

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::{
    cipher::{
        AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
        UnboundCipherKey,
    },
    iv::FixedLength,
    pbkdf2, rand,
};
use der::{Decode, Encode, asn1::OctetStringRef, pem};
use pkcs5::{
    EncryptionScheme as Scheme,
    pbes2::{self, EncryptionScheme as Cipher, Kdf as KdfParams, Pbkdf2Params, Pbkdf2Prf, ScryptParams},
    scrypt,
};
use pkcs8::{EncryptedPrivateKeyInfo, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use signer_core::{Error, ErrorKind, Pin, Result};
use zeroize::Zeroizing;

use crate::Kdf;

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// scrypt's cost. OpenSSL gives up above 32 MiB, which N = 2^15 with r = 8 just exceeds; N = 2^14 with p = 5 takes an
/// attacker as long as N = 2^17 with p = 1 would.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;

/// The rounds that are asked of PBKDF2-HMAC-SHA-256 today.
const PBKDF2_ROUNDS: u32 = 600_000;

/// A file that asks for more memory than this to be read was not made by anybody in good faith.
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;
const MAX_SCRYPT_P: u16 = 64;

/// How many derived keys are kept.
const MAX_DERIVED: usize = 16;

/// Opens and closes key files with one passphrase.
pub(crate) struct Envelope {
    passphrase: Pin,
    kdf: Kdf,
    /// Encryption keys that were derived already. Held while one is derived, so that sixteen first signatures at once
    /// take the time and memory of one.
    derived: Mutex<Vec<(KdfParams, Key)>>,
}

type Key = Zeroizing<[u8; 32]>;

impl Envelope {
    pub(crate) fn new(passphrase: Pin, kdf: Kdf) -> Self {
        Self { passphrase, kdf, derived: Mutex::new(Vec::new()) }
    }

    /// Encrypts PKCS#8 and writes it as PEM. Takes over the salt of `model`, another file of the folder, when that is
    /// as strong as configured.
    pub(crate) fn seal(&self, pkcs8: &[u8], model: Option<&[u8]>) -> Result<String> {
        let failed = |_| Error::internal("the private key could not be encrypted");
        let kdf = match model.and_then(parameters_of).filter(|params| self.is_as_configured(params)) {
            Some(params) => params,
            None => self.fresh()?,
        };
        let key = self.derive(&kdf)?;
        let mut iv = [0; 16];
        rand::fill(&mut iv).map_err(failed)?;
        // Room for the padding, so that the plain text is not left behind in memory that was outgrown.
        let mut buffer = Zeroizing::new(Vec::with_capacity(pkcs8.len() + 16));
        buffer.extend_from_slice(pkcs8);
        let cipher = UnboundCipherKey::new(&AES_256, &key[..]).map_err(failed)?;
        PaddedBlockEncryptingKey::cbc_pkcs7(cipher)
            .and_then(|c| c.less_safe_encrypt(&mut *buffer, EncryptionContext::Iv128(FixedLength::from(iv))))
            .map_err(failed)?;
        let encode = || -> der::Result<String> {
            let info = EncryptedPrivateKeyInfo {
                encryption_algorithm: Scheme::Pbes2(pbes2::Parameters {
                    kdf,
                    encryption: Cipher::Aes256Cbc { iv },
                }),
                encrypted_data: OctetStringRef::new(&buffer)?,
            };
            pem::encode_string(LABEL, pem::LineEnding::LF, &info.to_der()?).map_err(der::Error::from)
        };
        encode().map_err(|e| Error::internal("the private key could not be encoded").vendor(e))
    }

    /// Decrypts the PEM of a key file; `path` is for the error. `WrongPin` if the passphrase does not fit.
    pub(crate) fn open(&self, file: &[u8], path: &Path) -> Result<Zeroizing<Vec<u8>>> {
        let der = unwrap_pem(file, path)?;
        let info = EncryptedPrivateKeyInfoRef::from_der(&der).map_err(|e| damaged(path).vendor(e))?;
        let data = info.encrypted_data.as_bytes();
        let wrong = || {
            Error::new(
                ErrorKind::WrongPin { tries_left: None },
                format!("the configured passphrase does not open {}", path.display()),
            )
            .next("configure the passphrase that the folder was made with, or restore the file if it is damaged")
        };
        let plain = match &info.encryption_algorithm {
            Scheme::Pbes2(pbes2::Parameters { kdf, encryption: Cipher::Aes256Cbc { iv } })
                if is_derived(kdf) =>
            {
                let key = self.derive(kdf).map_err(|e| e.device(path.display()))?;
                decrypt(&key, *iv, data).ok_or_else(wrong)?
            }
            other => Zeroizing::new(other.decrypt(self.passphrase.expose(), data).map_err(|_| wrong())?),
        };
        // One wrong key in 256 leaves a padding that looks right; that the rest is PKCS#8 as well is out of reach.
        PrivateKeyInfoRef::from_der(&plain).map_err(|_| wrong())?;
        Ok(plain)
    }

    fn derive(&self, params: &KdfParams) -> Result<Key> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = derived.iter().find(|(p, _)| p == params) {
            return Ok(key.clone());
        }
        let key = derive(params, self.passphrase.expose().as_bytes())?;
        if derived.len() == MAX_DERIVED {
            derived.remove(0);
        }
        derived.push((params.clone(), key.clone()));
        Ok(key)
    }

    /// The configured function at its configured cost, with a new salt.
    fn fresh(&self) -> Result<KdfParams> {
        let failed = || Error::internal("the key derivation could not be set up");
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| failed())?;
        match self.kdf {
            Kdf::Scrypt => scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
                .ok()
                .and_then(|p| ScryptParams::from_params_and_salt(p, &salt).ok())
                .map(KdfParams::Scrypt),
            Kdf::Pbkdf2Sha256 => Pbkdf2Params::hmac_sha256(PBKDF2_ROUNDS, &salt).ok().map(KdfParams::Pbkdf2),
        }
        .ok_or_else(failed)
    }

    fn is_as_configured(&self, params: &KdfParams) -> bool {
        match (self.kdf, params) {
            (Kdf::Scrypt, KdfParams::Scrypt(p)) => {
                (p.cost_parameter, u32::from(p.block_size), u32::from(p.parallelization))
                    == (1 << SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
                    && p.key_length.is_none()
            }
            (Kdf::Pbkdf2Sha256, KdfParams::Pbkdf2(p)) => {
                p.iteration_count >= PBKDF2_ROUNDS && is_derived(params) && p.key_length.is_none()
            }
            _ => false,
        }
    }
}

/// Whether [`derive()`] knows it.
fn is_derived(params: &KdfParams) -> bool {
    match params {
        KdfParams::Scrypt(p) => p.key_length.is_none_or(|n| n == 32),
        KdfParams::Pbkdf2(p) => {
            p.prf == Pbkdf2Prf::HmacWithSha256
                && p.key_length.is_none_or(|n| n == 32)
                && p.iteration_count > 0
        }
        _ => false,
    }
}

fn derive(params: &KdfParams, passphrase: &[u8]) -> Result<Key> {
    let unfit = || Error::bad_request("a key file asks for a key derivation that is out of bounds");
    let mut key = Zeroizing::new([0; 32]);
    match params {
        KdfParams::Scrypt(p) => {
            let memory = p.cost_parameter.saturating_mul(128 * u64::from(p.block_size));
            if memory > MAX_SCRYPT_MEMORY || p.parallelization > MAX_SCRYPT_P {
                return Err(unfit());
            }
            let cost = scrypt::Params::try_from(p).map_err(|_| unfit())?;
            scrypt::scrypt(passphrase, p.salt.as_ref(), &cost, &mut key[..]).map_err(|_| unfit())?;
        }
        KdfParams::Pbkdf2(p) => {
            let rounds = NonZeroU32::new(p.iteration_count).ok_or_else(unfit)?;
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, p.salt.as_ref(), passphrase, &mut key[..]);
        }
        _ => return Err(unfit()),
    }
    Ok(key)
}

fn decrypt(key: &Key, iv: [u8; 16], data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(data.to_vec());
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &key[..]).ok()?).ok()?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let len = cipher.decrypt(&mut buffer, context).ok()?.len();
    buffer.truncate(len);
    Some(buffer)
}

/// The key derivation of a file, if it is one that new files may share.
fn parameters_of(file: &[u8]) -> Option<KdfParams> {
    let der = unwrap_pem(file, Path::new("")).ok()?;
    match EncryptedPrivateKeyInfoRef::from_der(&der).ok()?.encryption_algorithm {
        Scheme::Pbes2(pbes2::Parameters { kdf, .. }) => Some(kdf),
        _ => None,
    }
}

fn unwrap_pem(file: &[u8], path: &Path) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(file).map_err(|_| damaged(path))?;
    if text.contains("-----BEGIN PRIVATE KEY-----") {
        return Err(Error::bad_request(format!("{} is not encrypted", path.display()))
            .next("move it away and import it: it is encrypted then"));
    }
    let end_line = format!("-----END {LABEL}-----");
    let begin = text.find(&format!("-----BEGIN {LABEL}-----")).ok_or_else(|| damaged(path))?;
    let end = text[begin..].find(&end_line).ok_or_else(|| damaged(path))? + begin + end_line.len();
    pem::decode_vec(&text.as_bytes()[begin..end]).map(|(_, der)| der).map_err(|e| damaged(path).vendor(e))
}

/// A file that is not what was written.
pub(crate) fn damaged(path: &Path) -> Error {
    Error::internal(format!("{} is damaged: it is not an encrypted private key", path.display()))
        .next("restore it from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_half::PrivateHalf;

    fn envelope(passphrase: &str, kdf: Kdf) -> Envelope {
        Envelope::new(Pin::new(passphrase.into()).unwrap(), kdf)
    }

    fn a_key() -> Zeroizing<Vec<u8>> {
        PrivateHalf::generate(signer_core::KeyType::EcdsaP256).unwrap().to_pkcs8().unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_passphrase_only() {
        for kdf in [Kdf::Scrypt, Kdf::Pbkdf2Sha256] {
            let (right, wrong) = (envelope("right", kdf), envelope("wrong", kdf));
            let pkcs8 = a_key();
            let file = right.seal(&pkcs8, None).unwrap();
            assert_eq!(right.open(file.as_bytes(), Path::new("F")).unwrap(), pkcs8);
            let error = wrong.open(file.as_bytes(), Path::new("F")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongPin { tries_left: None });
            assert!(error.what().contains('F') && !error.to_string().contains("right"));
        }
    }

    #[test]
    fn files_of_a_folder_share_the_salt_and_nothing_else() {
        let envelope = envelope("p", Kdf::Scrypt);
        let pkcs8 = a_key();
        let first = envelope.seal(&pkcs8, None).unwrap();
        let second = envelope.seal(&pkcs8, Some(first.as_bytes())).unwrap();
        assert_eq!(parameters_of(first.as_bytes()), parameters_of(second.as_bytes()));
        assert_ne!(first, second);
        assert_eq!(envelope.derived.lock().unwrap().len(), 1);
        // A model of another strength is not followed.
        let other = Envelope::new(Pin::new("p".into()).unwrap(), Kdf::Pbkdf2Sha256);
        let third = other.seal(&pkcs8, Some(first.as_bytes())).unwrap();
        assert!(matches!(parameters_of(third.as_bytes()), Some(KdfParams::Pbkdf2(_))));
        assert_eq!(envelope.open(third.as_bytes(), Path::new("F")).unwrap(), pkcs8);
    }

    #[test]
    fn no_damage_goes_unnoticed_or_panics() {
        let envelope = envelope("p", Kdf::Scrypt);
        let file = envelope.seal(&a_key(), None).unwrap();
        for at in (0..file.len()).step_by(7) {
            let mut bytes = file.clone().into_bytes();
            bytes.truncate(at);
            assert!(envelope.open(&bytes, Path::new("F")).is_err());
        }
        for text in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAA==\n"] {
            assert!(envelope.open(text.as_bytes(), Path::new("F")).is_err());
        }
    }
}
