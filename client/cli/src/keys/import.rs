//! `signer keys import`

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use signer_core::{ErrorKind, ImportRequest, PrivateKey};
use zeroize::Zeroizing;

use super::{Demands, KeyId, new_key, report};
use crate::{
    content,
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
    secret,
};

/// Bring a private key into a device
///
/// Reads PKCS#8 (encrypted or not), SEC1 or PKCS#1, as PEM or DER. The file stays where it is: delete it when the key is
/// safe in the device.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys import hsm/release release-key.pem
  signer keys import soft/old old.pem --passphrase-file old.pass")]
pub(super) struct Import {
    /// Its name: backend/key
    #[arg(value_name = "REF")]
    key: Reference,
    /// The private key; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where an encrypted key's passphrase is, instead of asking at the terminal
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
    /// The device's own identifier for it (CKA_ID), hexadecimal
    #[arg(long, value_name = "HEX")]
    id: Option<KeyId>,
    #[command(flatten)]
    demands: Demands,
}

impl Import {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let (backend, name) = new_key(&self.key)?;
        let bytes = read(&self.file)?;
        let key = match PrivateKey::read(&bytes, None) {
            Err(e) if e.kind() == ErrorKind::PinRequired => {
                let prompt = format!("Passphrase of {}", content::name(&self.file));
                let file = self.passphrase_file.as_deref();
                let passphrase = secret::read(&prompt, file, "--passphrase-file", context).await?;
                PrivateKey::read(&bytes, Some(&passphrase))
            }
            read => read,
        };
        // What is wrong with the file is no wrong usage.
        let key = key.map_err(|e| Failure::failed(e.device(content::name(&self.file))))?;
        let request =
            ImportRequest { name, key, id: self.id.clone().map(|id| id.0), policy: self.demands.policy()? };
        let key = context.client().import(&backend, request).await?;
        report("imported", &backend, &key, context);
        Ok(Exit::Done)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    const MAX_LEN: usize = 64 << 10;
    // Long enough from the beginning: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_LEN + 1]);
    let mut len = 0;
    let mut reader: Box<dyn Read> = if content::is_stdin(path) {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|e| Failure::io(format!("{} cannot be read", path.display()), &e))?)
    };
    loop {
        match reader.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failure::io(format!("{} cannot be read", content::name(path)), &e)),
        }
    }
    if len > MAX_LEN {
        return Err(Failure::usage(format!("{} is too long for a private key", content::name(path))));
    }
    bytes.truncate(len);
    Ok(bytes)
}
