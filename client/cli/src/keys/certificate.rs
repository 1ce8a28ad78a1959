//! `signer keys certificate`

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use signer_core::Error;

use super::report;
use crate::{
    context::Context,
    failure::{Exit, Failure},
    key_argument::Reference,
};

/// Store a certificate beside its key
///
/// Replaces the one before. The certificate's public key must be the key's.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer keys certificate hsm/root root.crt")]
pub(super) struct Certificate {
    /// The key
    #[arg(value_name = "REF")]
    key: Reference,
    /// The certificate, PEM or DER
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Certificate {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let path = self.file.display();
        let bytes = fs::read(&self.file).map_err(|e| Failure::io(format!("{path} cannot be read"), &e))?;
        let der = to_der(bytes)
            .ok_or_else(|| Failure::failed(Error::bad_request(format!("{path} is not a certificate"))))?;
        let (backend, key) = context.client().store_certificate(&self.key.get()?.to_string(), &der).await?;
        report("stored the certificate of", &backend, &key, context);
        Ok(Exit::Done)
    }
}

/// The first certificate of a PEM file, or the bytes as they are.
fn to_der(bytes: Vec<u8>) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if bytes.first() == Some(&0x30) {
        return Some(bytes);
    }
    let text = str::from_utf8(&bytes).ok()?;
    let base64 = text.split_once(BEGIN)?.1.split_once(END)?.0;
    STANDARD.decode(base64.split_ascii_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_and_der_are_read() {
        let pem = "text\n-----BEGIN CERTIFICATE-----\nMAMC\r\nAQE=\n-----END CERTIFICATE-----\n";
        assert_eq!(to_der(pem.into()), Some(vec![0x30, 3, 2, 1, 1]));
        assert_eq!(to_der(vec![0x30, 0]), Some(vec![0x30, 0]));
        assert_eq!(to_der(b"-----BEGIN CERTIFICATE-----".to_vec()), None);
        assert_eq!(to_der(vec![0xff]), None);
    }
}
