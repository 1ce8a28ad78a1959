//! One key of a token, as a signer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use cryptoki_sys as sys;
use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::{
    fault::Fault,
    inventory, login,
    mechanism::Prepared,
    objects::{Mark, PrivateObject, not_found},
    raw::{Failure, Object},
    token::{Inside, Need, Token},
};

/// A token may give more than belongs there: seen, not cut off.
const SLACK: usize = 64;
/// Shorter messages are never the reason for an error.
const ANY_TOKEN_TAKES: usize = 1024;

/// A key that was opened.
pub(crate) struct Key {
    token: Arc<Token>,
    info: KeyInfo,
    mark: Mark,
    /// `CKA_ALWAYS_AUTHENTICATE`: each signature needs a login of its own.
    always_authenticate: bool,
    /// Where it is, in the connection of that epoch.
    place: Mutex<Option<(u64, Object)>>,
}

impl Key {
    pub(crate) fn new(token: Arc<Token>, info: KeyInfo, epoch: u64, object: PrivateObject) -> Self {
        Self {
            token,
            info,
            mark: object.mark,
            always_authenticate: object.always_authenticate,
            place: Mutex::new(Some((epoch, object.handle))),
        }
    }

    fn sign_now(&self, request: &SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        let prepared = Prepared::new(self.info.public_key.key_type(), request)?;
        self.token
            .with(Need::Login, |inside| {
                if request.until().is_some_and(|until| until <= Instant::now()) {
                    return Err(Error::new(
                        ErrorKind::TimedOut,
                        "the deadline passed before the token signed",
                    )
                    .into());
                }
                let key = self.handle(inside)?;
                self.sign_in(inside, key, &prepared).inspect_err(|fault| {
                    if let Fault::Module(_) = fault {
                        self.forget_place();
                    }
                })
            })
            .map_err(|e| e.key(&self.info.name))
    }

    fn sign_in(&self, inside: &Inside<'_>, key: Object, prepared: &Prepared<'_>) -> Result<Signature, Fault> {
        let module = &inside.token.module;
        module.sign_init(inside.session, prepared.mechanism, key)?;
        if self.always_authenticate {
            login::for_one_operation(
                inside.token,
                inside.live.info.slot,
                inside.session,
                &self.info.name.to_string(),
            )?;
        }
        let raw = module
            .sign(inside.session, &prepared.data, prepared.signature_len() + SLACK)
            .map_err(|failure| too_long(failure, prepared.data.len()))?;
        Ok(prepared.finish(raw)?)
    }

    /// The key's handle, looked up again when the connection is another one than before.
    fn handle(&self, inside: &Inside<'_>) -> Result<Object, Fault> {
        let known = *self.place();
        if let Some((epoch, object)) = known
            && epoch == inside.live.epoch
        {
            return Ok(object);
        }
        let object = self.find_again(inside)?;
        *self.place() = Some((inside.live.epoch, object));
        Ok(object)
    }

    /// Finds this very key: what has its marks and its public half.
    fn find_again(&self, inside: &Inside<'_>) -> Result<Object, Fault> {
        let mut found = inside.private_keys(&self.mark.template(sys::CKO_PRIVATE_KEY))?;
        found.retain(|key| key.mark == self.mark && key.signs);
        if found.is_empty() {
            inside.check_login()?;
            return Err(Fault::Absent(not_found(&self.info.name)));
        }
        for key in found {
            match inventory::public_half_of(inside, &key) {
                Ok(half) if half == self.info.public_key => return Ok(key.handle),
                Ok(_) | Err(Fault::Answer(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Error::new(ErrorKind::NotFound, "another key has taken the place of this one in the token")
            .next("open it again to use the new one")
            .into())
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<(u64, Object)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_place(&self) {
        *self.place() = None;
    }
}

/// A token that has to take a whole message in may have no room for it; otherwise these codes mean something else.
fn too_long(failure: Failure, len: usize) -> Fault {
    let full = [
        sys::CKR_TOKEN_RESOURCE_EXCEEDED,
        sys::CKR_DEVICE_MEMORY,
        sys::CKR_DATA_LEN_RANGE,
        sys::CKR_HOST_MEMORY,
    ];
    if len <= ANY_TOKEN_TAKES || !full.contains(&failure.code) {
        return failure.into();
    }
    let vendor = Error::from(failure);
    Fault::Abandoned(
        Error::bad_request(format!("the token has no room for a message of {len} bytes"))
            .vendor(vendor.vendor_code().unwrap_or_default())
            .next("use a key whose algorithm signs a digest, such as ECDSA"),
    )
}

impl Signer for Key {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.sign_now(&request) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.token
                .with(Need::Login, |inside| self.find_again(inside).map(drop))
                .map_err(|e| e.key(&self.info.name))
        })
    }
}
