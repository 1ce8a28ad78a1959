//! The Sigstore bundle: what a signature leaves on disk (protobuf-specs, `sigstore_bundle.proto`).
//!
//! Written is version 0.3 with a public-key hint and a signed message. Read is what the JSON form of protobuf allows:
//! both spellings of names, either base64 alphabet, enums as names or numbers.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, PublicKey, Result, Signature};

/// What is appended to a file's name.
pub(crate) const SUFFIX: &str = ".sigstore.json";

/// The longest bundle that is read.
pub(crate) const MAX_LEN: u64 = 16 << 20;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const MEDIA_TYPES: [&str; 4] = [
    MEDIA_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];

/// A signed message, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The digest of the message. Always written; cosign 3.1 leaves it out where an Ed25519 key signed.
    pub(crate) digest: Option<Digest>,
    /// The signature, in the encoding of its algorithm.
    pub(crate) signature: Signature,
    /// Which key is meant, as its maker wrote it: not proven by anything.
    pub(crate) hint: String,
}

/// The hint that cosign writes for a key: base64 of the SHA-256 of its SubjectPublicKeyInfo.
pub(crate) fn hint(key: &PublicKey) -> String {
    STANDARD.encode(key.fingerprint().as_bytes())
}

impl Bundle {
    /// The bundle as a JSON document.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        let raw = RawBundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Some(Material {
                public_key: Some(PublicKeyIdentifier { hint: self.hint.clone() }),
                ..Material::default()
            }),
            message_signature: Some(MessageSignature {
                message_digest: self.digest.map(|digest| MessageDigest {
                    algorithm: HashName::Known(digest.algorithm()),
                    digest: Base64(digest.as_bytes().to_vec()),
                }),
                signature: Base64(self.signature.as_bytes().to_vec()),
            }),
            dsse_envelope: None,
        };
        let mut json = serde_json::to_vec(&raw)
            .map_err(|e| Error::internal("the bundle cannot be written").vendor(e))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a bundle that holds a signed message and names a public key.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::bad_request(what);
        let raw: RawBundle =
            serde_json::from_slice(json).map_err(|e| wrong("this is not a Sigstore bundle").vendor(e))?;
        if !MEDIA_TYPES.contains(&raw.media_type.as_str()) {
            return Err(wrong(&format!("bundles of type {:?} are not known here", raw.media_type))
                .next(format!("supported is {MEDIA_TYPE}")));
        }
        if raw.dsse_envelope.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the bundle holds an attestation, not a file's signature",
            )
            .next("`cosign verify-blob-attestation` checks those"));
        }
        let signed = raw.message_signature.ok_or_else(|| wrong("the bundle holds no signature of a file"))?;
        let material = raw.verification_material.unwrap_or_default();
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the bundle was made with a certificate, not with a key",
            )
            .next("`cosign verify-blob` checks those"));
        }
        let digest = signed.message_digest.unwrap_or_default();
        let digest = match digest.algorithm {
            HashName::Known(hash) => Some(Digest::new(hash, &digest.digest.0)?),
            HashName::Unspecified if digest.digest.0.is_empty() => None,
            _ => {
                return Err(wrong("the bundle's digest is by a hash function that is not known here")
                    .next("use SHA2_256, SHA2_384 or SHA2_512"));
            }
        };
        if signed.signature.0.is_empty() {
            return Err(wrong("the bundle's signature is empty"));
        }
        Ok(Self {
            digest,
            signature: Signature::new(signed.signature.0),
            hint: material.public_key.map(|k| k.hint).unwrap_or_default(),
        })
    }
}

/// Something that is allowed to be there and not looked at.
type Ignored = Option<serde_json::Value>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawBundle {
    #[serde(alias = "media_type")]
    media_type: String,
    #[serde(alias = "verification_material")]
    verification_material: Option<Material>,
    #[serde(alias = "message_signature", default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageSignature>,
    #[serde(alias = "dsse_envelope", default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Ignored,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Material {
    #[serde(alias = "public_key", skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKeyIdentifier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Ignored,
    #[serde(alias = "x509_certificate_chain", skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Ignored,
    #[serde(alias = "tlog_entries", skip_serializing_if = "Option::is_none")]
    tlog_entries: Ignored,
    #[serde(alias = "timestamp_verification_data", skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Ignored,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyIdentifier {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageSignature {
    #[serde(alias = "message_digest")]
    message_digest: Option<MessageDigest>,
    #[serde(default)]
    signature: Base64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MessageDigest {
    algorithm: HashName,
    digest: Base64,
}

/// `HashAlgorithm` of `sigstore_common.proto`.
#[derive(Default)]
enum HashName {
    #[default]
    Unspecified,
    Known(HashAlgorithm),
    Unknown,
}

const UNSPECIFIED: &str = "HASH_ALGORITHM_UNSPECIFIED";
const HASHES: [(&str, u64, HashAlgorithm); 3] = [
    ("SHA2_256", 1, HashAlgorithm::Sha256),
    ("SHA2_384", 2, HashAlgorithm::Sha384),
    ("SHA2_512", 3, HashAlgorithm::Sha512),
];

impl Serialize for HashName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let known = HASHES.iter().find(|(_, _, hash)| matches!(self, Self::Known(known) if known == hash));
        serializer.serialize_str(known.map_or(UNSPECIFIED, |(name, ..)| name))
    }
}

impl<'de> Deserialize<'de> for HashName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Name(String),
            Number(u64),
        }
        let given = Either::deserialize(deserializer)?;
        let known = HASHES.iter().find(|(name, number, _)| match &given {
            Either::Name(given) => given == name,
            Either::Number(given) => given == number,
        });
        Ok(match (known, given) {
            (Some((_, _, hash)), _) => Self::Known(*hash),
            (None, Either::Number(0)) => Self::Unspecified,
            (None, Either::Name(name)) if name == UNSPECIFIED => Self::Unspecified,
            (None, _) => Self::Unknown,
        })
    }
}

#[derive(Default)]
struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let text = String::deserialize(deserializer)?.replace('-', "+").replace('_', "/");
        let bytes = GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text);
        bytes.map(Self).map_err(|_| de::Error::custom("this is not base64"))
    }
}

#[cfg(test)]
mod tests {
    use sigstore_protobuf_specs::dev::sigstore::bundle::v1 as official;

    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            digest: Some(Digest::of(HashAlgorithm::Sha384, b"x")),
            signature: Signature::new(vec![0xfb, 0xff, 3]),
            hint: "aGludA==".to_owned(),
        }
    }

    #[test]
    fn what_we_write_the_official_types_read() {
        let json = bundle().to_json().unwrap();
        let read: official::Bundle = serde_json::from_slice(&json).unwrap();
        assert_eq!(read.media_type, MEDIA_TYPE);
        let Some(official::bundle::Content::MessageSignature(signed)) = read.content else { panic!() };
        assert_eq!(signed.signature, [0xfb, 0xff, 3]);
        let digest = signed.message_digest.unwrap();
        assert_eq!((digest.algorithm, digest.digest.len()), (2, 48));
        let material = read.verification_material.unwrap();
        let Some(official::verification_material::Content::PublicKey(key)) = material.content else {
            panic!()
        };
        assert_eq!(key.hint, "aGludA==");
        assert!(material.tlog_entries.is_empty());
    }

    #[test]
    fn what_the_official_types_write_we_read() {
        let ours = bundle().to_json().unwrap();
        let official: official::Bundle = serde_json::from_slice(&ours).unwrap();
        let theirs = serde_json::to_vec(&official).unwrap();
        assert_eq!(Bundle::from_json(&theirs).unwrap(), bundle());
    }

    #[test]
    fn both_spellings_and_either_base64_are_read() {
        let text = String::from_utf8(bundle().to_json().unwrap()).unwrap();
        assert!(text.contains("+/8D"));
        let other = text
            .replace("+/8D", "-_8D")
            .replace("messageSignature", "message_signature")
            .replace("\"SHA2_384\"", "2")
            .replace("\"publicKey\"", "\"tlogEntries\":[],\"public_key\"");
        assert_eq!(Bundle::from_json(other.as_bytes()).unwrap(), bundle());
    }

    #[test]
    fn a_bundle_of_cosign_without_a_digest_is_read() {
        let json = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial":{"publicKey":
            {"hint":"aGludA=="}}, "messageSignature":{"messageDigest":{}, "signature":"+/8D"}}"#;
        assert_eq!(Bundle::from_json(json.as_bytes()).unwrap(), Bundle { digest: None, ..bundle() });
    }

    #[test]
    fn other_bundles_are_refused_with_a_reason() {
        let good = String::from_utf8(bundle().to_json().unwrap()).unwrap();
        let cases = [
            ("[]".to_owned(), "not a Sigstore bundle"),
            (good.replace("bundle.v0.3", "bundle.v9"), "not known here"),
            (good.replace("SHA2_384", "SHA3_384"), "hash function"),
            (good.replace("SHA2_384", "SHA2_256"), "32 bytes"),
            (good.replace("\"hint\"", "\"surprise\""), "not a Sigstore bundle"),
            (good.replace("\"signature\":\"+/8D\"", "\"signature\":\"\""), "empty"),
            (good.replace("\"publicKey\"", "\"certificate\":{},\"publicKey\""), "certificate"),
            (
                r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{}}"#.into(),
                "attestation",
            ),
            (r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#.into(), "no signature"),
        ];
        for (json, reason) in cases {
            let error = Bundle::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
