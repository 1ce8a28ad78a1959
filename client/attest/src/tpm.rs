//! A TPM's statement: TPM2_Certify by an attestation key (TPM 2.0 Library, part 3, section 18.2).

use std::{fmt, str::FromStr};

use const_oid::ObjectIdentifier;
use der::Decode;
use signer_core::{Error, PublicKey, Result};
use x509_cert::{
    attr::AttributeTypeAndValue,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{
    Certificate, Device, DeviceKind, KeyFacts, Origin, Report,
    chain::{Chain, Rules},
    refused,
    roots::Maker,
    verifier::Verifier,
};

mod structures;

pub(crate) use structures::{Attest, Public, Signature, without_len};

/// The extended key usage of the certificate of an attestation key (TCG, tcg-kp-AIKCertificate).
const ATTESTATION_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
/// That of an endorsement key (TCG, tcg-kp-EKCertificate).
const ENDORSEMENT_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// The maker, the model and the version in a certificate's alternative name (TCG EK Credential Profile, section 3.2.9).
const MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
const MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");

/// A statement as it came, not yet judged.
#[derive(Clone, Debug)]
pub(crate) struct TpmStatement {
    /// `TPMS_ATTEST`, which is what is signed.
    pub(crate) attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub(crate) signature: Vec<u8>,
    /// `TPMT_PUBLIC` of the key.
    pub(crate) key: Vec<u8>,
    /// `TPMT_PUBLIC` of the attestation key.
    pub(crate) attester: Vec<u8>,
    /// Of the endorsement key, of the attestation key, and those above them.
    pub(crate) certificates: Vec<Certificate>,
}

/// The Name of a TPM's key: its hash function, and the digest of its public area. Unlike the public key it covers what the
/// key may do.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AttesterName(Vec<u8>);

impl AttesterName {
    /// Reads a `TPM2B_PUBLIC` or `TPMT_PUBLIC`, as tpm2-tools write them, and works its Name out.
    pub fn of_public(bytes: &[u8]) -> Result<Self> {
        let public = Public::from_either(bytes).ok_or_else(|| {
            Error::bad_request("this is not the public area of a TPM's key").next(
                "write it with `tpm2_readpublic -f tss -o FILE`; a PEM file does not say what the key may do",
            )
        })?;
        Ok(Self(public.name))
    }
}

impl FromStr for AttesterName {
    type Err = Error;

    /// Hexadecimal digits: `000b` and a SHA-256 digest, for one.
    fn from_str(text: &str) -> Result<Self> {
        let name = hex::decode(text).ok().filter(|n| structures::is_name(n));
        name.map(Self).ok_or_else(|| {
            Error::bad_request(format!("{text:?} is not the Name of a TPM's key"))
                .next("write hexadecimal digits: 000b and 64 more, as tpm2_readpublic shows it")
        })
    }
}

impl fmt::Display for AttesterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for AttesterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttesterName({self})")
    }
}

/// Why the attestation key counts as a TPM's.
enum Standing {
    /// The caller says so.
    Enrolled,
    /// A certificate says so.
    Certified(Box<Chain>),
}

pub(crate) fn verify(verifier: &Verifier, certify: &TpmStatement, key: &PublicKey) -> Result<Report> {
    let malformed =
        |what: &str| Error::bad_request(format!("the TPM's statement has no {what} that can be read"));
    let attest = Attest::parse(&certify.attest).ok_or_else(|| malformed("TPMS_ATTEST"))?;
    let signature = Signature::parse(&certify.signature).ok_or_else(|| malformed("TPMT_SIGNATURE"))?;
    let certified = Public::parse(&certify.key).ok_or_else(|| malformed("TPMT_PUBLIC of the key"))?;
    let attester =
        Public::parse(&certify.attester).ok_or_else(|| malformed("TPMT_PUBLIC of the attestation key"))?;

    // 1. A TPM says it of itself, by TPM2_Certify, about this key.
    if !attest.is_generated {
        return Err(refused("the signed data does not begin as what a TPM makes itself (TPM_GENERATED)"));
    }
    let Some(name) = attest.certified else {
        return Err(refused("the TPM stated something else than TPM2_Certify does"));
    };
    if certified.public_key()?.as_der() != key.as_der() {
        return Err(refused("the statement is about another key").next("check --key"));
    }
    if certified.name != name {
        return Err(refused("the TPM's statement is about other attributes of the key than those beside it"));
    }
    // 2. A key that signs nothing but what its TPM makes has signed it.
    if !attester.signs_only_statements() {
        return Err(refused(
            "the statement is not signed by a restricted key that was made in a TPM: anybody can have written it",
        ));
    }
    signature.verify(&attester.public_key()?, attest.bytes).map_err(|e| match e.kind() {
        signer_core::ErrorKind::Denied => {
            refused("the signature of the statement is not by the attestation key")
        }
        _ => e,
    })?;
    // 3. For whoever asked.
    if verifier.nonce.as_deref().is_some_and(|nonce| nonce != attest.qualifying) {
        return Err(refused("the statement was not made for this nonce"));
    }
    // 4. That key is in a TPM.
    let endorsement = endorsement(verifier, certify)?;
    let standing = standing(verifier, certify, &attester)?;
    Ok(report(&attest, &certified, &attester, endorsement.as_ref(), &standing, key, verifier))
}

fn standing(verifier: &Verifier, certify: &TpmStatement, attester: &Public) -> Result<Standing> {
    let name = AttesterName(attester.name.clone());
    if verifier.attesters.contains(&name) {
        return Ok(Standing::Enrolled);
    }
    if !verifier.attesters.is_empty() {
        return Err(refused(format_args!(
            "the attestation key is another one than --attester names: {name}"
        )));
    }
    let spki = attester.public_key()?.as_der().to_vec();
    let own = certify.certificates.iter().find(|c| c.spki().is_ok_and(|key| key == spki));
    let Some(own) = own else {
        return Err(refused(
            "nothing shows that the attestation key is in a TPM; the certificate of an endorsement key beside it does not",
        )
        .next(format!(
            "find out once with TPM2_ActivateCredential (docs/attestation.md), then say --attester {name}"
        )));
    };
    if !own.has_extended_usage(ATTESTATION_KEY) {
        return Err(refused(
            "the attestation key's certificate is not one of an attestation key (2.23.133.8.3)",
        ));
    }
    let anchors = verifier.roots.anchors(Maker::Tpm);
    let chain = Chain::build(own, &certify.certificates, &anchors, verifier.at, Rules::Strict)?;
    Ok(Standing::Certified(Box::new(chain)))
}

/// The chain of the endorsement key's certificate, where there is one.
fn endorsement(verifier: &Verifier, certify: &TpmStatement) -> Result<Option<Chain>> {
    let own = certify.certificates.iter().find(|c| c.has_extended_usage(ENDORSEMENT_KEY) && !is_authority(c));
    let Some(own) = own else { return Ok(None) };
    let anchors = verifier.roots.anchors(Maker::Tpm);
    Chain::build(own, &certify.certificates, &anchors, verifier.at, Rules::Strict).map(Some)
}

fn is_authority(certificate: &Certificate) -> bool {
    certificate.constraints().ok().flatten().is_some_and(|c| c.ca)
}

fn report(
    attest: &Attest<'_>,
    certified: &Public,
    attester: &Public,
    endorsement: Option<&Chain>,
    standing: &Standing,
    key: &PublicKey,
    verifier: &Verifier,
) -> Report {
    let origin = if certified.sensitive_data_origin() { Origin::Generated } else { Origin::Imported };
    let exportable = !(certified.fixed_tpm() && certified.fixed_parent());
    // With userWithAuth the authorisation value alone is enough, whatever the policy demands.
    let policy =
        (!certified.user_with_auth() && !certified.policy.is_empty()).then(|| certified.policy.clone());
    let name = AttesterName(attester.name.clone());
    let mut chains = Vec::new();
    let mut roots = Vec::new();
    let mut add = |chain: &Chain| {
        chains.push(chain.names());
        roots.push(chain.root());
    };
    let whose = match standing {
        Standing::Enrolled => format!("the attestation key {name} is one that you enrolled"),
        Standing::Certified(chain) => {
            add(chain);
            let root = chain.root();
            root.on_whose_word("a TPM maker")
        }
    };
    if let Some(chain) = endorsement {
        add(chain);
    }
    let mut more = vec![("attestation key", name.to_string())];
    if attest.signed_under_endorsement(&attester.name) {
        more.push(("attester made under", "the endorsement hierarchy".to_owned()));
    }
    if !attest.qualifying.is_empty() {
        more.push(("nonce", hex::encode(attest.qualifying)));
    }
    let (maker, model) = endorsement.map_or((None, None), |c| described(&c.certificates[0]));
    let origin_words = match origin {
        Origin::Generated => "generated this key",
        Origin::Imported => "holds this key, which was imported,",
    };
    let export_words = if exportable { "may give it out under its policy" } else { "never gives it out" };
    let policy_words = match &policy {
        Some(policy) => format!("it signs only under the policy {}", hex::encode(policy)),
        None => "it signs for whoever knows its authorisation value, which may be empty".to_owned(),
    };
    let fresh = if verifier.nonce.is_some() {
        "what has happened since the nonce was given"
    } else {
        "when it was said (no nonce)"
    };
    let same = match (standing, endorsement) {
        (Standing::Enrolled, _) => {
            "that the attestation key is in a TPM, which was for you to find out when you enrolled it"
        }
        (Standing::Certified(_), Some(_)) => {
            "that the attestation key and the endorsement key are in the same TPM, which its certifier says it has checked"
        }
        (Standing::Certified(_), None) => {
            "that its certifier checked well that the attestation key is in a TPM"
        }
    };
    Report {
        device: Device {
            kind: DeviceKind::Tpm,
            maker,
            model,
            firmware: Some(attest.firmware_text()),
            serial: None,
            fips: None,
        },
        key: KeyFacts {
            key_type: key.key_type(),
            fingerprint: key.fingerprint(),
            place: None,
            origin,
            exportable,
            pin: None,
            touch: None,
            policy,
            more,
        },
        proven: format!("A TPM {origin_words} and {export_words}; {policy_words}; {whose}."),
        not_proven: format!("Not proven: {same}; and {fresh}."),
        chains,
        roots,
        warnings: Vec::new(),
    }
}

/// The maker and the model, as the endorsement key's certificate has them.
fn described(certificate: &Certificate) -> (Option<String>, Option<String>) {
    let names = certificate
        .extension(const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME)
        .and_then(|value| SubjectAltName::from_der(value).ok());
    let Some(names) = names else { return (None, None) };
    let find = |oid: ObjectIdentifier| {
        names.0.iter().find_map(|name| match name {
            GeneralName::DirectoryName(name) => name.iter().find(|a| a.oid == oid).and_then(text),
            _ => None,
        })
    };
    (find(MANUFACTURER).map(|id| vendor(&id)), find(MODEL))
}

fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    std::str::from_utf8(attribute.value.value()).ok().map(str::to_owned)
}

/// `id:49465800` is the name `IFX` in four bytes (TCG Vendor ID Registry).
fn vendor(id: &str) -> String {
    let name = id.strip_prefix("id:").and_then(|digits| hex::decode(digits).ok());
    let name = name.and_then(|bytes| String::from_utf8(bytes).ok());
    let name = name.map(|n| n.trim_matches(['\0', ' ']).to_owned());
    let name = name.filter(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_graphic()));
    match name.as_deref() {
        Some("AMD") => "AMD".to_owned(),
        Some("GOOG") => "Google".to_owned(),
        Some("IBM") => "IBM".to_owned(),
        Some("IFX") => "Infineon".to_owned(),
        Some("INTC") => "Intel".to_owned(),
        Some("MSFT") => "Microsoft".to_owned(),
        Some("NTC") => "Nuvoton".to_owned(),
        Some("STM") => "STMicroelectronics".to_owned(),
        _ => name.unwrap_or_else(|| id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_named() {
        assert_eq!(vendor("id:49465800"), "Infineon");
        assert_eq!(vendor("id:53544D20"), "STMicroelectronics");
        assert_eq!(vendor("id:00001014"), "id:00001014", "swtpm's is no text");
        assert_eq!(vendor("signerd"), "signerd");
    }

    #[test]
    fn names_are_read_and_written() {
        let text = format!("000b{}", "5a".repeat(32));
        assert_eq!(text.parse::<AttesterName>().unwrap().to_string(), text);
        for bad in ["", "000b", "zz", &"5a".repeat(34), &format!("000c{}", "5a".repeat(32))] {
            assert!(bad.parse::<AttesterName>().is_err(), "{bad:?}");
        }
    }
}
