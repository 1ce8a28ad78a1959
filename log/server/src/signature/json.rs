//! Requests as protobuf's JSON form has them: both spellings of names, either base64 alphabet, enums as names or numbers,
//! `null` for what is not set, and nothing that is not known.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Deserializer, de};
use signer_core::{Error, Result};

use super::pb::{
    common::v1::{PublicKeyDetails, X509Certificate},
    intoto,
    rekor::v2::{self as rekor, create_entry_request::Spec},
};

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<rekor::CreateEntryRequest> {
    let request: Request = serde_json::from_slice(body).map_err(|e| {
        Error::bad_request("the request is not the JSON form of CreateEntryRequest").vendor(e)
    })?;
    let spec = match (request.hashed_rekord, request.dsse) {
        (Some(_), Some(_)) => {
            return Err(Error::bad_request("the request has two entries; send one at a time"));
        }
        (Some(hashed), None) => Some(Spec::HashedRekordRequestV002(hashed.into())),
        (None, Some(dsse)) => Some(Spec::DsseRequestV002(dsse.into())),
        (None, None) => None,
    };
    Ok(rekor::CreateEntryRequest { spec })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "hashedRekordRequestV002", alias = "hashed_rekord_request_v002")]
    hashed_rekord: Option<HashedRekord>,
    #[serde(rename = "dsseRequestV002", alias = "dsse_request_v002")]
    dsse: Option<Dsse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HashedRekord {
    #[serde(default)]
    digest: Base64,
    signature: Option<Signature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    #[serde(default)]
    content: Base64,
    verifier: Option<Verifier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verifier {
    #[serde(rename = "publicKey", alias = "public_key")]
    public_key: Option<Raw>,
    #[serde(rename = "x509Certificate", alias = "x509_certificate")]
    certificate: Option<Raw>,
    #[serde(rename = "keyDetails", alias = "key_details", default)]
    key_details: Details,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "rawBytes", alias = "raw_bytes", default)]
    raw_bytes: Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dsse {
    envelope: Option<Envelope>,
    #[serde(default, deserialize_with = "list")]
    verifiers: Vec<Verifier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(default)]
    payload: Base64,
    #[serde(rename = "payloadType", alias = "payload_type")]
    payload_type: Option<String>,
    #[serde(default, deserialize_with = "list")]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    #[serde(default)]
    sig: Base64,
    keyid: Option<String>,
}

/// `null` is an empty list.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A `bytes` field.
#[derive(Default)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
        const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
        let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let engine = if text.contains(['-', '_']) { &URL } else { &STANDARD };
        engine
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|e| de::Error::custom(format_args!("bytes are not base64: {e}")))
    }
}

/// An enum field, by name or number.
#[derive(Default)]
struct Details(i32);

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i32),
            Name(String),
        }
        Ok(Self(match Option::<Either>::deserialize(deserializer)? {
            None => 0,
            Some(Either::Number(number)) => number,
            Some(Either::Name(name)) => PublicKeyDetails::from_str_name(&name)
                .ok_or_else(|| de::Error::custom(format_args!("no key details are called {name:?}")))?
                .into(),
        }))
    }
}

impl From<HashedRekord> for rekor::HashedRekordRequestV002 {
    fn from(from: HashedRekord) -> Self {
        Self { digest: from.digest.0, signature: from.signature.map(Into::into) }
    }
}

impl From<Signature> for rekor::Signature {
    fn from(from: Signature) -> Self {
        Self { content: from.content.0, verifier: from.verifier.map(Into::into) }
    }
}

impl From<Verifier> for rekor::Verifier {
    fn from(from: Verifier) -> Self {
        use rekor::verifier::Verifier::{PublicKey, X509Certificate as Certificate};
        // Two at once: the certificate is looked at, and says whose key it is.
        let key = from.public_key.map(|raw| PublicKey(rekor::PublicKey { raw_bytes: raw.raw_bytes.0 }));
        let certificate =
            from.certificate.map(|raw| Certificate(X509Certificate { raw_bytes: raw.raw_bytes.0 }));
        Self { verifier: certificate.or(key), key_details: from.key_details.0 }
    }
}

impl From<Dsse> for rekor::DsseRequestV002 {
    fn from(from: Dsse) -> Self {
        Self {
            envelope: from.envelope.map(|e| intoto::Envelope {
                payload: e.payload.0,
                payload_type: e.payload_type.unwrap_or_default(),
                signatures: e
                    .signatures
                    .into_iter()
                    .map(|s| intoto::Signature { sig: s.sig.0, keyid: s.keyid.unwrap_or_default() })
                    .collect(),
            }),
            verifiers: from.verifiers.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_and_alphabets_are_read() {
        let camel = r#"{"hashedRekordRequestV002":{"digest":"+/8=","signature":{"content":"AA==","verifier":
            {"publicKey":{"rawBytes":"AQ=="},"keyDetails":"PKIX_ECDSA_P256_SHA_256"}}}}"#;
        let snake = r#"{"hashed_rekord_request_v002":{"digest":"-_8","signature":{"content":"AA","verifier":
            {"public_key":{"raw_bytes":"AQ"},"x509Certificate":null,"key_details":5}}},"dsseRequestV002":null}"#;
        assert_eq!(read(camel.as_bytes()).unwrap(), read(snake.as_bytes()).unwrap());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            "",
            "[]",
            "null",
            "{\"x\":1}",
            "{\"hashedRekordRequestV002\":[]}",
            r#"{"hashedRekordRequestV002":{"digest":1}}"#,
            r#"{"hashedRekordRequestV002":{"digest":"*"}}"#,
            r#"{"hashedRekordRequestV002":{"digest":"","digest":""}}"#,
            r#"{"hashedRekordRequestV002":{"signature":{"verifier":{"keyDetails":"RSA"}}}}"#,
            r#"{"hashedRekordRequestV002":{"signature":{"verifier":{"keyDetails":99999999999}}}}"#,
            r#"{"hashedRekordRequestV002":{"signature":{"extra":1}}}"#,
            r#"{"hashedRekordRequestV002":{},"dsseRequestV002":{}}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read(b"{}").unwrap().spec.is_none());
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in "\\{\"hashedRekordRequestV002\":\\PC{0,80}") {
            let _ = read(text.as_bytes());
        }
    }
}
