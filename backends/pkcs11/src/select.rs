//! From a name or an address to the one private key that is meant.

use std::sync::atomic::Ordering::Relaxed;

use cryptoki_sys as sys;
use signer_core::{Address, Error, ErrorKind, KeySelector, Pkcs11Uri, Result};

use crate::{
    fault::Fault,
    objects::{Mark, PrivateObject, not_found},
    raw::{Failure, Template},
    token::{Inside, Live},
};

/// What objects a selector fits: those that have all that is said here.
///
/// `NotFound` if it is another token's or has a version, which keys in a token have not.
pub(crate) fn mark(live: &Live, selector: &KeySelector) -> Result<Mark> {
    match selector {
        KeySelector::Name(name) => {
            if name.version().is_some() {
                return Err(not_found(selector).key(selector).next("keys in a token have no versions"));
            }
            Ok(Mark {
                id: name.as_id().unwrap_or_default().to_vec(),
                label: name.as_label().unwrap_or_default().as_bytes().to_vec(),
            })
        }
        KeySelector::Address(Address::Pkcs11(uri)) => {
            if !is_here(live, uri) {
                return Err(not_found(selector).key(selector).next("the address is another token's"));
            }
            Ok(Mark {
                id: uri.id.clone().unwrap_or_default(),
                label: uri.object.clone().unwrap_or_default().into_bytes(),
            })
        }
        KeySelector::Address(other) => Err(not_found(other)
            .key(other)
            .next(format!("it is the address of a {} key", other.backend_kind()))),
    }
}

fn is_here(live: &Live, uri: &Pkcs11Uri) -> bool {
    let info = &live.info;
    [
        (&uri.token, &info.label),
        (&uri.serial, &info.serial),
        (&uri.manufacturer, &info.manufacturer),
        (&uri.model, &info.model),
    ]
    .into_iter()
    .all(|(wanted, is)| wanted.as_ref().is_none_or(|wanted| wanted == is))
}

/// The one private key that a selector fits, whether or not it can sign.
pub(crate) fn any(inside: &Inside<'_>, selector: &KeySelector) -> Result<PrivateObject, Fault> {
    only(inside, selector, candidates(inside, selector)?)
}

/// The one private key that a selector fits and that can sign.
pub(crate) fn signing(inside: &Inside<'_>, selector: &KeySelector) -> Result<PrivateObject, Fault> {
    let mut found = candidates(inside, selector)?;
    if !found.is_empty() && !found.iter().any(|key| key.signs) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the key is not one that signs (its CKA_SIGN is false)",
        )
        .key(selector)
        .into());
    }
    found.retain(|key| key.signs);
    only(inside, selector, found)
}

fn candidates(inside: &Inside<'_>, selector: &KeySelector) -> Result<Vec<PrivateObject>, Fault> {
    let mark = mark(inside.live, selector)?;
    inside.private_keys(&mark.template(sys::CKO_PRIVATE_KEY))
}

fn only(
    inside: &Inside<'_>,
    selector: &KeySelector,
    mut found: Vec<PrivateObject>,
) -> Result<PrivateObject, Fault> {
    match found.len() {
        0 => {
            let error = not_found(selector).key(selector);
            if is_empty(inside)? && !inside.token.doubted.swap(true, Relaxed) {
                return Err(Fault::Absent(error));
            }
            Err(missing(inside, error)?)
        }
        1 => Ok(found.remove(0)),
        n => {
            let names: Vec<_> = found.iter().take(10).map(|key| key.mark.describe()).collect();
            Err(Error::bad_request(format!("{n} keys in the token fit"))
                .key(selector)
                .next(format!("name one by its id: {}", names.join(", ")))
                .into())
        }
    }
}

/// Nothing was found. If there were keys and there are none at all now, it may be the token that is missing.
pub(crate) fn missing(inside: &Inside<'_>, error: Error) -> Result<Fault, Fault> {
    inside.check_login()?;
    if inside.live.seen_keys.load(Relaxed) && is_empty(inside)? {
        return Ok(Fault::Absent(error));
    }
    Ok(Fault::Answer(error))
}

fn is_empty(inside: &Inside<'_>) -> Result<bool, Failure> {
    inside.check_login()?;
    let keys = Template::of(sys::CKO_PRIVATE_KEY);
    Ok(inside.token.module.find(inside.session, &keys, 1)?.is_empty())
}
