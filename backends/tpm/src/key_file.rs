//! Sealed keys in the form that other TPM tools read: `TSS2 PRIVATE KEY` (draft-bottomley-tpm2-keys), in PEM.
//!
//! What that form has no place for stands in lines `Name: value` before the PEM block, and the key of a PCR authority in a
//! `PUBLIC KEY` block behind it; readers of PEM pass over both.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use der::{
    Decode, Encode, Sequence,
    asn1::{Any, ObjectIdentifier, OctetString},
    pem,
};
use signer_core::{Error, KeyOrigin, PinPolicy, PublicKey, Result};
use tss_esapi::{
    structures::{Private, Public, PublicBuffer},
    traits::{Marshall, UnMarshall},
};

use crate::{file_name, policy::Policy, public_area};

/// id-loadablekey: a key that TPM2_Load takes under its parent.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
const LABEL: &str = "TSS2 PRIVATE KEY";

/// A sealed key, as its file says it.
#[derive(Clone, Debug)]
pub(crate) struct KeyFile {
    /// Who made it.
    pub(crate) origin: KeyOrigin,
    /// When its PIN is wanted.
    pub(crate) pin: PinPolicy,
    /// The file says itself that its PIN is the one of all keys here: one that another tool made may have another.
    pub(crate) our_pin: bool,
    /// When it was made.
    pub(crate) created: Option<SystemTime>,
    /// Its label, where the file's name does not tell it.
    pub(crate) label: Option<String>,
    /// What else must be so before it signs.
    pub(crate) policy: Option<Policy>,
    /// The handle that it is sealed under.
    pub(crate) parent: u32,
    pub(crate) public: Public,
    pub(crate) private: Private,
}

#[derive(Sequence)]
struct TpmKey {
    kind: ObjectIdentifier,
    /// A BOOLEAN. Others write TRUE as 01, which DER forbids.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<Any>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    policy: Option<Vec<PolicyCommand>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    secret: Option<OctetString>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

/// One command of a policy: its code, and its parameters without the session.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(crate) struct PolicyCommand {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(crate) code: u32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    pub(crate) parameters: OctetString,
}

impl KeyFile {
    /// The file's text.
    pub(crate) fn to_text(&self) -> Result<String> {
        let mut text = String::from("This key can be used with its TPM alone. signerd wrote this file.\n");
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}: {value}");
        };
        line("Key-Type", public_area::public_key(&self.public)?.key_type().name());
        line("Origin", self.origin.name());
        line("Pin", self.pin.name());
        if let Some(since) = self.created.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            line("Created", &since.as_secs().to_string());
        }
        if let Some(label) = &self.label {
            line("Label", &file_name::one_line(label));
        }
        let broken = |e: der::Error| Error::internal("a key file cannot be encoded").vendor(e);
        let key = TpmKey {
            kind: LOADABLE_KEY,
            empty_auth: Some(Any::encode_from(&(self.pin == PinPolicy::Never)).map_err(broken)?),
            policy: self.policy.as_ref().map(Policy::commands).transpose()?,
            secret: None,
            parent: self.parent,
            public: OctetString::new(public_area::sized(&self.public)?).map_err(broken)?,
            private: OctetString::new(sized(self.private.value())).map_err(broken)?,
        };
        let der = key.to_der().map_err(broken)?;
        let block = pem::encode_string(LABEL, pem::LineEnding::LF, &der)
            .map_err(|e| Error::internal("a key file cannot be encoded").vendor(e))?;
        text.push_str(&block);
        if let Some(authority) = self.policy.as_ref().and_then(|p| p.authority()) {
            text.push_str(&authority.to_pem());
        }
        Ok(text)
    }

    /// Reads a file, ours or another tool's.
    pub(crate) fn from_text(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::bad_request(format!("this is not a TSS2 PRIVATE KEY: {what}"));
        let begin = format!("-----BEGIN {LABEL}-----");
        let end = format!("-----END {LABEL}-----");
        let start = text.find(&begin).ok_or_else(|| wrong("there is no such PEM block"))?;
        let stop =
            text[start..].find(&end).ok_or_else(|| wrong("the PEM block has no end"))? + start + end.len();
        let (_, der) = pem::decode_vec(&text.as_bytes()[start..stop])
            .map_err(|e| wrong("the PEM block cannot be read").vendor(e))?;
        let key = TpmKey::from_der(&der).map_err(|e| wrong("the ASN.1 cannot be read").vendor(e))?;
        if key.kind != LOADABLE_KEY {
            return Err(wrong("only loadable keys (2.23.133.10.1.3) are supported"));
        }
        let public = PublicBuffer::unmarshall(key.public.as_bytes())
            .and_then(Public::try_from)
            .map_err(|e| wrong("the public area cannot be read").vendor(e))?;
        let private = key
            .private
            .as_bytes()
            .split_first_chunk::<2>()
            .filter(|(size, rest)| usize::from(u16::from_be_bytes(**size)) == rest.len())
            .and_then(|(_, rest)| Private::try_from(rest).ok())
            .ok_or_else(|| wrong("the private area cannot be read"))?;
        let header = |name: &str| {
            text[..start].lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
        };
        let declared = header("Pin").and_then(|pin| pin.parse().ok());
        let pin = match declared {
            Some(pin) => pin,
            _ if key.empty_auth.is_some_and(|b| b.value().iter().any(|byte| *byte != 0)) => PinPolicy::Never,
            _ => PinPolicy::Once,
        };
        let authority = if text[stop..].contains("-----BEGIN PUBLIC KEY-----") {
            Some(PublicKey::from_pem(&text[stop..])?)
        } else {
            None
        };
        let policy = match key.policy {
            Some(commands) if !commands.is_empty() => {
                Some(Policy::from_commands(&commands, authority.as_ref())?)
            }
            _ => None,
        };
        Ok(Self {
            origin: match header("Origin") {
                Some("generated") => KeyOrigin::Generated,
                Some("imported") => KeyOrigin::Imported,
                _ => public_area::origin(&public),
            },
            pin,
            our_pin: declared.is_some(),
            created: header("Created")
                .and_then(|seconds| seconds.parse().ok())
                .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
            label: header("Label").and_then(file_name::unescape),
            policy,
            parent: key.parent,
            public,
            private,
        })
    }
}

/// A TPM2B: two bytes of length, then the bytes.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut sized = (bytes.len() as u16).to_be_bytes().to_vec();
    sized.extend(bytes);
    sized
}

/// What a TPM wrote, as bytes.
pub(crate) fn marshalled(value: &impl Marshall) -> Result<Vec<u8>> {
    value.marshall().map_err(|e| Error::internal("a structure of the TPM cannot be encoded").vendor(e))
}
