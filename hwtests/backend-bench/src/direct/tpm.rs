//! A TPM: the TSS alone, with a loaded key and a password session, on one thread.

use tss_esapi::{
    Context,
    attributes::ObjectAttributesBuilder,
    constants::{StructureTag, tss::TPM2_RH_NULL},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::Hierarchy,
        session_handles::AuthSession,
    },
    structures::{
        Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, KeyDerivationFunctionScheme, Public,
        PublicEccParameters, SignatureScheme, SymmetricDefinitionObject,
    },
    tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK},
};

use crate::{
    Result, Timing,
    measure::{self, Load},
};

pub(super) fn load(tcti: &str, timing: Timing) -> Result<Load> {
    measure::threads(1, timing.warm_up, timing.seconds, None, || {
        let mut context = Context::new(tcti.parse()?)?;
        let template = template()?;
        let key = context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.create_primary(Hierarchy::Owner, template, None, None, None, None)
            })?
            .key_handle;
        let scheme = SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
        Ok(move || {
            let none = TPMT_TK_HASHCHECK {
                tag: StructureTag::Hashcheck.into(),
                hierarchy: TPM2_RH_NULL,
                digest: TPM2B_DIGEST::default(),
            };
            let digest = Digest::try_from(crate::DIGEST.to_vec())?;
            let ticket = HashcheckTicket::try_from(none)?;
            context
                .execute_with_session(Some(AuthSession::Password), |c| c.sign(key, digest, scheme, ticket))?;
            Ok(())
        })
    })
}

/// A P-256 key that signs.
fn template() -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()?;
    let parameters = PublicEccParameters::new(
        SymmetricDefinitionObject::Null,
        EccScheme::Null,
        EccCurve::NistP256,
        KeyDerivationFunctionScheme::Null,
    );
    Ok(Public::builder()
        .with_object_attributes(attributes)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()?)
}
