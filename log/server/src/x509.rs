//! Certificates, taken apart without changing a byte: what is hashed and signed are the bytes that were sent.
//!
//! Only DER's outer forms are read (X.690 section 10): definite lengths in their shortest form, tags of one byte.

use signer_core::{Error, HashAlgorithm, Input, KeyType, PublicKey, Result, SignatureAlgorithm};

/// The longest certificate that is taken on.
pub(crate) const MAX_CERTIFICATE: usize = 30_000;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// One value of DER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag, length and content.
    pub(crate) whole: &'a [u8],
}

/// Takes the first value off.
pub(crate) fn value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        rest = after;
        let length = digits.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
        if digits[0] == 0 || length < 0x80 {
            return None;
        }
        length
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Value { tag, content, whole: &bytes[..bytes.len() - rest.len()] }, rest))
}

/// Takes the first value off, which must have this tag.
pub(crate) fn tagged(bytes: &[u8], tag: u8) -> Option<(Value<'_>, &[u8])> {
    value(bytes).filter(|(v, _)| v.tag == tag)
}

/// A value that is all there is.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<Value<'_>> {
    tagged(bytes, tag).filter(|(_, rest)| rest.is_empty()).map(|(v, _)| v)
}

/// Writes a value.
pub(crate) fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let digits = content.len().to_be_bytes();
        let digits = &digits[digits.iter().position(|b| *b != 0).unwrap_or(digits.len() - 1)..];
        out.push(0x80 | digits.len() as u8);
        out.extend(digits);
    }
    out.extend(content);
    out
}

/// An extension of a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension<'a> {
    /// The content of the object identifier.
    pub(crate) oid: &'a [u8],
    pub(crate) critical: bool,
    /// What is in the octet string.
    pub(crate) value: &'a [u8],
    whole: &'a [u8],
}

/// What of a certificate is signed: the `TBSCertificate` (RFC 5280 section 4.1).
#[derive(Clone, Debug)]
pub(crate) struct Tbs<'a> {
    /// The content of the serial number.
    pub(crate) serial: &'a [u8],
    pub(crate) issuer: &'a [u8],
    /// The content of `Validity`: two times.
    pub(crate) validity: &'a [u8],
    pub(crate) subject: &'a [u8],
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: Vec<Extension<'a>>,
    /// The content before the extensions.
    before_extensions: &'a [u8],
    algorithm: &'a [u8],
}

impl<'a> Tbs<'a> {
    /// Takes one apart, with its tag and length.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        Self::read(only(der, SEQUENCE)?.content)
    }

    fn read(content: &'a [u8]) -> Option<Self> {
        let mut rest = content;
        if let Some((_, after)) = tagged(rest, VERSION) {
            rest = after;
        }
        let (serial, rest) = tagged(rest, INTEGER)?;
        let (algorithm, rest) = tagged(rest, SEQUENCE)?;
        let (issuer, rest) = tagged(rest, SEQUENCE)?;
        let (validity, rest) = tagged(rest, SEQUENCE)?;
        let (subject, rest) = tagged(rest, SEQUENCE)?;
        let (spki, mut rest) = tagged(rest, SEQUENCE)?;
        // issuerUniqueID and subjectUniqueID: old, and allowed.
        for unique_id in [0x81, 0x82] {
            if let Some((_, after)) = tagged(rest, unique_id) {
                rest = after;
            }
        }
        let before_extensions = &content[..content.len() - rest.len()];
        let extensions =
            if rest.is_empty() { Vec::new() } else { extensions(only(rest, EXTENSIONS)?.content)? };
        Some(Self {
            serial: serial.content,
            issuer: issuer.whole,
            validity: validity.content,
            subject: subject.whole,
            spki: spki.whole,
            extensions,
            before_extensions,
            algorithm: algorithm.whole,
        })
    }

    /// Its extension of that kind.
    pub(crate) fn extension(&self, oid: &[u8]) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|e| e.oid == oid)
    }
}

/// A certificate (RFC 5280 section 4.1).
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) der: &'a [u8],
    inner: Tbs<'a>,
    /// The `TBSCertificate` with its tag and length: what is signed.
    tbs: Value<'a>,
    algorithm: Value<'a>,
    signature: &'a [u8],
}

impl<'a> std::ops::Deref for Certificate<'a> {
    type Target = Tbs<'a>;

    fn deref(&self) -> &Tbs<'a> {
        &self.inner
    }
}

/// Object identifiers, as they are in DER.
pub(crate) mod oid {
    pub(crate) const POISON: &[u8] = &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 3];
    pub(crate) const SCT_LIST: &[u8] = &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2];
    pub(crate) const PRECERTIFICATE_SIGNING: &[u8] = &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 4];
    pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
    pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
    pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
    pub(crate) const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    pub(super) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    pub(super) const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
    pub(super) const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    pub(super) const RSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12];
    pub(super) const RSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13];
    pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
}

impl<'a> Certificate<'a> {
    /// Takes a certificate apart.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Error::bad_request(format!(
                "a certificate has {} bytes, more than {MAX_CERTIFICATE}",
                der.len()
            )));
        }
        Self::read(der).ok_or_else(|| Error::bad_request("this is not a certificate (X.509, DER)"))
    }

    fn read(der: &'a [u8]) -> Option<Self> {
        let certificate = only(der, SEQUENCE)?;
        let (tbs, rest) = tagged(certificate.content, SEQUENCE)?;
        let (algorithm, rest) = tagged(rest, SEQUENCE)?;
        let signature = only(rest, BIT_STRING)?.content.strip_prefix(&[0])?;
        let inner = Tbs::read(tbs.content)?;
        // RFC 5280 section 4.1.1.2: both say the same.
        if inner.algorithm != algorithm.whole {
            return None;
        }
        Some(Self { der, inner, tbs, algorithm, signature })
    }

    /// Its key.
    pub(crate) fn public_key(&self) -> Result<PublicKey> {
        PublicKey::from_der(self.spki)
    }

    /// The `TBSCertificate` without one extension (RFC 6962 section 3.2: the poison), everything else as it was.
    pub(crate) fn tbs_without(&self, oid: &[u8]) -> Vec<u8> {
        let kept: Vec<u8> =
            self.extensions.iter().filter(|e| e.oid != oid).flat_map(|e| e.whole).copied().collect();
        let mut content = self.before_extensions.to_vec();
        // An empty list of extensions is not allowed: then there is none.
        if !kept.is_empty() {
            content.extend(encode(EXTENSIONS, &encode(SEQUENCE, &kept)));
        }
        encode(SEQUENCE, &content)
    }

    /// Whether it may issue certificates: how many authorities may be below it, `u64::MAX` when it does not say.
    pub(crate) fn authority(&self) -> Option<u64> {
        let constraints = only(self.extension(oid::BASIC_CONSTRAINTS)?.value, SEQUENCE)?;
        let (authority, rest) = tagged(constraints.content, BOOLEAN)?;
        if authority.content != [0xff] {
            return None;
        }
        if let Some(usage) = self.extension(oid::KEY_USAGE) {
            // Bit 5 is keyCertSign.
            let bits = only(usage.value, BIT_STRING)?.content;
            if bits.get(1).is_none_or(|b| b & 0x04 == 0) {
                return None;
            }
        }
        if rest.is_empty() {
            return Some(u64::MAX);
        }
        let below = only(rest, INTEGER)?.content;
        (below.len() <= 7).then(|| below.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    /// What it may be used for; `None` when it does not say.
    pub(crate) fn extended_key_usages(&self) -> Option<Vec<&'a [u8]>> {
        let mut rest = only(self.extension(oid::EXTENDED_KEY_USAGE)?.value, SEQUENCE)?.content;
        let mut usages = Vec::new();
        while let Some((usage, after)) = tagged(rest, OID) {
            usages.push(usage.content);
            rest = after;
        }
        Some(usages)
    }

    /// Whether this key has signed it.
    pub(crate) fn verify(&self, key: &PublicKey) -> Result<()> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let algorithm = tagged(self.algorithm.content, OID).map(|(oid, _)| oid.content).unwrap_or_default();
        let algorithm = match algorithm {
            oid::ECDSA_SHA256 => SignatureAlgorithm::Ecdsa(Sha256),
            oid::ECDSA_SHA384 => SignatureAlgorithm::Ecdsa(Sha384),
            oid::ECDSA_SHA512 => SignatureAlgorithm::Ecdsa(Sha512),
            oid::RSA_SHA256 => SignatureAlgorithm::RsaPkcs1(Sha256),
            oid::RSA_SHA384 => SignatureAlgorithm::RsaPkcs1(Sha384),
            oid::RSA_SHA512 => SignatureAlgorithm::RsaPkcs1(Sha512),
            oid::ED25519 if key.key_type() == KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
            _ => {
                return Err(Error::bad_request(
                    "a certificate is signed with an algorithm that is not supported here",
                ));
            }
        };
        key.verify(algorithm, &Input::Message(self.tbs.whole.to_vec().into()), self.signature)
            .map_err(|_| Error::bad_request("a certificate of the chain is not signed by the next one"))
    }
}

fn extensions(content: &[u8]) -> Option<Vec<Extension<'_>>> {
    let mut rest = only(content, SEQUENCE)?.content;
    let mut found: Vec<Extension<'_>> = Vec::new();
    while !rest.is_empty() {
        let (extension, after) = tagged(rest, SEQUENCE)?;
        rest = after;
        let (oid, inner) = tagged(extension.content, OID)?;
        let (critical, inner) = match tagged(inner, BOOLEAN) {
            Some((critical, inner)) => (critical.content == [0xff], inner),
            None => (false, inner),
        };
        let value = only(inner, OCTET_STRING)?.content;
        // RFC 5280 section 4.2: no extension twice.
        if found.iter().any(|e| e.oid == oid.content) {
            return None;
        }
        found.push(Extension { oid: oid.content, critical, value, whole: extension.whole });
    }
    Some(found)
}

/// The certificates of a PEM file, in their order.
pub(crate) fn read_pem(text: &str) -> Result<Vec<Vec<u8>>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let body = &rest[at + BEGIN.len()..];
        let end = body.find(END).ok_or_else(|| Error::bad_request("a PEM certificate has no end"))?;
        let plain: String = body[..end].split_whitespace().collect();
        let der = STANDARD
            .decode(plain)
            .map_err(|e| Error::bad_request("a PEM certificate cannot be read").vendor(e))?;
        Certificate::parse(&der)?;
        found.push(der);
        rest = &body[end + END.len()..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Certificate::parse(&bytes);
            let wrapped = encode(SEQUENCE, &encode(SEQUENCE, &bytes));
            let _ = Certificate::parse(&wrapped);
        }

        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let whole = encode(OCTET_STRING, &content);
            let read = only(&whole, OCTET_STRING).unwrap();
            prop_assert_eq!(read.content, &content[..]);
        }
    }
}
