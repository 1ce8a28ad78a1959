//! A self-signed certificate, made with a key under test.

use const_oid::{ObjectIdentifier, db};
use der::{
    Any, Encode, Sequence,
    asn1::{BitString, GeneralizedTime, Null, SetOfVec, Utf8StringRef},
};
use signer_core::{HashAlgorithm, PublicKey, SignRequest, SignatureAlgorithm, Signer};

use crate::{Failure, failure::Context};

/// RFC 5280 section 4.1, without extensions.
#[derive(Sequence)]
struct Certificate {
    tbs: TbsCertificate,
    algorithm: AlgorithmIdentifier,
    signature: BitString,
}

#[derive(Clone, Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: u32,
    algorithm: AlgorithmIdentifier,
    issuer: Vec<SetOfVec<Attribute>>,
    validity: Validity,
    subject: Vec<SetOfVec<Attribute>>,
    public_key: Any,
}

#[derive(Clone, Sequence)]
struct AlgorithmIdentifier {
    oid: ObjectIdentifier,
    parameters: Option<Any>,
}

#[derive(Clone, Sequence, der::ValueOrd)]
struct Attribute {
    oid: ObjectIdentifier,
    value: Any,
}

#[derive(Clone, Sequence)]
struct Validity {
    not_before: GeneralizedTime,
    not_after: GeneralizedTime,
}

/// A DER certificate for `signer`'s key, signed by itself with its default algorithm and named `common_name`.
pub async fn self_signed(signer: &dyn Signer, common_name: &str) -> Result<Vec<u8>, Failure> {
    let failed = |e: der::Error| Failure::new(format!("a certificate cannot be encoded: {e}"));
    let algorithm = signer.info().default_algorithm();
    let tbs = tbs(&signer.info().public_key, algorithm, common_name).map_err(failed)?;
    let message = tbs.to_der().map_err(failed)?;
    let signature =
        signer.sign(SignRequest::message(algorithm, message)).await.context("signing a certificate")?;
    let signature = BitString::from_bytes(signature.as_bytes()).map_err(failed)?;
    Certificate { algorithm: tbs.algorithm.clone(), tbs, signature }.to_der().map_err(failed)
}

fn tbs(key: &PublicKey, algorithm: SignatureAlgorithm, common_name: &str) -> der::Result<TbsCertificate> {
    let name = || -> der::Result<Vec<SetOfVec<Attribute>>> {
        let value = Any::encode_from(&Utf8StringRef::new(common_name)?)?;
        Ok(vec![SetOfVec::try_from([Attribute { oid: db::rfc4519::CN, value }])?])
    };
    let year = |y| der::DateTime::new(y, 1, 1, 0, 0, 0).map(GeneralizedTime::from_date_time);
    Ok(TbsCertificate {
        version: 2, // v3
        serial: 1,
        algorithm: algorithm_identifier(key, algorithm)?,
        issuer: name()?,
        validity: Validity { not_before: year(2050)?, not_after: year(2060)? },
        subject: name()?,
        public_key: <Any as der::Decode>::from_der(key.as_der())?,
    })
}

/// RFC 5758, RFC 8017 appendix A, RFC 8410, RFC 9881.
fn algorithm_identifier(key: &PublicKey, algorithm: SignatureAlgorithm) -> der::Result<AlgorithmIdentifier> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    let oid = match algorithm {
        SignatureAlgorithm::Ecdsa(Sha256) => db::rfc5912::ECDSA_WITH_SHA_256,
        SignatureAlgorithm::Ecdsa(Sha384) => db::rfc5912::ECDSA_WITH_SHA_384,
        SignatureAlgorithm::Ecdsa(Sha512) => db::rfc5912::ECDSA_WITH_SHA_512,
        SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_) => {
            db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        }
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::Ed25519ph => db::rfc8410::ID_ED_25519,
        SignatureAlgorithm::MlDsa => match key.key_type() {
            signer_core::KeyType::MlDsa44 => db::fips204::ID_ML_DSA_44,
            signer_core::KeyType::MlDsa87 => db::fips204::ID_ML_DSA_87,
            _ => db::fips204::ID_ML_DSA_65,
        },
    };
    let rsa = key.key_type().rsa_bits().is_some();
    let parameters = rsa.then(|| Any::encode_from(&Null)).transpose()?;
    Ok(AlgorithmIdentifier { oid, parameters })
}
