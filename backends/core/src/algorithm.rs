//! Kinds of keys and ways to sign with them.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind};

/// What kind of key it is: the family and the size or curve.
///
/// Complete on purpose: a backend that meets another kind of key leaves it out of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// ECDSA on NIST P-256 (FIPS 186-5).
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521.
    EcdsaP521,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ML-DSA-44 (FIPS 204).
    MlDsa44,
    /// ML-DSA-65 (FIPS 204).
    MlDsa65,
    /// ML-DSA-87 (FIPS 204).
    MlDsa87,
}

impl KeyType {
    /// Every kind of key, in the order of this page.
    pub const ALL: [Self; 10] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// The name that people type: `ecdsa-p256`, `rsa-3072`, `ml-dsa-65`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::EcdsaP521 => "ecdsa-p521",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }

    /// The algorithm that is used when nobody names one.
    pub fn default_algorithm(self) -> SignatureAlgorithm {
        self.algorithms()[0]
    }

    /// Every algorithm that fits this kind of key, the default one first. A device may offer fewer.
    pub fn algorithms(self) -> &'static [SignatureAlgorithm] {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};
        match self {
            Self::EcdsaP256 => &[Ecdsa(Sha256), Ecdsa(Sha384), Ecdsa(Sha512)],
            Self::EcdsaP384 => &[Ecdsa(Sha384), Ecdsa(Sha256), Ecdsa(Sha512)],
            Self::EcdsaP521 => &[Ecdsa(Sha512), Ecdsa(Sha256), Ecdsa(Sha384)],
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => &[
                RsaPkcs1(Sha256),
                RsaPkcs1(Sha384),
                RsaPkcs1(Sha512),
                RsaPss(Sha256),
                RsaPss(Sha384),
                RsaPss(Sha512),
            ],
            Self::Ed25519 => &[Ed25519, Ed25519ph],
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => &[MlDsa],
        }
    }

    /// Bytes of one coordinate or scalar, for the elliptic curves of ECDSA.
    pub fn ecdsa_field_len(self) -> Option<usize> {
        match self {
            Self::EcdsaP256 => Some(32),
            Self::EcdsaP384 => Some(48),
            Self::EcdsaP521 => Some(66),
            _ => None,
        }
    }

    /// Bits of the modulus, for RSA.
    pub fn rsa_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            _ => None,
        }
    }

    /// The RSA key type with a modulus of so many bits.
    pub fn from_rsa_bits(bits: usize) -> Option<Self> {
        match bits {
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyType {
    type Err = Error;

    /// Reads [`KeyType::name`]; the short forms `p256`, `p384`, `p521` and `rsaN` are understood too.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.to_ascii_lowercase();
        let long = match wanted.as_str() {
            "p256" => "ecdsa-p256",
            "p384" => "ecdsa-p384",
            "p521" => "ecdsa-p521",
            "rsa2048" => "rsa-2048",
            "rsa3072" => "rsa-3072",
            "rsa4096" => "rsa-4096",
            other => other,
        };
        Self::ALL.into_iter().find(|t| t.name() == long).ok_or_else(|| {
            Error::new(ErrorKind::BadRequest, format!("no key type is called {text:?}"))
                .next(format!("use one of {}", Self::ALL.map(Self::name).join(", ")))
        })
    }
}

/// The hash functions of the SHA-2 family that signatures are made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl HashAlgorithm {
    /// Every hash function, shortest first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name that people type: `sha256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a digest in bytes.
    #[allow(clippy::len_without_is_empty)] // a digest is never empty
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(crate) fn implementation(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.to_ascii_lowercase().replace('-', "");
        Self::ALL.into_iter().find(|h| h.name() == wanted).ok_or_else(|| {
            Error::new(ErrorKind::BadRequest, format!("no hash function is called {text:?}"))
                .next("use sha256, sha384 or sha512")
        })
    }
}

/// How a signature is made, apart from the key: the scheme and its hash function.
///
/// The encodings are fixed: ECDSA signatures are DER `ECDSA-Sig-Value` (RFC 3279), RSA-PSS uses MGF1 with the same
/// hash and a salt as long as the digest (RFC 8017), ML-DSA is the pure form with an empty context (FIPS 204).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// ECDSA over a digest (FIPS 186-5).
    Ecdsa(HashAlgorithm),
    /// RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2).
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS (RFC 8017 section 8.1).
    RsaPss(HashAlgorithm),
    /// Pure Ed25519: signs the message itself (RFC 8032).
    Ed25519,
    /// Ed25519ph: signs a SHA-512 digest, with an empty context (RFC 8032).
    Ed25519ph,
    /// Pure ML-DSA: signs the message itself; the key's type says which parameter set.
    MlDsa,
}

impl SignatureAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 12] = [
        Self::Ecdsa(HashAlgorithm::Sha256),
        Self::Ecdsa(HashAlgorithm::Sha384),
        Self::Ecdsa(HashAlgorithm::Sha512),
        Self::RsaPkcs1(HashAlgorithm::Sha256),
        Self::RsaPkcs1(HashAlgorithm::Sha384),
        Self::RsaPkcs1(HashAlgorithm::Sha512),
        Self::RsaPss(HashAlgorithm::Sha256),
        Self::RsaPss(HashAlgorithm::Sha384),
        Self::RsaPss(HashAlgorithm::Sha512),
        Self::Ed25519,
        Self::Ed25519ph,
        Self::MlDsa,
    ];

    /// The name that people type and grants use: `ecdsa-sha256`, `rsa-pss-sha384`, `ed25519`.
    pub fn name(self) -> &'static str {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        match self {
            Self::Ecdsa(Sha256) => "ecdsa-sha256",
            Self::Ecdsa(Sha384) => "ecdsa-sha384",
            Self::Ecdsa(Sha512) => "ecdsa-sha512",
            Self::RsaPkcs1(Sha256) => "rsa-pkcs1-sha256",
            Self::RsaPkcs1(Sha384) => "rsa-pkcs1-sha384",
            Self::RsaPkcs1(Sha512) => "rsa-pkcs1-sha512",
            Self::RsaPss(Sha256) => "rsa-pss-sha256",
            Self::RsaPss(Sha384) => "rsa-pss-sha384",
            Self::RsaPss(Sha512) => "rsa-pss-sha512",
            Self::Ed25519 => "ed25519",
            Self::Ed25519ph => "ed25519ph",
            Self::MlDsa => "ml-dsa",
        }
    }

    /// The hash whose digest is signed; `None` where the message itself is (Ed25519, ML-DSA).
    pub fn prehash(self) -> Option<HashAlgorithm> {
        match self {
            Self::Ecdsa(hash) | Self::RsaPkcs1(hash) | Self::RsaPss(hash) => Some(hash),
            Self::Ed25519ph => Some(HashAlgorithm::Sha512),
            Self::Ed25519 | Self::MlDsa => None,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|a| a.name() == wanted).ok_or_else(|| {
            Error::new(ErrorKind::BadRequest, format!("no signature algorithm is called {text:?}"))
                .next(format!("use one of {}", Self::ALL.map(Self::name).join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for t in KeyType::ALL {
            assert_eq!(t.name().parse::<KeyType>().unwrap(), t);
            assert!(t.algorithms().contains(&t.default_algorithm()));
        }
        for a in SignatureAlgorithm::ALL {
            assert_eq!(a.name().parse::<SignatureAlgorithm>().unwrap(), a);
            assert!(KeyType::ALL.iter().any(|t| t.algorithms().contains(&a)), "{a} fits no key");
        }
        assert_eq!("SHA-256".parse::<HashAlgorithm>().unwrap(), HashAlgorithm::Sha256);
        assert!("rsa-1024".parse::<KeyType>().unwrap_err().to_string().contains("ecdsa-p256"));
    }
}
