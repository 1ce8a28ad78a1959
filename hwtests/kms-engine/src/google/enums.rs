//! Enumerations: each has a number and a name, and a request says which it wants to read.

use serde_json::{Value, json};
use signer_core::{HashAlgorithm, KeyType, SignatureAlgorithm};

use super::{Request, Status, invalid};

/// `CryptoKeyVersionAlgorithm`, as far as it signs.
pub(super) struct Algorithm {
    number: i64,
    pub(super) name: &'static str,
    pub(super) key_type: KeyType,
    pub(super) signs: SignatureAlgorithm,
}

const fn algorithm(
    number: i64,
    name: &'static str,
    key_type: KeyType,
    signs: SignatureAlgorithm,
) -> Algorithm {
    Algorithm { number, name, key_type, signs }
}

use HashAlgorithm::{Sha256, Sha384, Sha512};
use SignatureAlgorithm::{Ecdsa, Ed25519, MlDsa, RsaPkcs1, RsaPss};

pub(super) static ALGORITHMS: [Algorithm; 14] = [
    algorithm(2, "RSA_SIGN_PSS_2048_SHA256", KeyType::Rsa2048, RsaPss(Sha256)),
    algorithm(3, "RSA_SIGN_PSS_3072_SHA256", KeyType::Rsa3072, RsaPss(Sha256)),
    algorithm(4, "RSA_SIGN_PSS_4096_SHA256", KeyType::Rsa4096, RsaPss(Sha256)),
    algorithm(15, "RSA_SIGN_PSS_4096_SHA512", KeyType::Rsa4096, RsaPss(Sha512)),
    algorithm(5, "RSA_SIGN_PKCS1_2048_SHA256", KeyType::Rsa2048, RsaPkcs1(Sha256)),
    algorithm(6, "RSA_SIGN_PKCS1_3072_SHA256", KeyType::Rsa3072, RsaPkcs1(Sha256)),
    algorithm(7, "RSA_SIGN_PKCS1_4096_SHA256", KeyType::Rsa4096, RsaPkcs1(Sha256)),
    algorithm(16, "RSA_SIGN_PKCS1_4096_SHA512", KeyType::Rsa4096, RsaPkcs1(Sha512)),
    algorithm(12, "EC_SIGN_P256_SHA256", KeyType::EcdsaP256, Ecdsa(Sha256)),
    algorithm(13, "EC_SIGN_P384_SHA384", KeyType::EcdsaP384, Ecdsa(Sha384)),
    algorithm(40, "EC_SIGN_ED25519", KeyType::Ed25519, Ed25519),
    algorithm(68, "PQ_SIGN_ML_DSA_44", KeyType::MlDsa44, MlDsa),
    algorithm(56, "PQ_SIGN_ML_DSA_65", KeyType::MlDsa65, MlDsa),
    algorithm(69, "PQ_SIGN_ML_DSA_87", KeyType::MlDsa87, MlDsa),
];

impl Algorithm {
    /// The algorithm that a value names, by number or name.
    pub(super) fn read(value: &Value) -> Result<&'static Self, Status> {
        let is = |a: &&Self| value.as_i64() == Some(a.number) || value.as_str() == Some(a.name);
        ALGORITHMS.iter().find(is).ok_or_else(|| {
            invalid(format!("algorithm {value} is not one that signs with an asymmetric key here"))
        })
    }
}

/// What an enumeration's member looks like in an answer.
pub(super) trait Member {
    fn number(&self) -> i64;
    fn name(&self) -> &'static str;
}

impl Member for Algorithm {
    fn number(&self) -> i64 {
        self.number
    }
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Request<'_> {
    pub(super) fn member(&self, member: &impl Member) -> Value {
        if self.as_numbers { json!(member.number()) } else { json!(member.name()) }
    }
}

macro_rules! members {
    ($(#[$doc:meta])* $type:ident, $($variant:ident = $number:literal $name:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(super) enum $type { $($variant),+ }

        #[allow(dead_code)] // some are only written, some only read
        impl $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The member of that name.
            pub(super) fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|m| m.name() == name)
            }

            /// The member that a value names, by number or name.
            pub(super) fn read(value: &Value) -> Option<Self> {
                let numbered = value.as_i64().and_then(|n| Self::ALL.iter().copied().find(|m| m.number() == n));
                numbered.or_else(|| Self::named(value.as_str()?))
            }
        }

        impl Member for $type {
            fn number(&self) -> i64 {
                match self { $(Self::$variant => $number),+ }
            }
            fn name(&self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

members!(
    /// `CryptoKeyVersionState`.
    VersionState,
    PendingGeneration = 5 "PENDING_GENERATION",
    Enabled = 1 "ENABLED",
    Disabled = 2 "DISABLED",
    Destroyed = 3 "DESTROYED",
    DestroyScheduled = 4 "DESTROY_SCHEDULED"
);

members!(
    /// `ProtectionLevel`, as far as it is here.
    Protection,
    Software = 1 "SOFTWARE",
    Hsm = 2 "HSM"
);

members!(
    /// `CryptoKeyPurpose`, as far as it is here.
    Purpose,
    AsymmetricSign = 5 "ASYMMETRIC_SIGN"
);

members!(
    /// `PublicKeyFormat`.
    KeyFormat,
    Pem = 1 "PEM",
    Der = 2 "DER",
    NistPqc = 3 "NIST_PQC"
);

members!(
    /// `AttestationFormat`.
    AttestationFormat,
    CaviumV2 = 4 "CAVIUM_V2_COMPRESSED"
);
