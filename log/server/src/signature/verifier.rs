//! With what a signature is verified: a key or a certificate, and how it signs.

use signer_core::{Error, HashAlgorithm, Input, KeyType, PublicKey, Result, SignatureAlgorithm};

use super::pb::{
    common::v1::PublicKeyDetails,
    rekor::v2::{self as rekor, verifier::Verifier as Either},
};
use crate::x509::Certificate;

/// The ways to sign that the log takes on.
#[derive(Clone, Debug)]
pub(crate) struct Algorithms(Vec<PublicKeyDetails>);

impl Default for Algorithms {
    /// What rekor-tiles takes on when nobody says.
    fn default() -> Self {
        use PublicKeyDetails as D;
        Self(vec![
            D::PkixRsaPkcs1v152048Sha256,
            D::PkixRsaPkcs1v153072Sha256,
            D::PkixRsaPkcs1v154096Sha256,
            D::PkixEcdsaP256Sha256,
            D::PkixEcdsaP384Sha384,
            D::PkixEcdsaP521Sha512,
            D::PkixEd25519Ph,
        ])
    }
}

impl Algorithms {
    /// Those of these names; `BadRequest` for one that cannot be verified here.
    pub(crate) fn named(names: &[String]) -> Result<Self> {
        let named = |name: &String| {
            PublicKeyDetails::from_str_name(name).filter(|d| scheme(*d).is_some()).ok_or_else(|| {
                let known: Vec<_> = (0..32)
                    .filter_map(|n| PublicKeyDetails::try_from(n).ok())
                    .filter(|d| scheme(*d).is_some())
                    .map(|d| d.as_str_name())
                    .collect();
                Error::bad_request(format!("{name:?} is no algorithm of the signature log"))
                    .next(format!("use some of {}", known.join(", ")))
            })
        };
        if names.is_empty() {
            Ok(Self::default())
        } else {
            Ok(Self(names.iter().map(named).collect::<Result<_>>()?))
        }
    }
}

/// What key and what algorithm the details stand for.
fn scheme(details: PublicKeyDetails) -> Option<(KeyType, SignatureAlgorithm)> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    use KeyType::{EcdsaP256, EcdsaP384, EcdsaP521, Rsa2048, Rsa3072, Rsa4096};
    use PublicKeyDetails as D;
    use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, RsaPkcs1, RsaPss};
    Some(match details {
        D::PkixRsaPkcs1v152048Sha256 => (Rsa2048, RsaPkcs1(Sha256)),
        D::PkixRsaPkcs1v153072Sha256 => (Rsa3072, RsaPkcs1(Sha256)),
        D::PkixRsaPkcs1v154096Sha256 => (Rsa4096, RsaPkcs1(Sha256)),
        D::PkixRsaPss2048Sha256 => (Rsa2048, RsaPss(Sha256)),
        D::PkixRsaPss3072Sha256 => (Rsa3072, RsaPss(Sha256)),
        D::PkixRsaPss4096Sha256 => (Rsa4096, RsaPss(Sha256)),
        D::PkixEcdsaP256Sha256 => (EcdsaP256, Ecdsa(Sha256)),
        D::PkixEcdsaP384Sha384 => (EcdsaP384, Ecdsa(Sha384)),
        D::PkixEcdsaP521Sha512 => (EcdsaP521, Ecdsa(Sha512)),
        D::PkixEcdsaP384Sha256 => (EcdsaP384, Ecdsa(Sha256)),
        D::PkixEcdsaP521Sha256 => (EcdsaP521, Ecdsa(Sha256)),
        D::PkixEd25519Ph => (KeyType::Ed25519, Ed25519ph),
        // Signs the message itself: only where there is one (DSSE).
        D::PkixEd25519 => (KeyType::Ed25519, Ed25519),
        _ => return None,
    })
}

/// The name of a hash function in sigstore's protocols.
pub(super) fn hash_name(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Sha256 => "SHA2_256",
        HashAlgorithm::Sha384 => "SHA2_384",
        HashAlgorithm::Sha512 => "SHA2_512",
    }
}

/// A verifier that was looked at.
pub(super) struct Verifier {
    pub(super) algorithm: SignatureAlgorithm,
    key: PublicKey,
    details: PublicKeyDetails,
    /// What was sent.
    raw: Vec<u8>,
    is_certificate: bool,
}

impl Verifier {
    /// Reads a verifier: its details must be allowed, and its key must be what they say.
    pub(super) fn read(
        verifier: Option<rekor::Verifier>,
        allowed: &Algorithms,
        whole_message: bool,
    ) -> Result<Self> {
        let verifier = verifier.ok_or_else(|| Error::bad_request("the signature has no verifier"))?;
        let details = PublicKeyDetails::try_from(verifier.key_details)
            .map_err(|_| Error::bad_request(format!("key details {} are not known", verifier.key_details)))?;
        let name = details.as_str_name();
        let pure = details == PublicKeyDetails::PkixEd25519 && whole_message;
        let (key_type, algorithm) =
            scheme(details).filter(|_| allowed.0.contains(&details) || pure).ok_or_else(|| {
                let allowed: Vec<_> = allowed.0.iter().map(PublicKeyDetails::as_str_name).collect();
                Error::bad_request(format!("this log does not take on signatures by {name}"))
                    .next(format!("it takes on {}", allowed.join(", ")))
            })?;
        let (raw, is_certificate) = match verifier.verifier {
            Some(Either::PublicKey(key)) => (key.raw_bytes, false),
            Some(Either::X509Certificate(certificate)) => (certificate.raw_bytes, true),
            None => {
                return Err(Error::bad_request("the verifier has neither a public key nor a certificate"));
            }
        };
        let key =
            if is_certificate { Certificate::parse(&raw)?.public_key() } else { PublicKey::from_der(&raw) }
                .map_err(|e| Error::bad_request("the verifier's key cannot be read").vendor(e.what()))?;
        if key.key_type() != key_type {
            return Err(Error::bad_request(format!(
                "the verifier's key is {}, its details say {name}",
                key.key_type()
            )));
        }
        Ok(Self { algorithm, key, details, raw, is_certificate })
    }

    /// Verifies a signature.
    pub(super) fn verify(&self, input: &Input, signature: &[u8]) -> Result<()> {
        self.key
            .verify(self.algorithm, input, signature)
            .map_err(|e| Error::bad_request("the signature does not verify").vendor(e.what()))
    }

    /// Its canonical JSON form (RFC 8785): names in order, nothing between.
    pub(super) fn to_json(&self) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let kind = if self.is_certificate { "x509Certificate" } else { "publicKey" };
        format!(
            r#"{{"keyDetails":"{}","{kind}":{{"rawBytes":"{}"}}}}"#,
            self.details.as_str_name(),
            STANDARD.encode(&self.raw)
        )
    }
}
