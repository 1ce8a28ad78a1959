//! Taking keys in.

use cryptoki_sys as sys;
use der::{Decode, Encode, asn1::OctetStringRef};
use pkcs8::PrivateKeyInfoRef;
use signer_core::{
    BoxFuture, Digest, Error, Import, ImportRequest, Input, KeyInfo, PrivateKey, PublicKey, Result,
    SignRequest,
};
use zeroize::Zeroizing;

use crate::{
    Pkcs11Backend,
    creation::{
        curve_parameters, first_understood, known, mark, parameter_set, pkcs11_type, private_template,
        public_template, refuse_taken, undo,
    },
    fault::Fault,
    mechanism::{self, Prepared},
    objects::Mark,
    raw::{Failure, Object, Template},
    token::{Inside, Need},
};

impl Import for Pkcs11Backend {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move { self.import_now(&request).map_err(|e| e.key(&request.name)) })
    }
}

impl Pkcs11Backend {
    fn import_now(&self, request: &ImportRequest) -> Result<KeyInfo> {
        request.policy.none("pkcs11")?;
        let key_type = request.key.key_type();
        let half = request.key.public_key();
        let mark =
            mark(&request.name, request.id.as_deref(), || Ok(half.fingerprint().as_bytes()[..20].to_vec()))?;
        let secrets = secrets(&request.key)?;
        let forms = public_forms(half)?;
        let _alone = self.changes();
        self.token.with(Need::Login, |inside| {
            if mechanism::algorithms(key_type, inside.live).is_empty() {
                return Err(Error::unsupported(format_args!("sign with {key_type} keys"), "the token").into());
            }
            inside.check_login()?;
            refuse_taken(inside, &mark)?;
            // The public half first: a crash between the two leaves behind a public key, and no nameless private one.
            let private =
                store(inside, &mark, &forms, &secrets).map_err(|failure| undo(inside, &mark, failure))?;
            let proven = prove(inside, private, half).map(|()| half.clone());
            known(inside, &mark, private, proven)
        })
    }
}

fn store(inside: &Inside<'_>, mark: &Mark, public: &[Part], secrets: &[Part]) -> Result<Object, Failure> {
    let module = &inside.token.module;
    first_understood(public, |part| {
        module.create_object(inside.session, &part.add_to(public_template(mark)))
    })?;
    // Guarded if the token lets us say so of a key that comes from outside.
    let forms = [true, false].into_iter().flat_map(|guarded| secrets.iter().map(move |part| (guarded, part)));
    first_understood(forms, |(guarded, part)| {
        module.create_object(inside.session, &part.add_to(private_template(mark, guarded)))
    })
}

const TRIAL: &[u8] = b"signerd: does this key sign?";

/// Signs something and verifies it: tokens do not check that what they were given is a key.
fn prove(inside: &Inside<'_>, private: Object, half: &PublicKey) -> Result<(), Fault> {
    let key_type = half.key_type();
    let algorithm = mechanism::algorithms(key_type, inside.live)
        .first()
        .copied()
        .ok_or_else(|| Error::unsupported(format_args!("sign with {key_type} keys"), "the token"))?;
    let input = match algorithm.prehash() {
        Some(hash) => Input::Digest(Digest::of(hash, TRIAL)),
        None => Input::Message(TRIAL.into()),
    };
    let request = SignRequest::new(algorithm, input.clone())?;
    let prepared = Prepared::new(key_type, &request)?;
    let module = &inside.token.module;
    let raw = module
        .sign_init(inside.session, prepared.mechanism, private)
        .and_then(|()| module.sign(inside.session, &prepared.data, prepared.signature_len()))
        .map_err(crate::fault::once)?;
    let good =
        prepared.finish(raw).and_then(|signature| half.verify(algorithm, &input, signature.as_bytes()));
    good.map_err(|e| {
        Error::internal(
            "the token took the key, but what it signs does not verify; the key was removed again",
        )
        .vendor(e)
        .into()
    })
}

/// Attributes that one kind of key needs beside those of every key.
#[derive(Default)]
struct Part {
    numbers: Vec<(sys::CK_ATTRIBUTE_TYPE, sys::CK_ULONG)>,
    bytes: Vec<(sys::CK_ATTRIBUTE_TYPE, Zeroizing<Vec<u8>>)>,
}

impl Part {
    fn number(mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: sys::CK_ULONG) -> Self {
        self.numbers.push((kind, value));
        self
    }

    fn bytes(mut self, kind: sys::CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        self.bytes.push((kind, Zeroizing::new(value.to_vec())));
        self
    }

    fn add_to(&self, template: Template) -> Template {
        let template = self.numbers.iter().fold(template, |t, (kind, value)| t.number(*kind, *value));
        self.bytes.iter().fold(template, |t, (kind, value)| t.bytes(*kind, value))
    }
}

/// The public half as a token stores it, in the forms that modules want.
fn public_forms(half: &PublicKey) -> Result<Vec<Part>> {
    let malformed = |e: der::Error| Error::internal("the public key cannot be encoded").vendor(e);
    let key_type = half.key_type();
    let key = half.key_bytes();
    if key_type.rsa_bits().is_some() {
        let rsa = pkcs1::RsaPublicKeyRef::from_der(key).map_err(malformed)?;
        return Ok(vec![
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .bytes(sys::CKA_MODULUS, rsa.modulus.as_bytes())
                .bytes(sys::CKA_PUBLIC_EXPONENT, rsa.public_exponent.as_bytes()),
        ]);
    }
    if let Some(set) = parameter_set(key_type) {
        return Ok(vec![
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .number(sys::CKA_PARAMETER_SET, set)
                .bytes(sys::CKA_VALUE, key),
        ]);
    }
    let wrapped = OctetStringRef::new(key).and_then(|key| key.to_der()).map_err(malformed)?;
    let mut forms = Vec::new();
    for parameters in curve_parameters(key_type)? {
        let part = || {
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .bytes(sys::CKA_EC_PARAMS, &parameters)
        };
        forms.push(part().bytes(sys::CKA_EC_POINT, &wrapped));
        forms.push(part().bytes(sys::CKA_EC_POINT, key));
    }
    Ok(forms)
}

/// The private half as a token takes it, in the forms that modules want.
fn secrets(key: &PrivateKey) -> Result<Vec<Part>> {
    let malformed = |e: der::Error| Error::bad_request("the private key cannot be read").vendor(e);
    let key_type = key.key_type();
    let info = PrivateKeyInfoRef::from_der(key.pkcs8_der()).map_err(malformed)?;
    let inner = info.private_key.as_bytes();
    if key_type.rsa_bits().is_some() {
        let rsa = pkcs1::RsaPrivateKeyRef::from_der(inner).map_err(malformed)?;
        return Ok(vec![
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .bytes(sys::CKA_MODULUS, rsa.modulus.as_bytes())
                .bytes(sys::CKA_PUBLIC_EXPONENT, rsa.public_exponent.as_bytes())
                .bytes(sys::CKA_PRIVATE_EXPONENT, rsa.private_exponent.as_bytes())
                .bytes(sys::CKA_PRIME_1, rsa.prime1.as_bytes())
                .bytes(sys::CKA_PRIME_2, rsa.prime2.as_bytes())
                .bytes(sys::CKA_EXPONENT_1, rsa.exponent1.as_bytes())
                .bytes(sys::CKA_EXPONENT_2, rsa.exponent2.as_bytes())
                .bytes(sys::CKA_COEFFICIENT, rsa.coefficient.as_bytes()),
        ]);
    }
    if let Some(set) = parameter_set(key_type) {
        let (seed, expanded) = ml_dsa_parts(inner).map_err(malformed)?;
        let part = || {
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .number(sys::CKA_PARAMETER_SET, set)
        };
        let mut forms = Vec::new();
        match (seed, expanded) {
            (Some(seed), Some(expanded)) => {
                forms.push(part().bytes(sys::CKA_SEED, seed).bytes(sys::CKA_VALUE, expanded));
                forms.push(part().bytes(sys::CKA_VALUE, expanded));
            }
            (None, Some(expanded)) => forms.push(part().bytes(sys::CKA_VALUE, expanded)),
            (Some(seed), None) => forms.push(part().bytes(sys::CKA_SEED, seed)),
            (None, None) => {}
        }
        return Ok(forms);
    }
    let scalar = if let Some(len) = key_type.ecdsa_field_len() {
        let sec1 = sec1::EcPrivateKey::from_der(inner).map_err(malformed)?;
        let start = len.checked_sub(sec1.private_key.len());
        let start =
            start.ok_or_else(|| Error::bad_request("the private key is longer than its curve allows"))?;
        let mut padded = Zeroizing::new(vec![0; len]);
        padded[start..].copy_from_slice(sec1.private_key);
        padded
    } else {
        // RFC 8410 section 7: an OCTET STRING in the OCTET STRING.
        let seed = <&OctetStringRef>::from_der(inner).map_err(malformed)?;
        Zeroizing::new(seed.as_bytes().to_vec())
    };
    Ok(curve_parameters(key_type)?
        .iter()
        .map(|parameters| {
            Part::default()
                .number(sys::CKA_KEY_TYPE, pkcs11_type(key_type))
                .bytes(sys::CKA_EC_PARAMS, parameters)
                .bytes(sys::CKA_VALUE, &scalar)
        })
        .collect())
}

type SeedAndExpanded<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// The three forms of an ML-DSA private key (RFC 9881 section 6): its seed, the expanded key, or both.
fn ml_dsa_parts(inner: &[u8]) -> der::Result<SeedAndExpanded<'_>> {
    #[derive(der::Sequence)]
    struct Both<'a> {
        seed: &'a OctetStringRef,
        expanded: &'a OctetStringRef,
    }
    match inner {
        // [0] IMPLICIT OCTET STRING (SIZE (32))
        [0x80, 32, seed @ ..] if seed.len() == 32 => Ok((Some(seed), None)),
        [0x30, ..] => {
            let both = Both::from_der(inner)?;
            Ok((Some(both.seed.as_bytes()), Some(both.expanded.as_bytes())))
        }
        _ => Ok((None, Some(<&OctetStringRef>::from_der(inner)?.as_bytes()))),
    }
}
