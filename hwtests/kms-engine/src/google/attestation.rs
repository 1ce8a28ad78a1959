//! The statement that a Cloud HSM makes of a key, in the form of the service, by a maker of our own.
//!
//! `content` is gzip over the statement; its last 256 bytes are an RSA signature (PKCS#1, SHA-256) over the others by the
//! partition, whose key has a certificate of the card's maker and one of Google's.

use std::sync::OnceLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use signer_core::{Digest, HashAlgorithm, KeyType, PublicKey};

use super::{Request, enums::AttestationFormat};

/// The maker's and Google's certificates, and the partition's key.
struct Maker {
    partition: RsaKeyPair,
    /// PEM, the partition's first.
    by_maker: Vec<String>,
    by_google_card: Vec<String>,
    by_google_partition: Vec<String>,
}

impl Maker {
    fn the() -> &'static Self {
        static THE: OnceLock<Maker> = OnceLock::new();
        THE.get_or_init(|| Self::try_make().expect("certificates of fixed parameters can be made"))
    }

    fn try_make() -> Result<Self, Box<dyn std::error::Error>> {
        let named = |name: &str, ca| -> Result<CertificateParams, rcgen::Error> {
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
            Ok(parameters)
        };
        let maker =
            CertifiedIssuer::self_signed(named("signerd test HSM maker", true)?, KeyPair::generate()?)?;
        let google = CertifiedIssuer::self_signed(named("signerd test cloud", true)?, KeyPair::generate()?)?;
        let card = named("card 4.0G0000-TEST", true)?;
        let card_key = KeyPair::generate()?;
        let card_of_maker = card.signed_by(&card_key, &maker)?.pem();
        let card_of_google = card.signed_by(&card_key, &google)?.pem();
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&pair)?;
        let partition_key = KeyPair::try_from(der.as_ref())?;
        let partition = named("partition 4.0G0000-TEST-1", false)?;
        let card_issuer = rcgen::Issuer::new(card, card_key);
        let partition_of_maker = partition.signed_by(&partition_key, &card_issuer)?.pem();
        let partition_of_google = partition.signed_by(&partition_key, &google)?.pem();
        Ok(Self {
            partition: pair,
            by_maker: vec![partition_of_maker, card_of_maker, maker.as_ref().pem()],
            by_google_card: vec![card_of_google],
            by_google_partition: vec![partition_of_google],
        })
    }

    fn sign(&self, statement: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.partition.public_modulus_len()];
        self.partition
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), statement, &mut signature)
            .expect("an RSA key signs");
        signature
    }
}

/// `KeyOperationAttestation`.
pub(super) fn of(request: &Request<'_>, version: &str, public: &PublicKey) -> Value {
    let maker = Maker::the();
    let mut statement = statement(version, public);
    statement.extend(maker.sign(&statement));
    json!({
        "format": request.member(&AttestationFormat::CaviumV2),
        "content": STANDARD.encode(gzip(&statement)),
        "certChains": {
            "caviumCerts": maker.by_maker,
            "googleCardCerts": maker.by_google_card,
            "googlePartitionCerts": maker.by_google_partition,
        },
    })
}

/// An object as the HSM writes it: handle, number of attributes, bytes of them; then the attributes with PKCS#11's
/// numbers, each with a length. Everything is big-endian.
fn statement(version: &str, public: &PublicKey) -> Vec<u8> {
    let (mut attributes, mut count) = (Vec::new(), 0_u32);
    let mut add = |number: u32, value: &[u8]| {
        count += 1;
        attributes.extend(number.to_be_bytes());
        attributes.extend((value.len() as u32).to_be_bytes());
        attributes.extend(value);
    };
    let key_type: u32 = match public.key_type() {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => 0,
        _ => 3,
    };
    add(0x0, &3_u32.to_be_bytes()); // CKA_CLASS: a private key
    add(0x100, &key_type.to_be_bytes()); // CKA_KEY_TYPE
    add(0x102, Digest::of(HashAlgorithm::Sha256, version.as_bytes()).as_bytes()); // CKA_ID
    add(0x129, public.as_der()); // CKA_PUBLIC_KEY_INFO
    add(0x162, &[0]); // CKA_EXTRACTABLE
    add(0x163, &[1]); // CKA_LOCAL: generated inside
    add(0x164, &[1]); // CKA_NEVER_EXTRACTABLE
    let header = [0x11, count, attributes.len() as u32];
    header.into_iter().flat_map(u32::to_be_bytes).chain(attributes).collect()
}

/// RFC 1952, with stored blocks.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = data.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let len = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
    out.extend(crc32(data).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
