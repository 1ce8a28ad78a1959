//! What making and importing a key have in common: its marks, its attributes, and that no half of one is left behind.

use const_oid::db;
use cryptoki_sys as sys;
use der::{Encode, asn1::PrintableStringRef};
use signer_core::{Error, ErrorKind, KeyInfo, KeyName, KeyType, PublicKey, Result};

use crate::{
    codes::{self, Action},
    fault::{Fault, once},
    inventory,
    objects::Mark,
    raw::{Failure, Object, Template},
    token::Inside,
};

/// The marks of a key that is to be made. Without a wish for an identifier it gets `usual_id`, so that its objects are
/// found together whatever happens to its label.
pub(crate) fn mark(
    name: &KeyName,
    wish: Option<&[u8]>,
    usual_id: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Mark> {
    if name.version().is_some() {
        return Err(Error::bad_request("keys in a token have no versions")
            .key(name)
            .next("leave out the @version"));
    }
    if wish.is_some_and(|id| id.is_empty() || id.len() > 255) {
        return Err(Error::bad_request("a key's identifier has 1 to 255 bytes").key(name));
    }
    let id = match (name.as_id(), wish) {
        (Some(named), Some(wish)) if named != wish => {
            return Err(
                Error::bad_request("the name is one identifier, and another one is asked for").key(name)
            );
        }
        (Some(id), _) | (None, Some(id)) => id.to_vec(),
        (None, None) => usual_id()?,
    };
    Ok(Mark { id, label: name.as_label().unwrap_or_default().as_bytes().to_vec() })
}

/// Refuses marks that a key in the token has already, whole or half.
pub(crate) fn refuse_taken(inside: &Inside<'_>, mark: &Mark) -> Result<(), Fault> {
    for (kind, value, what) in [(sys::CKA_LABEL, &mark.label, "label"), (sys::CKA_ID, &mark.id, "id")] {
        if value.is_empty() {
            continue;
        }
        for object in inside.find(&Template::default().bytes(kind, value))? {
            let whole = match inside.read(object, &[sys::CKA_CLASS])?.number() {
                Some(sys::CKO_PRIVATE_KEY) => "key",
                Some(sys::CKO_PUBLIC_KEY) => "public key",
                _ => continue,
            };
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the token has a {whole} with this {what} already"),
            )
            .next("choose another name, or delete that key first")
            .into());
        }
    }
    Ok(())
}

/// The PKCS#11 type of a kind of key.
pub(crate) fn pkcs11_type(key_type: KeyType) -> sys::CK_KEY_TYPE {
    match key_type {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => sys::CKK_EC,
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => sys::CKK_RSA,
        KeyType::Ed25519 => sys::CKK_EC_EDWARDS,
        KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => sys::CKK_ML_DSA,
    }
}

/// The attributes that every public key is made with.
pub(crate) fn public_template(mark: &Mark) -> Template {
    mark.template(sys::CKO_PUBLIC_KEY)
        .flag(sys::CKA_TOKEN, true)
        .flag(sys::CKA_PRIVATE, false)
        .flag(sys::CKA_VERIFY, true)
}

/// The attributes that every private key is made with; `guarded` ones never leave the token.
pub(crate) fn private_template(mark: &Mark, guarded: bool) -> Template {
    let template = mark
        .template(sys::CKO_PRIVATE_KEY)
        .flag(sys::CKA_TOKEN, true)
        .flag(sys::CKA_PRIVATE, true)
        .flag(sys::CKA_SIGN, true);
    if guarded { template.flag(sys::CKA_SENSITIVE, true).flag(sys::CKA_EXTRACTABLE, false) } else { template }
}

/// The forms of `CKA_EC_PARAMS` for a curve, the usual one first: modules differ for Ed25519.
pub(crate) fn curve_parameters(key_type: KeyType) -> Result<Vec<Vec<u8>>> {
    let oid = match key_type {
        KeyType::EcdsaP256 => db::rfc5912::SECP_256_R_1,
        KeyType::EcdsaP384 => db::rfc5912::SECP_384_R_1,
        KeyType::EcdsaP521 => db::rfc5912::SECP_521_R_1,
        KeyType::Ed25519 => db::rfc8410::ID_ED_25519,
        _ => return Err(Error::internal(format!("{key_type} keys are on no curve"))),
    };
    let encoded = || -> der::Result<Vec<Vec<u8>>> {
        let mut forms = vec![oid.to_der()?];
        if key_type == KeyType::Ed25519 {
            forms.push(PrintableStringRef::new("edwards25519")?.to_der()?);
        }
        Ok(forms)
    };
    encoded().map_err(|e| Error::internal("a curve's name cannot be encoded").vendor(e))
}

/// The number of an ML-DSA parameter set.
pub(crate) fn parameter_set(key_type: KeyType) -> Option<sys::CK_ULONG> {
    match key_type {
        KeyType::MlDsa44 => Some(sys::CKP_ML_DSA_44),
        KeyType::MlDsa65 => Some(sys::CKP_ML_DSA_65),
        KeyType::MlDsa87 => Some(sys::CKP_ML_DSA_87),
        _ => None,
    }
}

/// Tries one form after the other as long as the token does not understand them.
pub(crate) fn first_understood<F, T>(
    forms: impl IntoIterator<Item = F>,
    mut make: impl FnMut(F) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut refused = Failure { code: sys::CKR_TEMPLATE_INCONSISTENT, function: "C_CreateObject" };
    for form in forms {
        match make(form) {
            Err(failure) if codes::classify(failure.code) == Action::GiveUp(ErrorKind::Unsupported) => {
                refused = failure;
            }
            done => return done,
        }
    }
    Err(refused)
}

/// What a key that was made just now is known as. If that cannot be found out, nobody can use it: it is destroyed again.
pub(crate) fn known(
    inside: &Inside<'_>,
    mark: &Mark,
    private: Object,
    half: Result<PublicKey, Fault>,
) -> Result<KeyInfo, Fault> {
    let read = || Ok(inventory::new(inside, &inside.private_key(private)?, half?)?);
    read().map_err(|fault| {
        let certain = destroy_marked(inside, mark).is_ok();
        let error = match fault {
            Fault::Module(failure) => failure.into(),
            Fault::Answer(error) | Fault::Absent(error) | Fault::Abandoned(error) => error,
        };
        Fault::Abandoned(if certain { error } else { error.may_have_happened() })
    })
}

/// Destroys what there is of a key that could not be made whole, and makes the failure the answer.
pub(crate) fn undo(inside: &Inside<'_>, mark: &Mark, failure: Failure) -> Fault {
    match destroy_marked(inside, mark) {
        Ok(()) => not_stored(failure),
        Err(_) => Fault::Abandoned(Error::from(failure).may_have_happened()),
    }
}

/// The answer when a token that works otherwise could not store something: it says no more than that it failed.
pub(crate) fn not_stored(failure: Failure) -> Fault {
    if codes::classify(failure.code) != Action::Reinitialise {
        return once(failure);
    }
    let vendor = Error::from(failure);
    Fault::Abandoned(
        Error::internal("the token could not store it, and nothing of it was kept")
            .vendor(vendor.vendor_code().unwrap_or_default())
            .next("is the token full, or the disk that it keeps its files on? the log of its own software may say more"),
    )
}

/// Destroys the private and public keys that have exactly these marks.
pub(crate) fn destroy_marked(inside: &Inside<'_>, mark: &Mark) -> Result<(), Failure> {
    for class in [sys::CKO_PRIVATE_KEY, sys::CKO_PUBLIC_KEY] {
        for object in inside.find(&mark.template(class))? {
            inside.token.module.destroy_object(inside.session, object)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> KeyName {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_gets_the_marks_that_its_name_says() {
        let usual = || Ok(vec![7]);
        let by_label = mark(&name("a"), None, usual).unwrap();
        assert_eq!((by_label.id, by_label.label), (vec![7], b"a".to_vec()));
        let wished = mark(&name("a"), Some(&[1]), usual).unwrap();
        assert_eq!(wished.id, [1]);
        let by_id = mark(&name("id:0102"), None, usual).unwrap();
        assert_eq!((by_id.id, by_id.label), (vec![1, 2], Vec::new()));
        assert!(mark(&name("id:0102"), Some(&[1]), usual).is_err());
        assert!(mark(&name("a@2"), None, usual).is_err());
        assert!(mark(&name("a"), Some(&[]), usual).is_err());
    }

    #[test]
    fn only_what_a_token_does_not_understand_is_said_in_another_way() {
        let failure = |code| Failure { code, function: "C_CreateObject" };
        let mut asked = Vec::new();
        let done = first_understood([1, 2, 3], |form| {
            asked.push(form);
            if form == 1 { Err(failure(sys::CKR_TEMPLATE_INCONSISTENT)) } else { Ok(form) }
        });
        assert_eq!((done.unwrap(), asked), (2, vec![1, 2]));
        let stopped = first_understood([1, 2], |_| Err::<(), _>(failure(sys::CKR_DEVICE_REMOVED)));
        assert_eq!(stopped.unwrap_err().code, sys::CKR_DEVICE_REMOVED);
    }
}
