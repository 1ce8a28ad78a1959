//! Policies of keys: PCR values of now or such as an authority approves, and the PIN.
//!
//! A key's policy is one of these, with SHA-256 (TPM 2.0 Library part 1, section 19.7):
//!
//! * PolicyPCR: the registers have the values that they had when the key was made;
//! * PolicyOR of that and PolicyAuthorize: or those that the authority signed for;
//!
//! and PolicyAuthValue behind it where the key has a PIN. The digests are computed here; the TPM computes them again when
//! the key is used, so a mistake or a changed file makes a key unusable and never usable.

use der::asn1::OctetString;
use signer_core::{Digest, Error, HashAlgorithm, PcrSelection, PublicKey, Result};
use tss_esapi::{
    interface_types::algorithm::HashingAlgorithm,
    structures::{PcrSelectionList, PcrSlot},
};

use crate::{key_file::PolicyCommand, public_area};

/// Command codes (part 2, section 6.5.2).
const POLICY_AUTHORIZE: u32 = 0x16A;
const POLICY_AUTH_VALUE: u32 = 0x16B;
const POLICY_OR: u32 = 0x171;
const POLICY_PCR: u32 = 0x17F;

/// A SHA-256 digest.
pub(crate) type Sha256 = [u8; 32];

/// What must be so before a key signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pcrs: Option<Pcrs>,
    /// The key's PIN is part of it.
    pub(crate) pin: bool,
}

/// Registers, and the values that they must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pcrs {
    pub(crate) selection: PcrSelection,
    /// The hash of the values at first.
    pub(crate) values: Sha256,
    /// Who may approve other values.
    pub(crate) authority: Option<PublicKey>,
}

impl Policy {
    /// The registers must have these values, or such as the authority approves.
    pub(crate) fn new(pcrs: Pcrs, pin: bool) -> Self {
        Self { pcrs: Some(pcrs), pin }
    }

    /// The registers that count.
    pub(crate) fn pcrs(&self) -> Option<&Pcrs> {
        self.pcrs.as_ref()
    }

    /// Who may approve other values.
    pub(crate) fn authority(&self) -> Option<&PublicKey> {
        self.pcrs.as_ref()?.authority.as_ref()
    }

    /// The digest that the key is made with.
    pub(crate) fn digest(&self) -> Result<Sha256> {
        let mut digest = [0; 32];
        if let Some(pcrs) = &self.pcrs {
            digest = pcr_digest(pcrs.selection, &pcrs.values);
            if let Some(branches) = pcrs.branches()? {
                digest = or_digest(&branches);
            }
        }
        if self.pin {
            digest = extend(&digest, POLICY_AUTH_VALUE, &[]);
        }
        Ok(digest)
    }

    /// The policy as the commands that fulfil it with the first values.
    pub(crate) fn commands(&self) -> Result<Vec<PolicyCommand>> {
        let command = |code, parameters: Vec<u8>| -> Result<PolicyCommand> {
            let parameters = OctetString::new(parameters)
                .map_err(|e| Error::internal("a policy cannot be encoded").vendor(e))?;
            Ok(PolicyCommand { code, parameters })
        };
        let mut commands = Vec::new();
        if let Some(pcrs) = &self.pcrs {
            let parameters =
                [&32_u16.to_be_bytes()[..], &pcrs.values, &selection_bytes(pcrs.selection)].concat();
            commands.push(command(POLICY_PCR, parameters)?);
            if let Some(branches) = pcrs.branches()? {
                commands.push(command(POLICY_OR, or_bytes(&branches))?);
            }
        }
        if self.pin {
            commands.push(command(POLICY_AUTH_VALUE, Vec::new())?);
        }
        Ok(commands)
    }

    /// Reads a policy back. `Unsupported` for one that is not of our forms.
    pub(crate) fn from_commands(commands: &[PolicyCommand], authority: Option<&PublicKey>) -> Result<Self> {
        let unknown = || {
            Error::unsupported("use a key with such a policy", "signerd")
                .next("known are PolicyPCR, PolicyOR with PolicyAuthorize, and PolicyAuthValue, with SHA-256")
        };
        let mut policy = Self { pcrs: None, pin: false };
        for (at, command) in commands.iter().enumerate() {
            let parameters = command.parameters.as_bytes();
            match command.code {
                POLICY_PCR if at == 0 => {
                    let (values, selection) = parameters
                        .strip_prefix(&32_u16.to_be_bytes()[..])
                        .and_then(|rest| rest.split_first_chunk::<32>())
                        .ok_or_else(unknown)?;
                    let selection = read_selection(selection).ok_or_else(unknown)?;
                    policy.pcrs = Some(Pcrs { selection, values: *values, authority: None });
                }
                POLICY_OR if at == 1 => {
                    let pcrs = policy.pcrs.as_mut().ok_or_else(unknown)?;
                    pcrs.authority = authority.cloned();
                    let branches = pcrs.branches()?.ok_or_else(unknown)?;
                    if or_bytes(&branches) != parameters {
                        return Err(unknown());
                    }
                }
                POLICY_AUTH_VALUE if at + 1 == commands.len() && parameters.is_empty() => policy.pin = true,
                _ => return Err(unknown()),
            }
        }
        Ok(policy)
    }
}

impl Pcrs {
    /// The two ways to fulfil it, where there is an authority.
    pub(crate) fn branches(&self) -> Result<Option<[Sha256; 2]>> {
        let Some(authority) = &self.authority else { return Ok(None) };
        let name = public_area::name(&public_area::external(authority)?)?;
        Ok(Some([pcr_digest(self.selection, &self.values), authorize_digest(&name)]))
    }
}

/// The digest after PolicyPCR alone: what an authority signs.
pub(crate) fn pcr_digest(selection: PcrSelection, values: &Sha256) -> Sha256 {
    extend(&[0; 32], POLICY_PCR, &[&selection_bytes(selection)[..], values].concat())
}

/// The digest after PolicyAuthorize, with an empty reference.
fn authorize_digest(name: &[u8]) -> Sha256 {
    let first = extend(&[0; 32], POLICY_AUTHORIZE, name);
    sha256(&first)
}

fn or_digest(branches: &[Sha256; 2]) -> Sha256 {
    extend(&[0; 32], POLICY_OR, &branches.concat())
}

fn extend(digest: &Sha256, code: u32, rest: &[u8]) -> Sha256 {
    sha256(&[&digest[..], &code.to_be_bytes(), rest].concat())
}

/// The hash of all selected values, one after the other.
pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    hash.copy_from_slice(Digest::of(HashAlgorithm::Sha256, bytes).as_bytes());
    hash
}

/// `TPML_DIGEST`.
fn or_bytes(branches: &[Sha256; 2]) -> Vec<u8> {
    let mut bytes = 2_u32.to_be_bytes().to_vec();
    for branch in branches {
        bytes.extend(32_u16.to_be_bytes());
        bytes.extend(branch);
    }
    bytes
}

/// `TPML_PCR_SELECTION` of one bank, SHA-256.
fn selection_bytes(selection: PcrSelection) -> Vec<u8> {
    let mut select = [0_u8; 3];
    for register in selection.registers() {
        select[usize::from(register / 8)] |= 1 << (register % 8);
    }
    let mut bytes = 1_u32.to_be_bytes().to_vec();
    bytes.extend([0x00, 0x0B, 3]);
    bytes.extend(select);
    bytes
}

fn read_selection(bytes: &[u8]) -> Option<PcrSelection> {
    let select = bytes.strip_prefix(&[0, 0, 0, 1, 0x00, 0x0B, 3])?;
    let [a, b, c] = <[u8; 3]>::try_from(select).ok()?;
    let bits = u32::from_le_bytes([a, b, c, 0]);
    PcrSelection::new((0..24).filter(|r| bits & (1 << r) != 0)).ok()
}

/// The selection as the TSS takes it.
pub(crate) fn tss_selection(selection: PcrSelection) -> Result<PcrSelectionList> {
    let build = || -> tss_esapi::Result<PcrSelectionList> {
        let slots: Vec<PcrSlot> = selection
            .registers()
            .map(|register| PcrSlot::try_from(1_u32 << register))
            .collect::<tss_esapi::Result<_>>()?;
        PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots).build()
    };
    build().map_err(|e| Error::internal("a selection of PCRs cannot be expressed").vendor(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> PublicKey {
        let key = signer_contract::make_private_key(signer_core::KeyType::EcdsaP256).unwrap();
        key.key(signer_contract::Material::Pkcs8Der).unwrap().public_key().clone()
    }

    #[test]
    fn policies_are_read_back_and_others_refused() {
        for authority in [None, Some(authority())] {
            for pin in [false, true] {
                let pcrs = Pcrs {
                    selection: "0,7,23".parse().unwrap(),
                    values: [7; 32],
                    authority: authority.clone(),
                };
                let policy = Policy::new(pcrs, pin);
                let commands = policy.commands().unwrap();
                let back = Policy::from_commands(&commands, authority.as_ref()).unwrap();
                assert_eq!(back, policy);
                if authority.is_some() {
                    assert!(Policy::from_commands(&commands, None).is_err());
                    assert!(Policy::from_commands(&commands, Some(&self::authority())).is_err());
                }
                assert_eq!(
                    Policy::from_commands(&commands[1..], authority.as_ref()).is_err(),
                    authority.is_some()
                );
            }
        }
    }

    /// `tpm2_createpolicy --policy-pcr -l sha256:23` with PCR 23 at zero gives this digest.
    #[test]
    fn a_known_digest() {
        let digest = pcr_digest("23".parse().unwrap(), &sha256(&[0; 32]));
        assert_eq!(hex::encode(digest), KNOWN);
    }
    const KNOWN: &str = "3c87a4b3fb85ebeea58c5fb36ac22d3f280cec27a9f6dd0fa23be9ce560deec8";
}
