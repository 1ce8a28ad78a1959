//! Public areas: what a key is to a TPM, and to everybody else.

use signer_core::{Error, HashAlgorithm, KeyOrigin, KeyType, PublicKey, Result, SignatureAlgorithm};
use tss_esapi::{
    attributes::ObjectAttributes,
    constants::AlgorithmIdentifier,
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        key_bits::RsaKeyBits,
    },
    structures::{
        Digest, EccParameter, EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicBuffer,
        PublicEccParameters, PublicKeyRsa, PublicRsaParameters, RsaExponent, RsaScheme,
        SymmetricDefinitionObject,
    },
};

use crate::key_file::marshalled;

/// The public key of a public area. `Unsupported` for kinds of keys that the house does not know.
pub(crate) fn public_key(public: &Public) -> Result<PublicKey> {
    match public {
        Public::Ecc { parameters, unique, .. } => {
            let key_type = match parameters.ecc_curve() {
                EccCurve::NistP256 => KeyType::EcdsaP256,
                EccCurve::NistP384 => KeyType::EcdsaP384,
                EccCurve::NistP521 => KeyType::EcdsaP521,
                other => return Err(Error::unsupported(format_args!("use keys on {other:?}"), "signerd")),
            };
            let len = key_type.ecdsa_field_len().unwrap_or_default();
            let mut point = vec![4];
            for coordinate in [unique.x(), unique.y()] {
                point.extend(padded(coordinate.value(), len)?);
            }
            PublicKey::from_ec_point(key_type, &point)
        }
        Public::Rsa { parameters, unique, .. } => {
            let exponent = match parameters.exponent().value() {
                0 => 65537,
                other => other,
            };
            let bytes = exponent.to_be_bytes();
            let leading = bytes.iter().take_while(|b| **b == 0).count();
            PublicKey::from_rsa(unique.value(), &bytes[leading..])
        }
        _ => Err(Error::unsupported("use symmetric keys", "signerd")),
    }
}

/// Big-endian bytes with zeros before them up to `len`. A TPM may leave out leading zeros, and may add some.
pub(crate) fn padded(bytes: &[u8], len: usize) -> Result<Vec<u8>> {
    let bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    let zeros = len.checked_sub(bytes.len()).ok_or_else(|| {
        Error::internal(format!("the TPM gave a number of {} bytes instead of {len}", bytes.len()))
    })?;
    Ok([&vec![0; zeros], bytes].concat())
}

/// The kind of key as the TPM knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Ecc(EccCurve),
    Rsa(RsaKeyBits),
}

impl Shape {
    /// `None` for kinds that TPM 2.0 does not have.
    pub(crate) fn of(key_type: KeyType) -> Option<Self> {
        Some(match key_type {
            KeyType::EcdsaP256 => Self::Ecc(EccCurve::NistP256),
            KeyType::EcdsaP384 => Self::Ecc(EccCurve::NistP384),
            KeyType::EcdsaP521 => Self::Ecc(EccCurve::NistP521),
            KeyType::Rsa2048 => Self::Rsa(RsaKeyBits::Rsa2048),
            KeyType::Rsa3072 => Self::Rsa(RsaKeyBits::Rsa3072),
            KeyType::Rsa4096 => Self::Rsa(RsaKeyBits::Rsa4096),
            _ => return None,
        })
    }

    /// Parameters of a key that signs with whichever scheme it is asked for.
    fn ecc(curve: EccCurve) -> PublicEccParameters {
        PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            EccScheme::Null,
            curve,
            KeyDerivationFunctionScheme::Null,
        )
    }

    fn rsa(bits: RsaKeyBits) -> PublicRsaParameters {
        PublicRsaParameters::new(
            SymmetricDefinitionObject::Null,
            RsaScheme::Null,
            bits,
            RsaExponent::default(),
        )
    }

    /// What TPM2_TestParms is asked.
    pub(crate) fn parameters(self) -> tss_esapi::structures::PublicParameters {
        match self {
            Self::Ecc(curve) => tss_esapi::structures::PublicParameters::Ecc(Self::ecc(curve)),
            Self::Rsa(bits) => tss_esapi::structures::PublicParameters::Rsa(Self::rsa(bits)),
        }
    }
}

/// How a new key shall be.
pub(crate) struct Wanted {
    pub(crate) shape: Shape,
    /// It has a PIN: wrong ones count.
    pub(crate) pin: bool,
    /// Empty for none.
    pub(crate) policy: Vec<u8>,
    /// The public half, where the key comes from outside.
    pub(crate) imported: Option<PublicKey>,
}

impl Wanted {
    /// The template to make it with, or the public area to import it with.
    pub(crate) fn public(&self) -> Result<Public> {
        let outside = self.imported.is_some();
        // RSA keys may decrypt, too: where a TPM's own PSS has the longest salt that fits, the padding is made here and the
        // TPM does the private operation alone (TPM2_RSA_Decrypt without a scheme).
        let attributes = ObjectAttributes::builder()
            .with_fixed_tpm(!outside)
            .with_fixed_parent(!outside)
            .with_sensitive_data_origin(!outside)
            .with_user_with_auth(self.policy.is_empty())
            .with_no_da(!self.pin)
            .with_sign_encrypt(true)
            .with_decrypt(matches!(self.shape, Shape::Rsa(_)));
        let build = || -> tss_esapi::Result<Public> {
            let builder = Public::builder()
                .with_object_attributes(attributes.build()?)
                .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
                .with_auth_policy(Digest::try_from(self.policy.clone())?);
            let key = self.imported.as_ref().map(PublicKey::key_bytes);
            unique(builder, self.shape, key)?.build()
        };
        build().map_err(|e| Error::internal("the template of a key cannot be made").vendor(e))
    }
}

fn unique(
    builder: tss_esapi::structures::PublicBuilder,
    shape: Shape,
    key: Option<&[u8]>,
) -> tss_esapi::Result<tss_esapi::structures::PublicBuilder> {
    Ok(match shape {
        Shape::Ecc(curve) => {
            let (x, y) = match key {
                Some(point) => point[1..].split_at((point.len() - 1) / 2),
                None => (&[][..], &[][..]),
            };
            builder
                .with_public_algorithm(PublicAlgorithm::Ecc)
                .with_ecc_parameters(Shape::ecc(curve))
                .with_ecc_unique_identifier(EccPoint::new(
                    EccParameter::try_from(x)?,
                    EccParameter::try_from(y)?,
                ))
        }
        Shape::Rsa(bits) => {
            let modulus = key.map(modulus).unwrap_or_default();
            builder
                .with_public_algorithm(PublicAlgorithm::Rsa)
                .with_rsa_parameters(Shape::rsa(bits))
                .with_rsa_unique_identifier(PublicKeyRsa::try_from(modulus)?)
        }
    })
}

/// The modulus of a DER `RSAPublicKey`.
fn modulus(key: &[u8]) -> Vec<u8> {
    use der::Decode;
    pkcs1::RsaPublicKeyRef::from_der(key).map(|k| k.modulus.as_bytes().to_vec()).unwrap_or_default()
}

/// The public area of a key that is not in the TPM, so that it verifies with it: TPM2_LoadExternal, and a key's Name in
/// policies. Its form is fixed, because the Name depends on it.
pub(crate) fn external(key: &PublicKey) -> Result<Public> {
    let shape = Shape::of(key.key_type())
        .ok_or_else(|| Error::unsupported(format_args!("verify with {} keys", key.key_type()), "a TPM"))?;
    let build = || -> tss_esapi::Result<Public> {
        let attributes =
            ObjectAttributes::builder().with_user_with_auth(true).with_sign_encrypt(true).build()?;
        let builder = Public::builder()
            .with_object_attributes(attributes)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256);
        unique(builder, shape, Some(key.key_bytes()))?.build()
    };
    build().map_err(|e| Error::internal("a public key cannot be expressed for the TPM").vendor(e))
}

/// `TPMT_PUBLIC`.
pub(crate) fn plain(public: &Public) -> Result<Vec<u8>> {
    marshalled(public)
}

/// `TPM2B_PUBLIC`.
pub(crate) fn sized(public: &Public) -> Result<Vec<u8>> {
    let buffer = PublicBuffer::try_from(public.clone())
        .map_err(|e| Error::internal("a public area cannot be encoded").vendor(e))?;
    marshalled(&buffer)
}

/// A key's Name: its hash algorithm and the hash of its public area (part 1, section 16). It is one key's and no other's.
pub(crate) fn name(public: &Public) -> Result<Vec<u8>> {
    let (id, hash) = match public.name_hashing_algorithm() {
        HashingAlgorithm::Sha256 => ([0x00, 0x0B], HashAlgorithm::Sha256),
        HashingAlgorithm::Sha384 => ([0x00, 0x0C], HashAlgorithm::Sha384),
        HashingAlgorithm::Sha512 => ([0x00, 0x0D], HashAlgorithm::Sha512),
        other => return Err(Error::unsupported(format_args!("use keys named by {other:?}"), "signerd")),
    };
    let digest = signer_core::Digest::of(hash, &plain(public)?);
    Ok([&id[..], digest.as_bytes()].concat())
}

/// Where a key that says nothing else comes from.
pub(crate) fn origin(public: &Public) -> KeyOrigin {
    if public.object_attributes().sensitive_data_origin() {
        KeyOrigin::Generated
    } else {
        KeyOrigin::Imported
    }
}

/// Whether it signs digests that were made outside of the TPM.
pub(crate) fn signs(public: &Public) -> bool {
    public.object_attributes().sign_encrypt() && !public.object_attributes().restricted()
}

/// Whether the key's own scheme, if it has one, is this one.
pub(crate) fn allows(public: &Public, algorithm: SignatureAlgorithm) -> bool {
    match public {
        Public::Ecc { parameters, .. } => match parameters.ecc_scheme() {
            EccScheme::Null => true,
            EccScheme::EcDsa(hash) => algorithm.prehash().map(tpm_hash) == Some(hash.hashing_algorithm()),
            _ => false,
        },
        Public::Rsa { parameters, .. } => match (parameters.rsa_scheme(), algorithm) {
            (RsaScheme::Null, _) => true,
            (RsaScheme::RsaSsa(hash), SignatureAlgorithm::RsaPkcs1(wanted))
            | (RsaScheme::RsaPss(hash), SignatureAlgorithm::RsaPss(wanted)) => {
                hash.hashing_algorithm() == tpm_hash(wanted)
            }
            _ => false,
        },
        _ => false,
    }
}

/// A hash function by the TPM's name.
pub(crate) fn tpm_hash(hash: HashAlgorithm) -> HashingAlgorithm {
    match hash {
        HashAlgorithm::Sha256 => HashingAlgorithm::Sha256,
        HashAlgorithm::Sha384 => HashingAlgorithm::Sha384,
        HashAlgorithm::Sha512 => HashingAlgorithm::Sha512,
    }
}

/// What a TPM must know to sign with an algorithm; `None` for those that TPM 2.0 does not have.
pub(crate) fn needs(algorithm: SignatureAlgorithm) -> Option<[AlgorithmIdentifier; 2]> {
    let scheme = match algorithm {
        SignatureAlgorithm::Ecdsa(_) => AlgorithmIdentifier::EcDsa,
        SignatureAlgorithm::RsaPkcs1(_) => AlgorithmIdentifier::RsaSsa,
        SignatureAlgorithm::RsaPss(_) => AlgorithmIdentifier::RsaPss,
        _ => return None,
    };
    let hash = match algorithm.prehash()? {
        HashAlgorithm::Sha256 => AlgorithmIdentifier::Sha256,
        HashAlgorithm::Sha384 => AlgorithmIdentifier::Sha384,
        HashAlgorithm::Sha512 => AlgorithmIdentifier::Sha512,
    };
    Some([scheme, hash])
}
