//! Attestation: certificates with Yubico's extensions, as its document "Using Attestation" describes them, under a root of
//! this test equipment's own.
//!
//! The root's key is derived from a text that everybody can read, so that every card of every test has the same root, and
//! that a card proves exactly nothing to anyone who was not told to trust it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use num_bigint::BigUint;

use crate::{
    algorithm::{Algorithm, PinPolicy, TouchPolicy},
    der::{bits, integer, null, octets, oid, sequence, set, text, time, yes},
    firmware::Firmware,
    keys::{PrivateKey, random},
    tlv::{Tlv, encode},
};

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 29, 19];
const KEY_USAGE: &[u8] = &[0x55, 29, 15];
const RSA_ENCRYPTION: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
const SHA256_WITH_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 11];
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
const ECDSA_WITH_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];
const P384: &[u8] = &[0x2B, 0x81, 4, 0, 34];
const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
const X25519: &[u8] = &[0x2B, 0x65, 0x6E];
/// 1.3.6.1.4.1.41482.3, Yubico's arc for attestation; one more number follows.
const YUBICO: [u8; 9] = [0x2B, 6, 1, 4, 1, 0x82, 0xC4, 0x0A, 3];

const ROOT_NAME: &str = "Test PIV Attestation Root (no Yubico device)";
const NOT_BEFORE: &str = "20200101000000Z";
const NOT_AFTER: &str = "20520417000000Z";
/// A keychain with USB-A.
const FORM_FACTOR: u8 = 1;

/// What an attestation certificate says of a key.
pub(crate) struct Statement<'a> {
    pub(crate) slot: u8,
    pub(crate) key: &'a PrivateKey,
    pub(crate) firmware: Firmware,
    pub(crate) serial: u32,
    pub(crate) pin: PinPolicy,
    pub(crate) touch: TouchPolicy,
}

/// The certificate of a key, signed with the attestation key whose certificate is `issuer`.
pub(crate) fn attest(statement: &Statement<'_>, signer: &PrivateKey, issuer: &[u8]) -> Option<Vec<u8>> {
    let issuer_name = subject(issuer)?;
    let yubico = |number: u8, value: &[u8]| extension(&[&YUBICO[..], &[number]].concat(), false, value);
    let mut extensions = vec![
        yubico(3, &statement.firmware.bytes()),
        yubico(7, &integer(&statement.serial.to_be_bytes())),
        yubico(8, &[statement.pin.id(), statement.touch.id()]),
    ];
    if statement.firmware.attests_form_factor() {
        extensions.push(yubico(9, &[FORM_FACTOR]));
    }
    let body = Body {
        serial: &positive(random(16)),
        issuer: issuer_name,
        subject: name(&format!("YubiKey PIV Attestation {:x}", statement.slot)),
        key: statement.key,
        extensions,
    };
    sign(&body, signer, |tbs| signature(signer, tbs))
}

/// A new card's attestation key: RSA-2048, or P-256 from firmware 5.7, so that both kinds of chain are met; and its
/// certificate under the root.
pub(crate) fn attestation_key(firmware: Firmware) -> Option<(PrivateKey, Vec<u8>)> {
    let algorithm = if firmware.has_large_rsa_and_25519() { Algorithm::P256 } else { Algorithm::Rsa2048 };
    let key = PrivateKey::generate(algorithm)?;
    let root = root_key()?;
    let body = Body {
        serial: &positive(random(8)),
        issuer: name(ROOT_NAME),
        subject: name("Yubico PIV Attestation"),
        key: &key,
        extensions: vec![
            extension(&[&YUBICO[..], &[3]].concat(), false, &firmware.bytes()),
            extension(BASIC_CONSTRAINTS, true, &sequence(&[yes(), integer(&[0])])),
        ],
    };
    let certificate = sign(&body, &root, |tbs| deterministic_signature(&root, tbs))?;
    Some((key, certificate))
}

/// The root of all virtual cards' attestations, as DER. It is the same each time.
pub fn attestation_root_der() -> Vec<u8> {
    root().expect("the root's key is a constant, and a good one")
}

/// The root of all virtual cards' attestations, as PEM.
pub fn attestation_root_pem() -> String {
    let text = STANDARD.encode(attestation_root_der());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn root() -> Option<Vec<u8>> {
    let key = root_key()?;
    let body = Body {
        serial: &[1],
        issuer: name(ROOT_NAME),
        subject: name(ROOT_NAME),
        key: &key,
        extensions: vec![
            extension(BASIC_CONSTRAINTS, true, &sequence(&[yes(), integer(&[1])])),
            extension(KEY_USAGE, true, &encode(0x03, &[1, 0x06])), // certificates and revocation lists
        ],
    };
    sign(&body, &key, |tbs| deterministic_signature(&key, tbs))
}

fn root_key() -> Option<PrivateKey> {
    PrivateKey::curve(Algorithm::P256, &root_secret())
}

fn root_secret() -> Vec<u8> {
    digest(&SHA256, b"the root of virtual PIV cards, which proves nothing").as_ref().to_vec()
}

struct Body<'a> {
    serial: &'a [u8],
    issuer: Vec<u8>,
    subject: Vec<u8>,
    key: &'a PrivateKey,
    extensions: Vec<Vec<u8>>,
}

/// A certificate (RFC 5280 section 4.1).
fn sign(
    body: &Body<'_>,
    signer: &PrivateKey,
    signature: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let algorithm = match signer.algorithm {
        Algorithm::P256 => sequence(&[oid(ECDSA_WITH_SHA256)]),
        Algorithm::Rsa2048 | Algorithm::Rsa1024 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            sequence(&[oid(SHA256_WITH_RSA), null()])
        }
        _ => return None,
    };
    let tbs = sequence(&[
        encode(0xA0, &integer(&[2])),
        integer(body.serial),
        algorithm.clone(),
        body.issuer.clone(),
        sequence(&[time(NOT_BEFORE), time(NOT_AFTER)]),
        body.subject.clone(),
        public_key(body.key),
        encode(0xA3, &sequence(&body.extensions)),
    ]);
    let signature = signature(&tbs)?;
    Some(sequence(&[tbs, algorithm, bits(&signature)]))
}

/// A SubjectPublicKeyInfo.
fn public_key(key: &PrivateKey) -> Vec<u8> {
    let (algorithm, point) = match key.algorithm {
        Algorithm::P256 => (vec![oid(EC_PUBLIC_KEY), oid(P256)], key.point()),
        Algorithm::P384 => (vec![oid(EC_PUBLIC_KEY), oid(P384)], key.point()),
        Algorithm::Ed25519 => (vec![oid(ED25519)], key.point()),
        Algorithm::X25519 => (vec![oid(X25519)], key.point()),
        _ => {
            let modulus = key.modulus().unwrap_or_default();
            let numbers = sequence(&[integer(&modulus), integer(&crate::rsa::EXPONENT.to_be_bytes())]);
            return sequence(&[sequence(&[oid(RSA_ENCRYPTION), null()]), bits(&numbers)]);
        }
    };
    sequence(&[sequence(&algorithm), bits(point)])
}

/// ECDSA or PKCS#1 v1.5, with SHA-256.
fn signature(key: &PrivateKey, message: &[u8]) -> Option<Vec<u8>> {
    let hash = digest(&SHA256, message);
    let Some(modulus) = key.modulus() else { return key.sign(hash.as_ref()) };
    const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    let info = sequence(&[sequence(&[oid(SHA256_OID), null()]), octets(hash.as_ref())]);
    let mut block = vec![0xFF; modulus.len().checked_sub(info.len())?];
    block[..2].copy_from_slice(&[0, 1]);
    *block.last_mut()? = 0;
    block.extend(info);
    key.sign(&block)
}

/// ECDSA on P-256 with a nonce that follows from key and message, so that the root's certificate is always the same bytes.
fn deterministic_signature(key: &PrivateKey, message: &[u8]) -> Option<Vec<u8>> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = BigUint::parse_bytes(ORDER.as_bytes(), 16)?;
    debug_assert_eq!(key.algorithm, Algorithm::P256);
    let d = root_secret();
    let z = digest(&SHA256, message);
    let nonce = digest(&SHA256, &[&d[..], z.as_ref()].concat());
    let point = PrivateKey::curve(Algorithm::P256, nonce.as_ref())?;
    let r = BigUint::from_bytes_be(point.point().get(1..33)?) % &order;
    let k = BigUint::from_bytes_be(nonce.as_ref());
    let s =
        k.modinv(&order)? * (BigUint::from_bytes_be(z.as_ref()) + &r * BigUint::from_bytes_be(&d)) % &order;
    Some(sequence(&[integer(&r.to_bytes_be()), integer(&s.to_bytes_be())]))
}

fn name(common_name: &str) -> Vec<u8> {
    sequence(&[set(&[sequence(&[oid(COMMON_NAME), text(common_name)])])])
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![oid(id)];
    if critical {
        parts.push(yes());
    }
    parts.push(octets(value));
    sequence(&parts)
}

/// The subject of a certificate, as it stands there.
fn subject(certificate: &[u8]) -> Option<Vec<u8>> {
    let tbs = Tlv::first(Tlv::only(certificate, 0x30)?)?.0;
    let fields = Tlv::all(tbs.value)?;
    let version = usize::from(fields.first()?.tag == 0xA0);
    Some(encode(0x30, fields.get(version + 4)?.value))
}

/// A certificate's serial number: never zero, never negative.
fn positive(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[0] = bytes[0] & 0x7F | 0x40;
    bytes
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };
    use x509_cert::der::{Decode, Encode};

    use super::*;

    fn verify(certificate: &[u8], issuer: &[u8], algorithm: &'static dyn VerificationAlgorithm) {
        let certificate = x509_cert::Certificate::from_der(certificate).unwrap();
        let issuer = x509_cert::Certificate::from_der(issuer).unwrap();
        assert_eq!(certificate.tbs_certificate().issuer(), issuer.tbs_certificate().subject());
        let key = issuer.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes().unwrap();
        UnparsedPublicKey::new(algorithm, key)
            .verify(
                &certificate.tbs_certificate().to_der().unwrap(),
                certificate.signature().as_bytes().unwrap(),
            )
            .unwrap();
    }

    #[test]
    fn the_root_signs_itself_and_is_always_the_same() {
        let root = attestation_root_der();
        verify(&root, &root, &ECDSA_P256_SHA256_ASN1);
        assert_eq!(root, attestation_root_der());
    }

    #[test]
    fn a_chain_of_each_kind_verifies() {
        for (firmware, algorithm) in [
            (Firmware::V5_4_3, &RSA_PKCS1_2048_8192_SHA256 as &'static dyn VerificationAlgorithm),
            (Firmware::V5_7_1, &ECDSA_P256_SHA256_ASN1),
        ] {
            let (signer, certificate) = attestation_key(firmware).unwrap();
            verify(&certificate, &attestation_root_der(), &ECDSA_P256_SHA256_ASN1);
            let key = PrivateKey::generate(Algorithm::P384).unwrap();
            let statement = Statement {
                slot: 0x9A,
                key: &key,
                firmware,
                serial: 12_345_678,
                pin: PinPolicy::Once,
                touch: TouchPolicy::Cached,
            };
            let leaf = attest(&statement, &signer, &certificate).unwrap();
            verify(&leaf, &certificate, algorithm);
        }
    }
}
