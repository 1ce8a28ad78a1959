//! Public keys: read, written and used to verify.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use aws_lc_rs::signature::{self as lc, ParsedPublicKey, VerificationAlgorithm};
use const_oid::{ObjectIdentifier, db};
use der::{
    Decode, Encode,
    asn1::{AnyRef, BitStringRef, UintRef},
    pem,
};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::{Digest, Error, HashAlgorithm, Input, KeyType, Result, SignatureAlgorithm};

/// A public key of one of the kinds in [`KeyType`], as DER `SubjectPublicKeyInfo` (RFC 5280).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    key_type: KeyType,
    spki: Vec<u8>,
    /// Where in `spki` the key's own bytes begin: an EC point, a `RSAPublicKey`, raw bytes.
    key_start: usize,
    parsed: Parsed,
}

/// The key as the library verifies with it: making it is work that every verification would otherwise do again. Made
/// when it is first needed, for that algorithm: a key seldom has a second one. Clones share it.
#[derive(Clone, Default)]
struct Parsed(Arc<OnceLock<(SignatureAlgorithm, ParsedPublicKey)>>);

/// It says nothing that the key does not.
impl PartialEq for Parsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Parsed {}

impl Hash for Parsed {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// RFC 8017 appendix A.1.1.
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`. Kinds of keys that the house does not know, compressed points and points
    /// that are not on their curve are refused.
    pub fn from_der(spki: &[u8]) -> Result<Self> {
        let malformed =
            |e: der::Error| Error::bad_request("this is not a public key (SubjectPublicKeyInfo)").vendor(e);
        let parsed = SubjectPublicKeyInfoRef::from_der(spki).map_err(malformed)?;
        let key = parsed.subject_public_key.as_bytes().unwrap_or_default();
        let key_type = Self::kind(&parsed.algorithm, key)?;
        let this = Self {
            key_type,
            spki: spki.to_vec(),
            key_start: spki.len() - key.len(),
            parsed: Parsed::default(),
        };
        ParsedPublicKey::new(this.verification(key_type.default_algorithm()), key)
            .map_err(|_| Error::bad_request(format!("this is not a valid {key_type} public key")))?;
        Ok(this)
    }

    /// Reads the first `PUBLIC KEY` of a PEM file.
    pub fn from_pem(text: &str) -> Result<Self> {
        const END: &str = "-----END PUBLIC KEY-----";
        let begin = text.find("-----BEGIN PUBLIC KEY-----").ok_or_else(|| {
            Error::bad_request("there is no PEM block BEGIN PUBLIC KEY")
                .next("`openssl pkey -pubin` writes one from most other forms")
        })?;
        let end = text[begin..]
            .find(END)
            .ok_or_else(|| Error::bad_request("the PEM block of the public key has no end"))?;
        let (_, der) = pem::decode_vec(&text.as_bytes()[begin..begin + end + END.len()])
            .map_err(|e| Error::bad_request("the PEM block of the public key cannot be read").vendor(e))?;
        Self::from_der(&der)
    }

    /// Reads PEM or DER, whichever it is.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN") => Self::from_pem(text),
            _ => Self::from_der(bytes),
        }
    }

    /// Puts an elliptic curve key together from its uncompressed point, `04 ‖ x ‖ y`.
    pub fn from_ec_point(key_type: KeyType, point: &[u8]) -> Result<Self> {
        let curve = match key_type {
            KeyType::EcdsaP256 => db::rfc5912::SECP_256_R_1,
            KeyType::EcdsaP384 => db::rfc5912::SECP_384_R_1,
            KeyType::EcdsaP521 => db::rfc5912::SECP_521_R_1,
            _ => return Err(Error::bad_request(format!("{key_type} keys have no point"))),
        };
        Self::assemble(db::rfc5912::ID_EC_PUBLIC_KEY, Some(AnyRef::from(&curve)), point)
    }

    /// Puts an RSA key together from its modulus and public exponent, unsigned and big-endian.
    pub fn from_rsa(modulus: &[u8], public_exponent: &[u8]) -> Result<Self> {
        let encode = || -> der::Result<Vec<u8>> {
            RsaPublicKey { modulus: UintRef::new(modulus)?, public_exponent: UintRef::new(public_exponent)? }
                .to_der()
        };
        let key = encode().map_err(|e| Error::bad_request("this is not an RSA public key").vendor(e))?;
        Self::from_rsa_der(&key)
    }

    /// Puts an RSA key together from its DER `RSAPublicKey` (RFC 8017).
    pub fn from_rsa_der(key: &[u8]) -> Result<Self> {
        Self::assemble(db::rfc5912::RSA_ENCRYPTION, Some(AnyRef::NULL), key)
    }

    /// Puts a key together from the raw bytes that RFC 8410 and FIPS 204 define: Ed25519 and ML-DSA.
    pub fn from_raw(key_type: KeyType, key: &[u8]) -> Result<Self> {
        let oid = match key_type {
            KeyType::Ed25519 => db::rfc8410::ID_ED_25519,
            KeyType::MlDsa44 => db::fips204::ID_ML_DSA_44,
            KeyType::MlDsa65 => db::fips204::ID_ML_DSA_65,
            KeyType::MlDsa87 => db::fips204::ID_ML_DSA_87,
            _ => return Err(Error::bad_request(format!("{key_type} keys have no raw form"))),
        };
        Self::assemble(oid, None, key)
    }

    fn assemble(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Self> {
        let encode = || -> der::Result<Vec<u8>> {
            SubjectPublicKeyInfoRef {
                algorithm: AlgorithmIdentifierRef { oid, parameters },
                subject_public_key: BitStringRef::from_bytes(key)?,
            }
            .to_der()
        };
        Self::from_der(&encode().map_err(|e| Error::bad_request("this is not a public key").vendor(e))?)
    }

    fn kind(algorithm: &AlgorithmIdentifierRef<'_>, key: &[u8]) -> Result<KeyType> {
        let known = match algorithm.oid {
            db::rfc5912::ID_EC_PUBLIC_KEY => match algorithm.parameters_oid().ok() {
                Some(db::rfc5912::SECP_256_R_1) => Some(KeyType::EcdsaP256),
                Some(db::rfc5912::SECP_384_R_1) => Some(KeyType::EcdsaP384),
                Some(db::rfc5912::SECP_521_R_1) => Some(KeyType::EcdsaP521),
                _ => None,
            }
            .filter(|t| key.first() == Some(&4) && Some(key.len()) == t.ecdsa_field_len().map(|n| 2 * n + 1)),
            db::rfc5912::RSA_ENCRYPTION => RsaPublicKey::from_der(key)
                .ok()
                .filter(|k| k.modulus.as_bytes().first().is_some_and(|b| b & 0x80 != 0))
                .and_then(|k| KeyType::from_rsa_bits(k.modulus.as_bytes().len() * 8)),
            db::rfc8410::ID_ED_25519 => Some(KeyType::Ed25519),
            db::fips204::ID_ML_DSA_44 => Some(KeyType::MlDsa44),
            db::fips204::ID_ML_DSA_65 => Some(KeyType::MlDsa65),
            db::fips204::ID_ML_DSA_87 => Some(KeyType::MlDsa87),
            _ => None,
        };
        known.ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Unsupported,
                format!("public keys of this kind ({}) are not supported", algorithm.oid),
            )
            .next(format!("supported are {}", KeyType::ALL.map(KeyType::name).join(", ")))
        })
    }

    /// What kind of key it is.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn as_der(&self) -> &[u8] {
        &self.spki
    }

    /// PEM `PUBLIC KEY`, as openssl and cosign read it.
    pub fn to_pem(&self) -> String {
        pem::encode_string("PUBLIC KEY", pem::LineEnding::LF, &self.spki).unwrap_or_default()
    }

    /// The key's own bytes: an EC point `04 ‖ x ‖ y`, a DER `RSAPublicKey`, or the raw bytes of Ed25519 and ML-DSA.
    pub fn key_bytes(&self) -> &[u8] {
        &self.spki[self.key_start..]
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`: the fingerprint that cosign and openssl users know.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(HashAlgorithm::Sha256, &self.spki)
    }

    /// Verifies a signature in the encoding that [`SignatureAlgorithm`] fixes. `Denied` when it does not fit.
    pub fn verify(&self, algorithm: SignatureAlgorithm, input: &Input, signature: &[u8]) -> Result<()> {
        if !self.key_type.algorithms().contains(&algorithm) {
            return Err(Error::bad_request(format!("a {} key does not verify {algorithm}", self.key_type)));
        }
        // A digest that does not fit its algorithm is refused by the same rule as for signing.
        let request = crate::SignRequest::new(algorithm, input.clone())?;
        let key = self.key_bytes();
        let good = match (request.to_digest(), request.input()) {
            (Some(digest), _) if algorithm == SignatureAlgorithm::Ed25519ph => {
                verify_ed25519ph(key, &digest, signature)
            }
            (Some(digest), _) => digest.to_aws_lc().is_some_and(|d| {
                self.verifies(algorithm, |key| key.verify_digest_sig(&d, signature).is_ok())
            }),
            (None, Input::Message(message)) => {
                self.verifies(algorithm, |key| key.verify_sig(message, signature).is_ok())
            }
            (None, Input::Digest(_)) => false,
        };
        if good {
            return Ok(());
        }
        Err(Error::new(crate::ErrorKind::Denied, format!("the {algorithm} signature does not verify")))
    }

    /// What the parsed key says.
    fn verifies(&self, algorithm: SignatureAlgorithm, says: impl Fn(&ParsedPublicKey) -> bool) -> bool {
        let parse = || ParsedPublicKey::new(self.verification(algorithm), self.key_bytes());
        match self.parsed.0.get() {
            Some((for_algorithm, key)) if *for_algorithm == algorithm => says(key),
            _ => parse().is_ok_and(|key| {
                let good = says(&key);
                // Another thread, or another algorithm, may have been first.
                let _ = self.parsed.0.set((algorithm, key));
                good
            }),
        }
    }

    fn verification(&self, algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};
        match (algorithm, self.key_type) {
            (Ecdsa(Sha256), KeyType::EcdsaP384) => &lc::ECDSA_P384_SHA256_ASN1,
            (Ecdsa(Sha384), KeyType::EcdsaP384) => &lc::ECDSA_P384_SHA384_ASN1,
            (Ecdsa(Sha512), KeyType::EcdsaP384) => &lc::ECDSA_P384_SHA512_ASN1,
            (Ecdsa(Sha256), KeyType::EcdsaP521) => &lc::ECDSA_P521_SHA256_ASN1,
            (Ecdsa(Sha384), KeyType::EcdsaP521) => &lc::ECDSA_P521_SHA384_ASN1,
            (Ecdsa(Sha512), KeyType::EcdsaP521) => &lc::ECDSA_P521_SHA512_ASN1,
            (Ecdsa(Sha256), _) => &lc::ECDSA_P256_SHA256_ASN1,
            (Ecdsa(Sha384), _) => &lc::ECDSA_P256_SHA384_ASN1,
            (Ecdsa(Sha512), _) => &lc::ECDSA_P256_SHA512_ASN1,
            (RsaPkcs1(Sha256), _) => &lc::RSA_PKCS1_2048_8192_SHA256,
            (RsaPkcs1(Sha384), _) => &lc::RSA_PKCS1_2048_8192_SHA384,
            (RsaPkcs1(Sha512), _) => &lc::RSA_PKCS1_2048_8192_SHA512,
            (RsaPss(Sha256), _) => &lc::RSA_PSS_2048_8192_SHA256,
            (RsaPss(Sha384), _) => &lc::RSA_PSS_2048_8192_SHA384,
            (RsaPss(Sha512), _) => &lc::RSA_PSS_2048_8192_SHA512,
            (Ed25519 | Ed25519ph, _) => &lc::ED25519,
            (MlDsa, KeyType::MlDsa44) => &lc::ML_DSA_44,
            (MlDsa, KeyType::MlDsa87) => &lc::ML_DSA_87,
            (MlDsa, _) => &lc::ML_DSA_65,
        }
    }
}

fn verify_ed25519ph(key: &[u8], digest: &Digest, signature: &[u8]) -> bool {
    let Ok(key) = key.try_into().map(ed25519_dalek::VerifyingKey::from_bytes) else {
        return false;
    };
    let (Ok(key), Ok(signature)) = (key, ed25519_dalek::Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_prehashed_strict(digest.to_rust_crypto(), None, &signature).is_ok()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {:?})", self.key_type, self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_read_and_written_back() {
        use aws_lc_rs::signature::KeyPair;
        let pair = lc::EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let key = PublicKey::from_ec_point(KeyType::EcdsaP256, pair.public_key().as_ref()).unwrap();
        assert_eq!(key.key_bytes(), pair.public_key().as_ref());
        assert_eq!(PublicKey::from_pem(&format!("noise\n{}", key.to_pem())).unwrap(), key);
        assert_eq!(PublicKey::from_pem_or_der(key.as_der()).unwrap(), key);
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let mut point = vec![4];
        point.extend([1; 64]);
        assert!(PublicKey::from_ec_point(KeyType::EcdsaP256, &point).is_err());
    }

    #[test]
    fn what_was_parsed_for_one_algorithm_is_not_used_for_another() {
        use aws_lc_rs::{rand::SystemRandom, rsa::KeySize, signature::KeyPair};
        let pair = lc::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = PublicKey::from_rsa_der(pair.public_key().as_ref()).unwrap();
        let sign = |padding| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), b"m", &mut signature).unwrap();
            signature
        };
        let (pkcs1, pss) = (sign(&lc::RSA_PKCS1_SHA256), sign(&lc::RSA_PSS_SHA256));
        let input = Input::Message(b"m".to_vec().into());
        let (v15, v21) = (
            SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256),
            SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256),
        );
        for _ in 0..2 {
            key.verify(v15, &input, &pkcs1).unwrap();
            key.clone().verify(v21, &input, &pss).unwrap();
            assert!(key.verify(v15, &input, &pss).is_err());
            assert!(key.verify(v21, &input, &pkcs1).is_err());
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = PublicKey::from_pem_or_der(&bytes);
        }
    }
}
