//! The management key: what a card wants before it is changed. Never needed to sign.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::{
    constant_time,
    rand::{SecureRandom, SystemRandom},
};
use des::{
    TdesEde3,
    cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use signer_core::{Error, ErrorKind};
use zeroize::Zeroizing;

use crate::{
    applet::{Applet, MANAGEMENT},
    fault::Fault,
    tlv,
};

/// What cards leave the factory with: Triple DES, from firmware 5.7 on AES-192.
const DEFAULT: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// Where `ykman` notes how the management key is kept.
const ADMIN_DATA: u32 = 0x5f_ff00;
/// The object that is read with the PIN alone; `ykman` keeps the management key in it.
const PRINTED: u32 = 0x5f_c109;

const TRIPLE_DES: u8 = 0x03;
const AES_128: u8 = 0x08;
const AES_192: u8 = 0x0a;
const AES_256: u8 = 0x0c;

/// A management key, wiped when dropped.
pub(crate) type ManagementKey = Zeroizing<Vec<u8>>;

/// Reads a management key from its file: hexadecimal digits.
pub(crate) fn from_file(path: &Path) -> Result<ManagementKey, Error> {
    let failed = |e: std::io::Error| {
        Error::bad_request(format!("the management key in {} cannot be read", path.display())).vendor(e)
    };
    let meta = fs::metadata(path).map_err(failed)?;
    let mode = meta.mode();
    // A file of root's may be read by the group that root gave it to: the daemon's.
    if mode & if meta.uid() == 0 { 0o037 } else { 0o077 } != 0 {
        return Err(Error::bad_request(format!(
            "others than its owner may open the management key in {} (its mode is {:03o})",
            path.display(),
            mode & 0o777
        ))
        .next(format!("chmod 600 {}", path.display())));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let mut key = Zeroizing::new(vec![0; text.trim().len() / 2]);
    hex::decode_to_slice(text.trim(), &mut key)
        .ok()
        .filter(|()| matches!(key.len(), 16 | 24 | 32))
        .ok_or_else(|| {
            Error::bad_request(format!("what is in {} is not a management key", path.display()))
                .next("it has 32, 48 or 64 hexadecimal digits")
        })?;
    Ok(key)
}

/// Whether the card keeps its management key behind its PIN.
pub(crate) fn is_behind_the_pin(applet: &Applet<'_>) -> Result<bool, Fault> {
    let Some(data) = applet.object(ADMIN_DATA)? else { return Ok(false) };
    let flags = tlv::find(&data, 0x80).and_then(|d| tlv::find(d, 0x81)).and_then(|f| f.first());
    Ok(flags.is_some_and(|f| f & 2 != 0))
}

/// Reads the management key that the card keeps behind its PIN, which must have been verified.
pub(crate) fn behind_the_pin(applet: &Applet<'_>) -> Result<ManagementKey, Fault> {
    let data = applet.object(PRINTED)?;
    let key = data.as_ref().and_then(|d| tlv::find(d, 0x88)).and_then(|d| tlv::find(d, 0x89));
    let key = key.ok_or_else(|| {
        Error::new(
            ErrorKind::Denied,
            "the card says that it keeps its management key behind its PIN, but has none there",
        )
        .next("store it again: `ykman piv access change-management-key --protect`")
    })?;
    Ok(Zeroizing::new(key.to_vec()))
}

/// The one that cards leave the factory with, if it may be used.
pub(crate) fn default(allowed: bool) -> Result<ManagementKey, Error> {
    let key = Zeroizing::new(DEFAULT.to_vec());
    if allowed {
        return Ok(key);
    }
    Err(Error::new(ErrorKind::Denied, "there is no management key for this card").next(
        "keep it in the card behind the PIN (`ykman piv access change-management-key --generate --protect`), or name \
         its file with management_key_file",
    ))
}

/// Proves to the card that the management key is known, and has the card prove the same.
pub(crate) fn authenticate(
    applet: &mut Applet<'_>,
    key: &ManagementKey,
    allow_default: bool,
) -> Result<(), Fault> {
    if key[..] == DEFAULT && !allow_default {
        return Err(Error::new(
            ErrorKind::Denied,
            "the management key is the one that all cards leave the factory with",
        )
        .next(
            "set another one (`ykman piv access change-management-key --generate --protect`), or write \
                 allow_defaults = true for a trial",
        )
        .into());
    }
    let algorithm = algorithm(applet, key.len())?;
    let cipher = Cipher::new(algorithm, key)?;
    let mut ask = Vec::new();
    tlv::push(&mut ask, 0x80, &[]);
    let answer = applet.authenticate(algorithm, &ask)?.ok("use the management key")?;
    let mut witness = element(&answer, 0x80)?;
    cipher.decrypt(&mut witness)?;
    let mut challenge = vec![0; witness.len()];
    SystemRandom::new()
        .fill(&mut challenge)
        .map_err(|_| Error::internal("the system gives no random numbers"))?;
    let mut proof = Vec::new();
    tlv::push(&mut proof, 0x80, &witness);
    tlv::push(&mut proof, 0x81, &challenge);
    let answer = applet.authenticate(algorithm, &proof)?;
    if answer.status != crate::status::Status::OK {
        return Err(wrong()
            .vendor(format_args!("use the management key: SW {:04x}", answer.status.0))
            .into());
    }
    let response = element(&answer.data, 0x82)?;
    cipher.encrypt(&mut challenge)?;
    constant_time::verify_slices_are_equal(&response, &challenge)
        .map_err(|_| Error::internal("the card does not know the management key that it asks for").into())
}

fn wrong() -> Error {
    Error::new(ErrorKind::Denied, "the card refused the management key").next(
        "name the file with the right one with management_key_file; the card does not count tries for it",
    )
}

fn element(answer: &[u8], tag: u32) -> Result<Vec<u8>, Error> {
    let value = tlv::find(answer, 0x7c).and_then(|t| tlv::find(t, tag));
    value
        .map(<[u8]>::to_vec)
        .ok_or_else(|| Error::internal("the card's answer to the management key is not whole"))
}

/// Which kind of management key the card has; by its length where the card does not say.
fn algorithm(applet: &Applet<'_>, len: usize) -> Result<u8, Fault> {
    let said = match applet.identity.firmware {
        Some(firmware) if firmware.has_metadata() => applet.metadata(MANAGEMENT)?.map(|m| m.algorithm),
        _ => None,
    };
    Ok(said.unwrap_or(match len {
        16 => AES_128,
        32 => AES_256,
        _ => TRIPLE_DES,
    }))
}

/// One block there and back.
enum Cipher {
    TripleDes(Box<TdesEde3>),
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl Cipher {
    fn new(algorithm: u8, key: &[u8]) -> Result<Self, Error> {
        fn keyed<C: KeyInit>(key: &[u8]) -> Result<Box<C>, Error> {
            C::new_from_slice(key).map(Box::new).map_err(|_| {
                Error::new(ErrorKind::Denied, "the card's management key is of another kind than the given one")
                    .next("`ykman piv info` shows which kind it has: TDES and AES192 have 48 digits, AES128 32, AES256 64")
            })
        }
        Ok(match algorithm {
            TRIPLE_DES => Self::TripleDes(keyed(key)?),
            AES_128 => Self::Aes128(keyed(key)?),
            AES_192 => Self::Aes192(keyed(key)?),
            AES_256 => Self::Aes256(keyed(key)?),
            other => {
                return Err(Error::unsupported(
                    format_args!("use a management key of kind {other:02x}"),
                    "this version",
                ));
            }
        })
    }

    fn encrypt(&self, block: &mut [u8]) -> Result<(), Error> {
        fn one<C: BlockCipherEncrypt>(cipher: &C, block: &mut [u8]) -> Result<(), Error> {
            cipher.encrypt_block(<&mut Block<C>>::try_from(block).map_err(|_| odd())?);
            Ok(())
        }
        match self {
            Self::TripleDes(c) => one(&**c, block),
            Self::Aes128(c) => one(&**c, block),
            Self::Aes192(c) => one(&**c, block),
            Self::Aes256(c) => one(&**c, block),
        }
    }

    fn decrypt(&self, block: &mut [u8]) -> Result<(), Error> {
        fn one<C: BlockCipherDecrypt>(cipher: &C, block: &mut [u8]) -> Result<(), Error> {
            cipher.decrypt_block(<&mut Block<C>>::try_from(block).map_err(|_| odd())?);
            Ok(())
        }
        match self {
            Self::TripleDes(c) => one(&**c, block),
            Self::Aes128(c) => one(&**c, block),
            Self::Aes192(c) => one(&**c, block),
            Self::Aes256(c) => one(&**c, block),
        }
    }
}

fn odd() -> Error {
    Error::internal("the card's challenge for the management key has a wrong length")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_kind_of_key_goes_there_and_back() {
        for (algorithm, key, block) in
            [(TRIPLE_DES, 24, 8), (AES_128, 16, 16), (AES_192, 24, 16), (AES_256, 32, 16)]
        {
            let cipher = Cipher::new(algorithm, &(0..key).collect::<Vec<u8>>()).unwrap();
            let mut bytes = vec![7; block];
            cipher.encrypt(&mut bytes).unwrap();
            assert_ne!(bytes, vec![7; block]);
            cipher.decrypt(&mut bytes).unwrap();
            assert_eq!(bytes, vec![7; block]);
            assert!(cipher.encrypt(&mut vec![7; block + 1]).is_err());
            assert_eq!(Cipher::new(algorithm, &[1; 5]).err().unwrap().kind(), ErrorKind::Denied);
        }
    }

    #[test]
    fn a_key_file_is_for_its_owner_alone_and_in_hexadecimal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            from_file(&path)
        };
        assert_eq!(write(&format!("{}\n", "0a".repeat(24)), 0o600).unwrap()[..], [10; 24]);
        assert!(write(&"0a".repeat(24), 0o644).unwrap_err().advice().unwrap().contains("chmod 600"));
        for bad in ["", "0a", "xx", &"0a".repeat(23), &"0a".repeat(33)] {
            let error = write(bad, 0o600).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(&format!("{bad}0")), "{error}");
        }
        assert_eq!(default(false).unwrap_err().kind(), ErrorKind::Denied);
    }
}
