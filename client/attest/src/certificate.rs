//! Certificates: read once, with the bytes that were signed kept as they came.

use std::{fmt, time::SystemTime};

use const_oid::{ObjectIdentifier, db};
use der::{
    Decode, Encode, Reader as _, SliceReader,
    asn1::{AnyRef, BitStringRef},
    pem,
};
use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, Input, PublicKey, Result, SignatureAlgorithm};
use x509_cert::{
    ext::{
        Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage},
    },
    name::Name,
    time::Time,
};

/// RFC 3279 section 2.2.3.
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// An X.509 certificate (RFC 5280).
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    /// What the issuer signed, as it stands in `der`.
    signed: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads one DER certificate, and nothing behind it.
    pub fn from_der(bytes: &[u8]) -> Result<Self> {
        let malformed = |e: der::Error| Error::bad_request("a certificate cannot be read").vendor(e);
        let parsed = x509_cert::Certificate::from_der(bytes).map_err(malformed)?;
        let outer = AnyRef::from_der(bytes).map_err(malformed)?;
        let mut inside = SliceReader::new(outer.value()).map_err(malformed)?;
        let signed = inside.tlv_bytes().map_err(malformed)?.to_vec();
        Ok(Self { der: bytes.to_vec(), signed, parsed })
    }

    /// Reads every `CERTIFICATE` of a PEM text. What stands between them is ignored.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let mut all = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find(BEGIN) {
            let block = &rest[begin..];
            let end = block
                .find(END)
                .ok_or_else(|| Error::bad_request("the PEM block of a certificate has no end"))?
                + END.len();
            let (_, der) = pem::decode_vec(&block.as_bytes()[..end])
                .map_err(|e| Error::bad_request("the PEM block of a certificate cannot be read").vendor(e))?;
            all.push(Self::from_der(&der)?);
            rest = &block[end..];
        }
        Ok(all)
    }

    /// Reads one DER certificate, or all of a PEM text.
    pub fn all_from_pem_or_der(bytes: &[u8]) -> Result<Vec<Self>> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN") => {
                let all = Self::all_from_pem(text)?;
                if all.is_empty() {
                    return Err(Error::bad_request("there is no PEM block BEGIN CERTIFICATE"));
                }
                Ok(all)
            }
            _ => Ok(vec![Self::from_der(bytes)?]),
        }
    }

    /// The whole certificate.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the whole certificate.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(HashAlgorithm::Sha256, &self.der)
    }

    /// Whose it is, shortly: the common name, or else the whole name.
    pub fn subject_name(&self) -> String {
        short(self.subject())
    }

    /// Who issued it, shortly.
    pub fn issuer_name(&self) -> String {
        short(self.issuer())
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    /// The DER of its `SubjectPublicKeyInfo`, of whatever kind.
    pub(crate) fn spki(&self) -> Result<Vec<u8>> {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        info.to_der().map_err(|e| Error::bad_request("the key of a certificate cannot be read").vendor(e))
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey> {
        PublicKey::from_der(&self.spki()?)
    }

    /// Checks the issuer's signature. `Denied` when it is not by this key, `Unsupported` when it is of a kind that proves
    /// nothing or is not known.
    pub(crate) fn verify_signature(&self, issuer: &Self) -> Result<()> {
        let algorithm = self.signature_algorithm()?;
        let key = issuer.public_key()?;
        let signature = self.parsed.signature().as_bytes().unwrap_or_default();
        if !key.key_type().algorithms().contains(&algorithm) {
            return Err(Error::new(ErrorKind::Denied, "the signature is by a key of another kind"));
        }
        key.verify(algorithm, &Input::Message(self.signed.clone().into()), signature)
    }

    fn signature_algorithm(&self) -> Result<SignatureAlgorithm> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let algorithm = self.parsed.signature_algorithm();
        // RFC 5280 section 4.1.1.2: both must be the same, for only one of them is signed.
        if algorithm != self.parsed.tbs_certificate().signature() {
            return Err(Error::bad_request("it names two signature algorithms"));
        }
        Ok(match algorithm.oid {
            db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION => SignatureAlgorithm::RsaPkcs1(Sha256),
            db::rfc5912::SHA_384_WITH_RSA_ENCRYPTION => SignatureAlgorithm::RsaPkcs1(Sha384),
            db::rfc5912::SHA_512_WITH_RSA_ENCRYPTION => SignatureAlgorithm::RsaPkcs1(Sha512),
            db::rfc5912::ECDSA_WITH_SHA_256 => SignatureAlgorithm::Ecdsa(Sha256),
            db::rfc5912::ECDSA_WITH_SHA_384 => SignatureAlgorithm::Ecdsa(Sha384),
            db::rfc5912::ECDSA_WITH_SHA_512 => SignatureAlgorithm::Ecdsa(Sha512),
            db::rfc8410::ID_ED_25519 => SignatureAlgorithm::Ed25519,
            db::rfc5912::SHA_1_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_1 => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "it is signed with SHA-1, which can be forged",
                ));
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("it is signed in a way that is not known here ({other})"),
                ));
            }
        })
    }

    /// The value of an extension.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        self.extensions().iter().find(|e| e.extn_id == oid).map(|e| e.extn_value.as_bytes())
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.parsed.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default()
    }

    /// What its basic constraints say; `None` when it has none.
    pub(crate) fn constraints(&self) -> Result<Option<BasicConstraints>> {
        let parse = |value| {
            BasicConstraints::from_der(value).map_err(|e| {
                Error::bad_request("the basic constraints of a certificate cannot be read").vendor(e)
            })
        };
        self.extension(db::rfc5280::ID_CE_BASIC_CONSTRAINTS).map(parse).transpose()
    }

    /// Whether its key may sign certificates, as far as its key usage says. Some makers encode the bits with zeros behind,
    /// which DER does not.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        const KEY_CERT_SIGN: u8 = 0x04;
        let Some(usage) = self.extension(db::rfc5280::ID_CE_KEY_USAGE) else { return true };
        BitStringRef::from_der(usage)
            .is_ok_and(|bits| bits.raw_bytes().first().is_some_and(|b| b & KEY_CERT_SIGN != 0))
    }

    pub(crate) fn has_extended_usage(&self, usage: ObjectIdentifier) -> bool {
        let parse = |value| ExtendedKeyUsage::from_der(value).ok();
        let usages = self.extension(db::rfc5280::ID_CE_EXT_KEY_USAGE).and_then(parse);
        usages.is_some_and(|u| u.0.contains(&usage))
    }

    /// `Denied` when it is not valid at this time.
    pub(crate) fn check_validity(&self, at: SystemTime) -> Result<()> {
        let validity = self.parsed.tbs_certificate().validity();
        let date = |time: &Time| time.to_date_time().to_string();
        let denied = |what: String| Err(Error::new(ErrorKind::Denied, what));
        if at < validity.not_before.to_system_time() {
            return denied(format!("it is not valid before {}", date(&validity.not_before)));
        }
        if at > validity.not_after.to_system_time() {
            return denied(format!("it expired on {}", date(&validity.not_after)));
        }
        Ok(())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.subject_name())
    }
}

fn short(name: &Name) -> String {
    match name.common_name() {
        Ok(Some(common)) => common.value().into_owned(),
        _ => name.to_string(),
    }
}
