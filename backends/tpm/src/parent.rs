//! The storage parent: the key in the TPM that all others are sealed under.

use signer_core::{Error, ErrorKind, Result};
use tss_esapi::{
    Context,
    attributes::ObjectAttributes,
    handles::{KeyHandle, ObjectHandle, PersistentTpmHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        dynamic_handles::Persistent,
        ecc::EccCurve,
        resource_handles::{Hierarchy, Provision},
        session_handles::AuthSession,
    },
    structures::{
        Auth, EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicEccParameters,
        SymmetricDefinitionObject,
    },
};

use crate::{capabilities, codes, config::TpmConfig, fault::Fault};

/// The parent, ready to be used.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) handle: KeyHandle,
    pub(crate) public: Public,
}

/// The parent at the configured handle; `None` if nothing is there.
pub(crate) fn find(context: &mut Context, handle: u32) -> Result<Option<Parent>, Fault> {
    if capabilities::handles(context, handle)?.first() != Some(&handle) {
        return Ok(None);
    }
    let (handle, public) = open(context, handle)?;
    check(&public)?;
    Ok(Some(Parent { handle, public }))
}

/// What is at a persistent handle.
pub(crate) fn open(context: &mut Context, handle: u32) -> Result<(KeyHandle, Public), Fault> {
    let tpm_handle = PersistentTpmHandle::new(handle)?;
    let object = context.execute_without_session(|c| c.tr_from_tpm_public(tpm_handle.into()))?;
    let key = KeyHandle::from(object);
    let (public, _, _) = context.execute_without_session(|c| c.read_public(key))?;
    Ok((key, public))
}

/// Makes the parent: the ECC storage root key of the TCG's template, so that it is the same one whoever makes it.
pub(crate) fn make(context: &mut Context, config: &TpmConfig) -> Result<Parent, Fault> {
    let primary = primary(context, config)?;
    let persistent = Persistent::Persistent(PersistentTpmHandle::new(config.parent.0)?);
    let kept = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.evict_control(Provision::Owner, primary.into(), persistent)
    });
    let _ = context.flush_context(primary.into());
    match kept {
        Ok(_) => {}
        // Another process was quicker.
        Err(e) if codes::is(e, &[codes::NV_DEFINED]) => {}
        Err(e) => return Err(owner(e)),
    }
    find(context, config.parent.0)?.ok_or_else(|| {
        Error::internal(format!("the TPM did not keep the storage parent at {:#x}", config.parent.0)).into()
    })
}

/// The storage root key as a transient object, which whoever calls must flush.
pub(crate) fn primary(context: &mut Context, config: &TpmConfig) -> Result<KeyHandle, Fault> {
    let auth = config.owner_auth()?;
    context.tr_set_auth(ObjectHandle::Owner, auth_of(&auth, "owner_auth_file")?)?;
    let template = template()?;
    let made = context.execute_with_session(Some(AuthSession::Password), |c| {
        c.create_primary(Hierarchy::Owner, template, None, None, None, None)
    });
    Ok(made.map_err(owner)?.key_handle)
}

/// A hierarchy's authorisation as the TSS takes it.
pub(crate) fn auth_of(bytes: &[u8], setting: &str) -> Result<Auth, Error> {
    Auth::try_from(bytes)
        .map_err(|_| Error::bad_request(format!("what {setting} names is too long for the TPM")))
}

fn owner(error: tss_esapi::Error) -> Fault {
    if codes::is(error, &[codes::AUTH_FAIL, codes::BAD_AUTH]) {
        return Fault::Answer(
            Error::new(
                ErrorKind::Denied,
                "the TPM's owner has an authorisation, and the configured one is not it",
            )
            .next("put it into a file that signerd alone can read, and name the file with owner_auth_file"),
        );
    }
    error.into()
}

fn template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    Public::builder()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::AES_128_CFB,
            EccScheme::Null,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// Refuses what is no storage parent of our kind.
fn check(public: &Public) -> Result<(), Error> {
    let attributes = public.object_attributes();
    let stores = attributes.restricted() && attributes.decrypt() && attributes.fixed_tpm();
    let ours = matches!(public, Public::Ecc { parameters, .. }
        if parameters.ecc_curve() == EccCurve::NistP256
            && parameters.symmetric_definition_object() == SymmetricDefinitionObject::AES_128_CFB)
        && public.name_hashing_algorithm() == HashingAlgorithm::Sha256;
    if stores && ours {
        return Ok(());
    }
    let what = match (public, stores) {
        (Public::Rsa { .. }, true) => "an RSA storage key",
        (_, true) => "a storage key of another kind than P-256 with AES-128",
        (Public::Rsa { .. }, false) => "an RSA key that stores no others",
        (Public::Ecc { .. }, false) => "an elliptic curve key that stores no others",
        _ => "something that is no asymmetric key",
    };
    Err(Error::bad_request(format!("at the handle of the storage parent the TPM has {what}")).next(
        "choose another `parent` for this backend, such as 0x81000100: signerd makes a storage key there and leaves \
         the other alone",
    ))
}
