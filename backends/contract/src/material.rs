//! Private keys to import, in every form that they come in.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::KeySize,
    signature as lc,
};
use const_oid::db;
use der::{Decode, Encode, pem};
use pkcs8::PrivateKeyInfoRef;
use signer_core::{KeyType, Pin, PrivateKey};

use crate::{Failure, failure::Context};

/// A form of a private key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// PKCS#8, DER.
    Pkcs8Der,
    /// PKCS#8, PEM `PRIVATE KEY`.
    Pkcs8Pem,
    /// Encrypted PKCS#8, PEM `ENCRYPTED PRIVATE KEY`.
    EncryptedPem,
    /// SEC1 `ECPrivateKey`, DER: ECDSA keys only.
    Sec1Der,
    /// SEC1 PEM `EC PRIVATE KEY`: ECDSA keys only.
    Sec1Pem,
    /// PKCS#1 `RSAPrivateKey`, DER: RSA keys only.
    Pkcs1Der,
    /// PKCS#1 PEM `RSA PRIVATE KEY`: RSA keys only.
    Pkcs1Pem,
}

impl Material {
    /// The forms that a kind of key comes in.
    pub fn forms(key_type: KeyType) -> Vec<Self> {
        let mut forms = vec![Self::Pkcs8Der, Self::Pkcs8Pem, Self::EncryptedPem];
        if key_type.ecdsa_field_len().is_some() {
            forms.extend([Self::Sec1Der, Self::Sec1Pem]);
        }
        if key_type.rsa_bits().is_some() {
            forms.extend([Self::Pkcs1Der, Self::Pkcs1Pem]);
        }
        forms
    }
}

/// A private key that was made outside of any device, as unencrypted PKCS#8.
pub struct NewKey(Vec<u8>);

/// The passphrase of [`Material::EncryptedPem`].
const PASSPHRASE: &str = "the contract's passphrase";

/// Makes a private key outside of any device.
pub fn make_private_key(key_type: KeyType) -> Result<NewKey, Failure> {
    let failed = |_| Failure::new(format!("no {key_type} key could be made to import"));
    let rsa = |size| -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let pair = aws_lc_rs::rsa::KeyPair::generate(size)?;
        let der: Pkcs8V1Der<'_> = AsDer::as_der(&pair)?;
        Ok(der.as_ref().to_vec())
    };
    let ec = |algorithm| lc::EcdsaKeyPair::generate(algorithm)?.to_pkcs8v1().map(|d| d.as_ref().to_vec());
    let ml_dsa = |algorithm| lc::PqdsaKeyPair::generate(algorithm)?.to_pkcs8v1().map(|d| d.as_ref().to_vec());
    let der = match key_type {
        KeyType::EcdsaP256 => ec(&lc::ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyType::EcdsaP384 => ec(&lc::ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyType::EcdsaP521 => ec(&lc::ECDSA_P521_SHA512_ASN1_SIGNING),
        KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
        KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
        KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        KeyType::Ed25519 => {
            lc::Ed25519KeyPair::generate().and_then(|p| Ok(p.to_pkcs8v1()?.as_ref().to_vec()))
        }
        KeyType::MlDsa44 => ml_dsa(&lc::ML_DSA_44_SIGNING),
        KeyType::MlDsa65 => ml_dsa(&lc::ML_DSA_65_SIGNING),
        KeyType::MlDsa87 => ml_dsa(&lc::ML_DSA_87_SIGNING),
    };
    der.map(NewKey).map_err(failed)
}

impl NewKey {
    /// The bytes of a file in that form.
    pub fn file(&self, form: Material) -> Result<Vec<u8>, Failure> {
        let pem = |label, der: &[u8]| {
            pem::encode_string(label, pem::LineEnding::LF, der)
                .map(String::into_bytes)
                .map_err(|e| Failure::new(format!("PEM: {e}")))
        };
        Ok(match form {
            Material::Pkcs8Der => self.0.clone(),
            Material::Pkcs8Pem => pem("PRIVATE KEY", &self.0)?,
            Material::EncryptedPem => {
                let encrypted =
                    self.info()?.encrypt(PASSPHRASE).map_err(|e| Failure::new(format!("PBES2: {e}")))?;
                pem("ENCRYPTED PRIVATE KEY", encrypted.as_bytes())?
            }
            Material::Sec1Der => self.sec1()?,
            Material::Sec1Pem => pem("EC PRIVATE KEY", &self.sec1()?)?,
            Material::Pkcs1Der => self.info()?.private_key.as_bytes().to_vec(),
            Material::Pkcs1Pem => pem("RSA PRIVATE KEY", self.info()?.private_key.as_bytes())?,
        })
    }

    /// The key, read back from a file in that form as a user's key is.
    pub fn key(&self, form: Material) -> Result<PrivateKey, Failure> {
        let passphrase = Pin::new(PASSPHRASE.into())?;
        let passphrase = (form == Material::EncryptedPem).then_some(&passphrase);
        PrivateKey::read(&self.file(form)?, passphrase)
            .context(format_args!("reading a private key as {form:?}"))
    }

    fn info(&self) -> Result<PrivateKeyInfoRef<'_>, Failure> {
        PrivateKeyInfoRef::from_der(&self.0).map_err(|e| Failure::new(format!("PKCS#8: {e}")))
    }

    /// In PKCS#8 the curve stands outside; a SEC1 file names it itself (RFC 5915 section 3).
    fn sec1(&self) -> Result<Vec<u8>, Failure> {
        let failed = |e: der::Error| Failure::new(format!("SEC1: {e}"));
        let info = self.info()?;
        let curves = [db::rfc5912::SECP_256_R_1, db::rfc5912::SECP_384_R_1, db::rfc5912::SECP_521_R_1];
        let curve = info.algorithm.parameters_oid().ok().filter(|oid| curves.contains(oid));
        let curve = curve.ok_or_else(|| Failure::new("SEC1 is a form of ECDSA keys"))?;
        let mut key = sec1::EcPrivateKey::from_der(info.private_key.as_bytes()).map_err(failed)?;
        key.parameters = Some(sec1::EcParameters::NamedCurve(curve));
        key.to_der().map_err(failed)
    }
}
