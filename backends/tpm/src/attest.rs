//! The TPM's own statement on a key: TPM2_Certify by an attestation key of the endorsement hierarchy.

use signer_core::{Attest, BoxFuture, Error, ErrorKind, Evidence, EvidenceFormat, KeySelector, Result};
use tss_esapi::{
    Context,
    attributes::ObjectAttributes,
    handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::{Hierarchy, NvAuth},
        session_handles::AuthSession,
    },
    structures::{
        Data, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, Public, PublicEccParameters,
        SignatureScheme, SymmetricDefinitionObject,
    },
};

use crate::{
    TpmBackend, capabilities, codes,
    config::TpmConfig,
    connection::Connection,
    fault::Fault,
    key_file::marshalled,
    login::{self, use_key},
    material::Material,
    parent::auth_of,
    public_area,
};

/// Where the maker of a TPM puts the certificate of its endorsement key (TCG EK Credential Profile, section 2.2.1.4 and
/// 2.2.1.5): P-256, P-384, RSA-2048, RSA-3072. The first one that is there is taken.
const EK_CERTIFICATES: [u32; 6] =
    [0x01C0_000A, 0x01C0_0014, 0x01C0_0016, 0x01C0_0002, 0x01C0_0012, 0x01C0_001C];
/// Where the chain of that certificate is, in pieces.
const EK_CHAIN: std::ops::RangeInclusive<u32> = 0x01C0_0100..=0x01C0_01FF;

impl Attest for TpmBackend {
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>> {
        Box::pin(async move { self.attest_now(key).await.map_err(|e| self.device.about(e).key(key)) })
    }
}

impl TpmBackend {
    async fn attest_now(&self, selector: &KeySelector) -> Result<Evidence> {
        let key = self.find(selector)?;
        let attributes = key.public.object_attributes();
        if !(attributes.fixed_tpm() && attributes.sensitive_data_origin()) {
            return Err(Error::unsupported("vouch for a key that it did not make", "the TPM")
                .next("generate a key instead of importing it"));
        }
        let config = &self.device.config;
        let mut parts = login::run(&self.device, &key, |c, attempt| {
            use_key(c, &key, attempt, |c, handle| certify(c, &key, handle, config))
        })
        .await?;
        parts.extend(self.with(endorsement)?);
        Ok(Evidence { format: EvidenceFormat::TpmCertify, parts })
    }
}

fn certify(
    connection: &mut Connection,
    key: &Material,
    handle: KeyHandle,
    config: &TpmConfig,
) -> Result<Vec<Vec<u8>>, Fault> {
    let auth = config.endorsement_auth()?;
    connection.context.tr_set_auth(ObjectHandle::Endorsement, auth_of(&auth, "endorsement_auth_file")?)?;
    let template = attestation_key()?;
    let made = connection.with_room(Some(key), |c| {
        c.execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(Hierarchy::Endorsement, template.clone(), None, None, None, None)
        })
    });
    let attester = made.map_err(endorsement_auth)?;
    let encrypting = connection.session();
    // Certifying is the key's administration, which its PIN allows whatever its policy demands for signing.
    let done = encrypting.and_then(|session| {
        Ok(connection.context.execute_with_sessions(
            (Some(session), Some(AuthSession::Password), None),
            |c| {
                let scheme =
                    SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
                c.certify(handle.into(), attester.key_handle, Data::default(), scheme)
            },
        )?)
    });
    let _ = connection.context.flush_context(attester.key_handle.into());
    let (statement, signature) = done?;
    Ok(vec![
        marshalled(&statement)?,
        marshalled(&signature)?,
        public_area::plain(&key.public)?,
        public_area::plain(&attester.out_public)?,
    ])
}

/// A key that signs nothing but the TPM's own statements. It is always the same one, as long as the TPM keeps its
/// endorsement seed.
fn attestation_key() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()?;
    Public::builder()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn endorsement_auth(fault: Fault) -> Fault {
    match fault {
        Fault::Tss(e) if codes::is(e, &[codes::AUTH_FAIL, codes::BAD_AUTH]) => Error::new(
            ErrorKind::Denied,
            "the TPM's endorsement hierarchy has an authorisation, and the configured one is not it",
        )
        .next("put it into a file that signerd alone can read, and name the file with endorsement_auth_file")
        .into(),
        other => other,
    }
}

/// The endorsement key's certificate and its chain, where the TPM's maker put them in.
fn endorsement(connection: &mut Connection) -> Result<Vec<Vec<u8>>, Fault> {
    let context = &mut connection.context;
    let there = capabilities::handles(context, 0x0100_0000)?;
    let Some(index) = EK_CERTIFICATES.into_iter().find(|index| there.contains(index)) else {
        return Ok(Vec::new());
    };
    let mut certificates = split(&read(context, index)?);
    let mut chain = Vec::new();
    for index in there.into_iter().filter(|index| EK_CHAIN.contains(index)) {
        chain.extend(read(context, index)?);
    }
    certificates.truncate(1);
    certificates.extend(split(&chain));
    Ok(certificates)
}

fn read(context: &mut Context, index: u32) -> Result<Vec<u8>, Fault> {
    let handle = NvIndexTpmHandle::new(index)?;
    let object = context.execute_without_session(|c| c.tr_from_tpm_public(handle.into()))?;
    let nv = NvIndexHandle::from(object);
    let done = context.execute_with_session(Some(AuthSession::Password), |c| {
        tss_esapi::abstraction::nv::read_full(c, NvAuth::NvIndex(nv), handle)
    });
    let _ = context.tr_close(&mut ObjectHandle::from(nv));
    Ok(done?)
}

/// DER certificates one after the other; whatever is behind them is padding.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(len) = der_len(bytes) {
        let (certificate, rest) = bytes.split_at(len);
        all.push(certificate.to_vec());
        bytes = rest;
    }
    all
}

/// The whole length of the SEQUENCE at the beginning.
fn der_len(bytes: &[u8]) -> Option<usize> {
    let len = match bytes {
        [0x30, short @ 0..=0x7F, ..] => 2 + usize::from(*short),
        [0x30, 0x81, a, ..] => 3 + usize::from(*a),
        [0x30, 0x82, a, b, ..] => 4 + usize::from(u16::from_be_bytes([*a, *b])),
        _ => return None,
    };
    (len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_told_from_each_other_and_from_padding() {
        let long = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let bytes = [&[0x30, 1, 5][..], &long, &[0xFF; 9]].concat();
        assert_eq!(split(&bytes), [vec![0x30, 1, 5], long.clone()]);
        assert!(split(&long[..100]).is_empty() && split(&[]).is_empty() && split(&[0x30]).is_empty());
    }
}
