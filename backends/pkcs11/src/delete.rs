//! Destroying keys.

use cryptoki_sys as sys;
use signer_core::{BoxFuture, Delete, Error, ErrorKind, KeySelector, Result};

use crate::{
    Pkcs11Backend,
    fault::{Fault, once},
    objects::Mark,
    raw::{Failure, Object},
    select,
    token::{Inside, Need},
};

impl Delete for Pkcs11Backend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.delete_now(key).map_err(|e| e.key(key)) })
    }
}

impl Pkcs11Backend {
    fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let _alone = self.changes();
        self.token.with(Need::Login, |inside| {
            let private = match select::any(inside, selector) {
                Ok(key) => key,
                Err(Fault::Answer(error)) if error.kind() == ErrorKind::NotFound => {
                    let mark = select::mark(inside.live, selector)?;
                    return if destroy_leftovers(inside, &mark)? { Ok(()) } else { Err(error.into()) };
                }
                Err(other) => return Err(other),
            };
            let with_it = belongings(inside, &private.mark)?;
            // The private key first: with it the key is gone, whatever happens to the rest.
            inside.token.module.destroy_object(inside.session, private.handle).map_err(once)?;
            for object in with_it {
                match inside.token.module.destroy_object(inside.session, object) {
                    Ok(()) | Err(Failure { code: sys::CKR_OBJECT_HANDLE_INVALID, .. }) => {}
                    Err(failure) => {
                        return Err(Fault::Abandoned(Error::from(failure).may_have_happened().next(
                            "the private key is destroyed; delete it again to remove what is left of it",
                        )));
                    }
                }
            }
            Ok(())
        })
    }
}

/// The public keys and certificates that belong to a private key, and to no other.
fn belongings(inside: &Inside<'_>, mark: &Mark) -> Result<Vec<Object>, Fault> {
    let mut belonging = Vec::new();
    for class in [sys::CKO_PUBLIC_KEY, sys::CKO_CERTIFICATE] {
        // By the id, if no other private key has it; by both marks otherwise.
        let by_id = Mark { id: mark.id.clone(), label: Vec::new() };
        let shared = mark.id.is_empty() || inside.find(&by_id.template(sys::CKO_PRIVATE_KEY))?.len() > 1;
        if !shared {
            belonging.extend(inside.find(&by_id.template(class))?);
        } else if !mark.label.is_empty() && inside.find(&mark.template(sys::CKO_PRIVATE_KEY))?.len() == 1 {
            belonging.extend(inside.find(&mark.template(class))?);
        }
    }
    Ok(belonging)
}

/// Destroys public keys and certificates whose private key is gone: what a creation or a deletion left behind that was
/// cut short. False if there was nothing.
fn destroy_leftovers(inside: &Inside<'_>, mark: &Mark) -> Result<bool, Fault> {
    if mark.id.is_empty() && mark.label.is_empty() {
        return Ok(false);
    }
    let mut any = false;
    for class in [sys::CKO_PUBLIC_KEY, sys::CKO_CERTIFICATE] {
        for object in inside.find(&mark.template(class))? {
            inside.token.module.destroy_object(inside.session, object).map_err(once)?;
            any = true;
        }
    }
    Ok(any)
}
