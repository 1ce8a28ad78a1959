//! Keys on the command line: references, and `--key` where a public key is enough.

use std::{convert::Infallible, fs, io::Read, path::Path, str::FromStr};

use signer_core::{Error, KeyRef, PublicKey};

use crate::{context::Context, failure::Failure};

/// A key reference as it was typed. Whether it is one is said by [`Reference::get`] and not by clap, whose message would
/// repeat what was typed: it may hold a PIN.
#[derive(Clone, Debug)]
pub(crate) struct Reference(Result<KeyRef, Error>);

impl Reference {
    pub(crate) fn get(&self) -> Result<&KeyRef, Failure> {
        self.0.as_ref().map_err(|e| e.clone().into())
    }
}

impl FromStr for Reference {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse()))
    }
}

/// The longest public key file: an RSA-4096 key has under 1 KiB, a certificate's worth of text around it allowed.
const MAX_LEN: u64 = 1 << 20;

/// The public key that `argument` names. A file of that name comes first; the daemon is asked only for what is not
/// meant as a file.
pub(crate) async fn public_key(argument: &str, context: &Context) -> Result<PublicKey, Failure> {
    let path = Path::new(argument);
    if path.is_file() || means_a_file(argument) {
        return read(path);
    }
    let reference: KeyRef = argument.parse()?;
    Ok(context.client().key_info(&reference.to_string()).await?.1.public_key)
}

pub(crate) fn read(path: &Path) -> Result<PublicKey, Failure> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|f| f.take(MAX_LEN).read_to_end(&mut bytes));
    file.map_err(|e| Failure::io(format!("the public key {} cannot be read", path.display()), &e))?;
    // What is in a file is not how the command was typed: the failure is one of verifying.
    PublicKey::from_pem_or_der(&bytes).map_err(|e| Failure::failed(e.key(path.display())))
}

fn means_a_file(argument: &str) -> bool {
    let extension = Path::new(argument).extension().and_then(|e| e.to_str()).unwrap_or_default();
    let by_name = ["pem", "pub", "der"].iter().any(|e| extension.eq_ignore_ascii_case(e));
    argument.starts_with('/')
        || argument.starts_with("./")
        || argument.starts_with("../")
        || (by_name && !argument.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_references_are_told_apart() {
        for file in ["release.pem", "/etc/k", "./k", "../keys/k", "keys/release.PUB"] {
            assert!(means_a_file(file), "{file}");
        }
        for reference in ["release", "hsm/root", "pkcs11:object=a.pem", "awskms:///alias/x", "soft/release@2"]
        {
            assert!(!means_a_file(reference), "{reference}");
        }
    }
}
