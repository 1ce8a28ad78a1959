//! Making keys inside the token.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cryptoki_sys as sys;
use signer_core::{BackendInfo, BoxFuture, Error, Generate, GenerateRequest, KeyInfo, KeyType, Result};

use crate::{
    Pkcs11Backend,
    creation::{
        curve_parameters, first_understood, known, mark, parameter_set, pkcs11_type, private_template,
        public_template, refuse_taken, undo,
    },
    mechanism::key_pair_mechanism,
    objects::Mark,
    public_half,
    raw::{Failure, Object},
    token::{Inside, Need},
};

/// Bytes of an identifier that nobody wished for.
const ID_LEN: usize = 20;

impl Generate for Pkcs11Backend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move { self.generate_now(&request).map_err(|e| e.key(&request.name)) })
    }
}

impl Pkcs11Backend {
    fn generate_now(&self, request: &GenerateRequest) -> Result<KeyInfo> {
        request.policy.none("pkcs11")?;
        let mark = mark(&request.name, request.id.as_deref(), random_id)?;
        let by_chance = request.id.is_none() && request.name.as_id().is_none();
        let pkcs11_type = pkcs11_type(request.key_type);
        let wanted = public_half::attributes(pkcs11_type);
        let _alone = self.changes();
        self.token.with(Need::Login, |inside| {
            if !inside.live.has_mechanism(key_pair_mechanism(request.key_type)) {
                let what = format!("generate {} keys", request.key_type);
                return Err(Error::unsupported(what, "the token").next(what_it_makes(inside)).into());
            }
            inside.check_login()?;
            // An identifier out of nowhere is nobody's.
            let id = if by_chance { Vec::new() } else { mark.id.clone() };
            refuse_taken(inside, &Mark { id, label: mark.label.clone() })?;
            let (public, private) =
                pair(inside, request.key_type, &mark)?.map_err(|failure| undo(inside, &mark, failure))?;
            let half = || Ok(public_half::from_values(pkcs11_type, &mut inside.read(public, wanted)?)?);
            known(inside, &mark, private, half())
        })
    }
}

fn what_it_makes(inside: &Inside<'_>) -> String {
    let mut info = BackendInfo::default();
    abilities(inside, &mut info);
    let names: Vec<_> = info.generates.iter().map(|t| t.name()).collect();
    format!("it generates {}", names.join(", "))
}

/// The outer error is one of ours, before anything was asked of the token.
fn pair(
    inside: &Inside<'_>,
    key_type: KeyType,
    mark: &Mark,
) -> Result<Result<(Object, Object), Failure>, Error> {
    let module = &inside.token.module;
    let mechanism = key_pair_mechanism(key_type);
    let private = private_template(mark, true);
    let public = public_template(mark);
    if let Some(bits) = key_type.rsa_bits() {
        let public = public
            .number(sys::CKA_MODULUS_BITS, bits as sys::CK_ULONG)
            .bytes(sys::CKA_PUBLIC_EXPONENT, &[1, 0, 1]); // 65537
        return Ok(module.generate_key_pair(inside.session, mechanism, &public, &private));
    }
    if let Some(set) = parameter_set(key_type) {
        let public = public.number(sys::CKA_PARAMETER_SET, set);
        return Ok(module.generate_key_pair(inside.session, mechanism, &public, &private));
    }
    Ok(first_understood(curve_parameters(key_type)?, |parameters| {
        let public = public.clone().bytes(sys::CKA_EC_PARAMS, &parameters);
        module.generate_key_pair(inside.session, mechanism, &public, &private)
    }))
}

fn random_id() -> Result<Vec<u8>> {
    let mut id = vec![0; ID_LEN];
    SystemRandom::new().fill(&mut id).map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(id)
}

/// Notes which kinds of keys the token makes and takes.
pub(crate) fn abilities(inside: &Inside<'_>, info: &mut BackendInfo) {
    if inside.token.read_only {
        return;
    }
    let sizes = |mechanism| inside.token.module.mechanism_info(inside.live.info.slot, mechanism).ok();
    for key_type in KeyType::ALL {
        let mechanism = key_pair_mechanism(key_type);
        // Only RSA's sizes are said in bits by everybody.
        let too_large = || {
            key_type.rsa_bits().zip(sizes(mechanism)).is_some_and(|(bits, sizes)| {
                let bits = bits as sys::CK_ULONG;
                sizes.ulMaxKeySize >= 1024 && !(sizes.ulMinKeySize..=sizes.ulMaxKeySize).contains(&bits)
            })
        };
        if inside.live.has_mechanism(mechanism) && !too_large() {
            info.generates.push(key_type);
        }
        if !crate::mechanism::algorithms(key_type, inside.live).is_empty() {
            info.imports.push(key_type);
        }
    }
}
