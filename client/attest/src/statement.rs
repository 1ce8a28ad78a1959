//! Statements in files: the one that `signer keys attest` writes, and those that the makers' own tools write.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use signer_core::{Error, Evidence, EvidenceFormat, Result};

use crate::{
    Certificate, DeviceKind,
    hsm::{HsmStatement, Response},
    piv::{self, PivStatement},
    tpm::{self, Attest, Public, Signature, TpmStatement},
};

/// What the file of `signer keys attest` says it is.
pub const MEDIA_TYPE: &str = "application/vnd.signerd.attestation.v1+json";

/// The file format of evidence: its kind, and its parts in the order that [`EvidenceFormat`] fixes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    /// Files of before it was written have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    format: String,
    /// Base64.
    parts: Vec<String>,
}

/// The file of `signer keys attest`, as JSON.
pub fn to_json(evidence: &Evidence) -> serde_json::Value {
    let parts: Vec<_> = evidence.parts.iter().map(|part| BASE64_STANDARD.encode(part)).collect();
    serde_json::json!({ "mediaType": MEDIA_TYPE, "format": evidence.format.name(), "parts": parts })
}

/// A device's statement on one key, read and not yet judged.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Piv(Box<PivStatement>),
    Tpm(TpmStatement),
    Hsm(HsmStatement),
}

/// What was found in the files, by what it is.
#[derive(Default)]
struct Found {
    evidence: Vec<Evidence>,
    certificates: Vec<Certificate>,
    responses: Vec<Vec<u8>>,
    attests: Vec<Vec<u8>>,
    signatures: Vec<Vec<u8>>,
    publics: Vec<Vec<u8>>,
}

impl Statement {
    /// Reads the files that make one statement up, in whatever order: that of `signer keys attest`; the PEM certificates that
    /// `ykman` and `yubico-piv-tool` write; what `tpm2_certify` and `tpm2_readpublic` write; Google's attestation and
    /// certificate chains. More certificates may stand beside each.
    pub fn read(files: &[&[u8]]) -> Result<Self> {
        let mut found = Found::default();
        for file in files {
            found.sort_in(file)?;
        }
        found.into_statement()
    }

    /// Takes evidence as it comes from a device.
    pub fn from_evidence(evidence: Evidence) -> Result<Self> {
        Found { evidence: vec![evidence], ..Found::default() }.into_statement()
    }

    /// What kind of device is said to have made it.
    pub fn kind(&self) -> DeviceKind {
        match self.content {
            Content::Piv(_) => DeviceKind::YubiKey,
            Content::Tpm(_) => DeviceKind::Tpm,
            Content::Hsm(_) => DeviceKind::GoogleHsm,
        }
    }
}

impl Found {
    fn sort_in(&mut self, file: &[u8]) -> Result<()> {
        let begins = |bytes: &[u8]| file.starts_with(bytes);
        if let Ok(text) = std::str::from_utf8(file) {
            if text.trim_start().starts_with('{') {
                self.evidence.push(from_json(text)?);
                return Ok(());
            }
            if text.contains("-----BEGIN ") {
                self.certificates.extend(Certificate::all_from_pem_or_der(file)?);
                return Ok(());
            }
        }
        let inside = tpm::without_len(file);
        if begins(&[0x1F, 0x8B]) || Response::parse(file).is_ok_and(|r| r.private_key().is_ok()) {
            self.responses.push(file.to_vec());
        } else if Attest::parse(inside).is_some_and(|a| a.is_generated) {
            self.attests.push(inside.to_vec());
        } else if Public::parse(inside).is_some() {
            self.publics.push(inside.to_vec());
        } else if Signature::parse(file).is_some() {
            self.signatures.push(file.to_vec());
        } else if begins(&[0x30]) {
            self.certificates.push(Certificate::from_der(file)?);
        } else {
            return Err(Error::bad_request("a file is no part of a statement that is known here").next(
                "give the file of `signer keys attest`, PEM certificates of a YubiKey, what tpm2_certify wrote (the \
                 signature with -f tss), or Google's attestation and chains",
            ));
        }
        Ok(())
    }

    fn into_statement(mut self) -> Result<Statement> {
        let content = match (self.evidence.pop(), self.evidence.is_empty()) {
            (Some(_), false) => return Err(Error::bad_request("these are statements on more than one key")),
            (Some(evidence), true) => self.with_evidence(evidence)?,
            (None, _) => self.bare()?,
        };
        Ok(Statement { content })
    }

    fn with_evidence(mut self, evidence: Evidence) -> Result<Content> {
        let parts = evidence.parts;
        let missing = || Error::bad_request("the statement is not whole: it has too few parts");
        let certificates = |parts: &[Vec<u8>]| {
            parts.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>>>()
        };
        match evidence.format {
            EvidenceFormat::PivAttestation => {
                let [statement, others @ ..] = &parts[..] else { return Err(missing()) };
                let mut all = certificates(others)?;
                all.append(&mut self.certificates);
                let statement = Certificate::from_der(statement)?;
                Ok(Content::Piv(Box::new(PivStatement { statement, others: all })))
            }
            EvidenceFormat::TpmCertify => {
                let [attest, signature, key, attester, others @ ..] = &parts[..] else {
                    return Err(missing());
                };
                let mut all = certificates(others)?;
                all.append(&mut self.certificates);
                Ok(Content::Tpm(TpmStatement {
                    attest: attest.clone(),
                    signature: signature.clone(),
                    key: key.clone(),
                    attester: attester.clone(),
                    certificates: all,
                }))
            }
            EvidenceFormat::GoogleHsm => {
                let [content, chains @ ..] = &parts[..] else { return Err(missing()) };
                let mut all = self.certificates;
                for chain in chains {
                    let text = std::str::from_utf8(chain)
                        .map_err(|e| Error::bad_request("a chain of certificates is not PEM").vendor(e))?;
                    all.extend(Certificate::all_from_pem(text)?);
                }
                Ok(Content::Hsm(HsmStatement { content: content.clone(), certificates: all }))
            }
        }
    }

    /// Files of the makers' own tools.
    fn bare(mut self) -> Result<Content> {
        match (self.responses.pop(), self.attests.pop()) {
            (Some(content), None) if self.responses.is_empty() => {
                Ok(Content::Hsm(HsmStatement { content, certificates: self.certificates }))
            }
            (None, Some(attest)) if self.attests.is_empty() => self.bare_tpm(attest),
            (None, None) => self.bare_piv(),
            _ => Err(Error::bad_request("these are statements on more than one key")),
        }
    }

    fn bare_tpm(mut self, attest: Vec<u8>) -> Result<Content> {
        let missing = |what: &str| {
            Error::bad_request(format!("the TPM's statement is not whole: {what} is missing"))
                .next("give it with --with FILE")
        };
        let signature = self.signatures.pop().ok_or_else(|| missing("the signature (tpm2_certify -s)"))?;
        // The certified key is the one whose Name the statement has; the other one signed.
        let certified = Attest::parse(&attest).and_then(|a| a.certified.map(<[u8]>::to_vec));
        let is_certified = |public: &Vec<u8>| Public::parse(public).map(|p| p.name) == certified;
        let (mut keys, mut attesters): (Vec<_>, Vec<_>) = self.publics.into_iter().partition(is_certified);
        let key =
            keys.pop().ok_or_else(|| missing("the public area of the key (TPM2B_PUBLIC or TPMT_PUBLIC)"))?;
        // A key can certify itself.
        let attester = attesters.pop().or_else(|| keys.pop());
        let attester = attester.ok_or_else(|| missing("the public area of the attestation key"))?;
        Ok(Content::Tpm(TpmStatement { attest, signature, key, attester, certificates: self.certificates }))
    }

    fn bare_piv(mut self) -> Result<Content> {
        let is_statement = |c: &Certificate| c.extension(piv::POLICIES).is_some();
        let Some(at) = self.certificates.iter().position(is_statement) else {
            return Err(Error::bad_request("no device's statement on a key is in what was given").next(
                "a YubiKey's has Yubico's extensions, and comes from `ykman piv keys attest`; the certificate that is in \
                 the slot is another one",
            ));
        };
        let statement = self.certificates.swap_remove(at);
        if self.certificates.iter().any(is_statement) {
            return Err(Error::bad_request("these are statements on more than one key"));
        }
        Ok(Content::Piv(Box::new(PivStatement { statement, others: self.certificates })))
    }
}

fn from_json(text: &str) -> Result<Evidence> {
    let wrong =
        |what: &str| Error::bad_request(format!("this is not a statement of `signer keys attest`: {what}"));
    let file: File =
        serde_json::from_str(text).map_err(|e| wrong("its JSON is of another form").vendor(e))?;
    if let Some(media_type) = file.media_type.filter(|m| m != MEDIA_TYPE) {
        return Err(
            wrong(&format!("it is of the type {media_type:?}")).next(format!("supported is {MEDIA_TYPE}"))
        );
    }
    let decode =
        |part: &String| BASE64_STANDARD.decode(part).map_err(|e| wrong("a part is not base64").vendor(e));
    let parts = file.parts.iter().map(decode).collect::<Result<_>>()?;
    Ok(Evidence { format: EvidenceFormat::from_name(&file.format)?, parts })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_file_is_read_as_it_is_written() {
        for format in EvidenceFormat::ALL {
            let evidence = Evidence { format, parts: vec![vec![1, 2], vec![], vec![0xFF; 70]] };
            let json = to_json(&evidence);
            assert_eq!(json["mediaType"], MEDIA_TYPE);
            assert_eq!(from_json(&json.to_string()).unwrap(), evidence);
            let mut old = json.clone();
            old.as_object_mut().unwrap().remove("mediaType");
            assert_eq!(from_json(&old.to_string()).unwrap(), evidence);
            let mut newer = json;
            newer["mediaType"] = "application/vnd.signerd.attestation.v2+json".into();
            assert!(from_json(&newer.to_string()).unwrap_err().to_string().contains("v2"));
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            crate::fuzz::statement(&bytes);
        }

        #[test]
        fn any_evidence_is_taken_or_refused(
            format in proptest::sample::select(EvidenceFormat::ALL.to_vec()),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
        ) {
            let _ = Statement::from_evidence(Evidence { format, parts });
        }
    }
}
