//! The statement that a Cloud HSM makes of a key, in the form of the service, by a maker of our own.
//!
//! `content` is gzip over the response of an HSM of firmware 3, as Marvell's and Microsoft's published parsers read it; its last
//! 256 bytes are an RSA signature (PKCS#1, SHA-256) over the others by the partition. Its key has a certificate of the card's
//! maker and one of Google's, and so has the card's: four certificates without the roots, as Google's own check wants them.

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
struct Statements {
    partition: RsaKeyPair,
    /// PEM, the partition's first.
    maker_chain: Vec<String>,
    google_card_chain: Vec<String>,
    google_partition_chain: Vec<String>,
    /// PEM, one behind the other.
    roots: String,
}

/// The roots of the maker and of the cloud, in PEM. Each process has its own.
pub(crate) fn roots() -> &'static str {
    &Statements::the().roots
}

impl Statements {
    fn the() -> &'static Self {
        static THE: OnceLock<Statements> = OnceLock::new();
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
            maker_chain: vec![partition_of_maker, card_of_maker],
            google_card_chain: vec![card_of_google],
            google_partition_chain: vec![partition_of_google],
            roots: format!("{}{}", maker.as_ref().pem(), google.as_ref().pem()),
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
    let maker = Statements::the();
    let mut statement = response(version, public);
    statement.extend(maker.sign(&statement));
    json!({
        "format": request.member(&AttestationFormat::CaviumV2),
        "content": STANDARD.encode(gzip(&statement)),
        "certChains": {
            "caviumCerts": maker.maker_chain,
            "googleCardCerts": maker.google_card_chain,
            "googlePartitionCerts": maker.google_partition_chain,
        },
    })
}

/// How long the signature behind a response is.
const SIGNATURE_LEN: usize = 256;
/// Between the header and the information, undocumented.
const GAP: [u8; 16] = [0; 16];
/// The attributes and the signature were asked for.
const FLAGS: u32 = 3;

/// Header (result, flags, length of all, length of the information), information (version, flags, where the two objects are
/// in it), the public key's object, the private key's. Everything is big-endian.
fn response(version: &str, public: &PublicKey) -> Vec<u8> {
    const INFORMATION_HEADER: usize = 8;
    let (first, second) = (object(Half::Public, version, public), object(Half::Private, version, public));
    let offsets = [INFORMATION_HEADER, INFORMATION_HEADER + first.len()];
    let header = [1, FLAGS as u16, offsets[0] as u16, offsets[1] as u16];
    let information: Vec<u8> =
        header.into_iter().flat_map(u16::to_be_bytes).chain(first).chain(second).collect();
    let total = 16 + GAP.len() + information.len() + SIGNATURE_LEN;
    let header = [0, FLAGS, total as u32, information.len() as u32];
    header.into_iter().flat_map(u32::to_be_bytes).chain(GAP).chain(information).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Public,
    Private,
}

/// Handle, number of attributes, bytes of them; then the attributes with PKCS#11's numbers, each with a length.
fn object(half: Half, version: &str, public: &PublicKey) -> Vec<u8> {
    let (mut attributes, mut count) = (Vec::new(), 0_u32);
    let mut add = |number: u32, value: &[u8]| {
        count += 1;
        attributes.extend(number.to_be_bytes());
        attributes.extend((value.len() as u32).to_be_bytes());
        attributes.extend(value);
    };
    let private = u8::from(half == Half::Private);
    let numbers = rsa_numbers(public);
    add(0x0, &[2 + private]); // CKA_CLASS
    add(0x1, &[1]); // CKA_TOKEN
    add(0x2, &[1]); // CKA_PRIVATE
    add(0x3, b"app_key"); // CKA_LABEL
    add(0x100, &[if numbers.is_some() { 0 } else { 3 }]); // CKA_KEY_TYPE
    add(0x102, Digest::of(HashAlgorithm::Sha256, version.as_bytes()).as_bytes()); // CKA_ID
    add(0x103, &[private]); // CKA_SENSITIVE
    add(0x108, &[private]); // CKA_SIGN
    add(0x10a, &[1 - private]); // CKA_VERIFY
    match &numbers {
        Some((modulus, exponent)) => {
            add(0x120, modulus); // CKA_MODULUS
            add(0x122, exponent); // CKA_PUBLIC_EXPONENT
        }
        None => add(0x120, public.key_bytes()), // the point stands where a modulus would
    }
    add(0x162, &[1 - private]); // CKA_EXTRACTABLE
    add(0x163, &[1]); // CKA_LOCAL: generated inside
    add(0x164, &[private]); // CKA_NEVER_EXTRACTABLE
    add(0x165, &[private]); // CKA_ALWAYS_SENSITIVE
    add(0x1003, public.fingerprint().as_bytes()); // Marvell's extended key check value
    let handle = 0x7e6 + u32::from(private);
    let header = [handle, count, attributes.len() as u32];
    header.into_iter().flat_map(u32::to_be_bytes).chain(attributes).collect()
}

/// The modulus and the exponent of an RSA key: the two numbers of its RSAPublicKey.
fn rsa_numbers(public: &PublicKey) -> Option<(Vec<u8>, Vec<u8>)> {
    if !matches!(public.key_type(), KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096) {
        return None;
    }
    // SEQUENCE and the modulus have two bytes of length; the modulus has a zero in front.
    let der = public.key_bytes();
    let len = usize::from(u16::from_be_bytes([der[6], der[7]]));
    let (modulus, exponent) = (&der[8 + 1..8 + len], &der[8 + len + 2..]);
    Some((modulus.to_vec(), exponent.to_vec()))
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
