//! A certificate authority whose certificates go into a certificate log.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

/// A root that issues leaves, each another one.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The root, DER.
    root: Vec<u8>,
    leaf_key: KeyPair,
    next: AtomicU64,
}

const NAME: &str = "load";

fn wrong(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(e.to_string())
}

fn root_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, NAME);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

impl Authority {
    /// Makes a root in a folder: `root.pem` for the log, `root.der` and `root.key` for [`Authority::open`].
    pub(crate) fn make(folder: &Path) -> io::Result<()> {
        let key = KeyPair::generate().map_err(wrong)?;
        let root = root_parameters().self_signed(&key).map_err(wrong)?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("root.pem"), root.pem())?;
        std::fs::write(folder.join("root.der"), root.der())?;
        std::fs::write(folder.join("root.key"), key.serialize_pem())
    }

    /// The root of a folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let key = std::fs::read_to_string(folder.join("root.key"))?;
        let key = KeyPair::from_pem(&key).map_err(wrong)?;
        // Runs against one log must not issue the same serial numbers.
        let begin = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        Ok(Self {
            issuer: Issuer::new(root_parameters(), key),
            root: std::fs::read(folder.join("root.der"))?,
            leaf_key: KeyPair::generate().map_err(wrong)?,
            next: AtomicU64::new(begin),
        })
    }

    /// The request for `add-chain` with a certificate that was never logged.
    pub(crate) fn request(&self) -> io::Result<String> {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let name = "load@example.test".try_into().map_err(wrong)?;
        parameters.subject_alt_names = vec![SanType::Rfc822Name(name)];
        let leaf = parameters.signed_by(&self.leaf_key, &self.issuer).map_err(wrong)?;
        Ok(format!(r#"{{"chain":["{}","{}"]}}"#, STANDARD.encode(leaf.der()), STANDARD.encode(&self.root)))
    }
}
