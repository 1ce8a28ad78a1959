//! Authorities and keys of the tests' own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::SystemTime;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
use signer_attest::{Certificate, Roots, Verifier, time};
use signer_core::{Error, KeyType, PublicKey, Signature};

/// Who may sign for whom.
pub struct Authority {
    pub certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn root(name: &str) -> Self {
        Self::root_with(authority(name))
    }

    pub fn root_with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = read(&params.self_signed(&key).unwrap());
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// An authority under this one.
    pub fn below(&self, params: CertificateParams) -> Self {
        self.below_with(params, KeyPair::generate().unwrap())
    }

    pub fn below_with(&self, params: CertificateParams, key: KeyPair) -> Self {
        let certificate = read(&params.signed_by(&key, &self.issuer).unwrap());
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn certify(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        read(&params.signed_by(key, &self.issuer).unwrap())
    }
}

pub fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    params
}

pub fn authority(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub fn extension(oid: &[u64], content: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(oid, content.to_vec())
}

fn read(certificate: &rcgen::Certificate) -> Certificate {
    Certificate::from_der(certificate.der()).unwrap()
}

pub fn public_of(key: &KeyPair) -> PublicKey {
    PublicKey::from_pem(&key.public_key_pem()).unwrap()
}

pub fn now() -> SystemTime {
    time("2026-06-01").unwrap()
}

/// Trusts this root only.
pub fn trusting(root: &Authority) -> Verifier {
    Verifier::new(Roots::none().with([root.certificate.clone()]), now())
}

/// It must have said this, as a refusal.
#[track_caller]
pub fn says<T: std::fmt::Debug>(result: Result<T, Error>, part: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(part), "{error}\n{part}");
}

/// A P-256 key that signs as a device would.
pub struct EcKey(EcdsaKeyPair);

impl EcKey {
    pub fn make() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_ec_point(KeyType::EcdsaP256, self.0.public_key().as_ref()).unwrap()
    }

    /// `r ‖ s`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let der = self.0.sign(&SystemRandom::new(), message).unwrap();
        Signature::new(der.as_ref().to_vec()).to_ecdsa_raw(KeyType::EcdsaP256).unwrap()
    }

    /// For a certificate of this key.
    pub fn for_certificate(&self) -> KeyPair {
        KeyPair::try_from(self.0.to_pkcs8v1().unwrap().as_ref()).unwrap()
    }
}

/// An RSA-2048 key, as an HSM's partition has.
pub struct RsaKey(RsaKeyPair);

impl RsaKey {
    pub fn make() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn for_certificate(&self) -> KeyPair {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&self.0).unwrap();
        KeyPair::try_from(der.as_ref()).unwrap()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}
