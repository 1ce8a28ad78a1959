//! PINs: the only place where one is tried, and it is tried once.
//!
//! A TPM has no login: a key's authorisation goes with each command that uses it. The PIN of a key with the policy `once`
//! is kept where the TSS needs it, at the loaded key's handle, until the key leaves the TPM; that of a key with the policy
//! `always` is taken away after each signature. All keys of a backend have one PIN.

use std::cell::Cell;

use aws_lc_rs::{hmac, rand::SystemRandom};
use signer_core::{Error, ErrorKind, Pin, PinLease, PinOutcome, PinPolicy, PinPrompt, Result};
use tss_esapi::handles::KeyHandle;

use crate::{
    codes::{self, Action},
    connection::Connection,
    device::Device,
    fault::Fault,
    lockout::Lockout,
    material::Material,
};

/// A PIN that may be tried once.
pub(crate) struct Attempt<'a> {
    pub(crate) pin: &'a Pin,
    use_last_try: bool,
    ended: Cell<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    NotTried,
    Accepted,
    Refused,
}

impl<'a> Attempt<'a> {
    /// A PIN that was not tried yet.
    pub(crate) fn new(pin: &'a Pin, use_last_try: bool) -> Self {
        Self { pin, use_last_try, ended: Cell::new(Ended::NotTried) }
    }

    /// What to tell whoever lent the PIN.
    pub(crate) fn outcome<T>(&self, device: &Device, result: &Result<T>) -> PinOutcome {
        match (self.ended.get(), result) {
            (Ended::Accepted, _) => {
                *device.opened_with() = PinMark::of(self.pin);
                PinOutcome::Accepted
            }
            (Ended::Refused, Err(error)) => PinOutcome::Refused(error.clone()),
            _ => PinOutcome::NotTried,
        }
    }
}

/// Does work with a key, with its PIN if it turns out to need one.
pub(crate) async fn run<T>(
    device: &Device,
    key: &Material,
    mut work: impl FnMut(&mut Connection, Option<&Attempt<'_>>) -> Result<T, Fault>,
) -> Result<T> {
    let tries_left = match device.with(|c| work(c, None)) {
        Err(Fault::NeedsPin(tries_left)) => tries_left,
        done => return done.map_err(|e| device.about(e)),
    };
    let prompt = prompt(device, (key.pin == PinPolicy::Always).then(|| key.label.clone()), tries_left);
    let lease = device.pins.lease(&prompt).await?;
    let (result, outcome) = {
        let attempt = Attempt::new(lease.pin(), lease.may_use_last_try());
        let result = device.with(|c| work(c, Some(&attempt))).map_err(|e| device.about(e));
        let outcome = attempt.outcome(device, &result);
        (result, outcome)
    };
    lease.report(outcome);
    result
}

/// Uses a loaded key, giving its PIN if it has one.
pub(crate) fn use_key<T>(
    connection: &mut Connection,
    key: &Material,
    attempt: Option<&Attempt<'_>>,
    operation: impl FnOnce(&mut Connection, KeyHandle) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let handle = connection.load(key)?;
    if key.pin == PinPolicy::Never {
        return without_pin(connection, key, handle, operation);
    }
    if key.pin == PinPolicy::Once && connection.is_open(key) {
        let done = operation(connection, handle);
        return match done {
            Err(Fault::Tss(e)) => Err(failed(connection, key, e)),
            done => done,
        };
    }
    let lockout = if key.counts_tries() { Some(Lockout::read(&mut connection.context)?) } else { None };
    if let Some(lockout) = lockout
        && lockout.tries_left() == 0
    {
        return Err(lockout.error().into());
    }
    let Some(attempt) = attempt else { return Err(Fault::NeedsPin(lockout.map(Lockout::tries_left))) };
    if let Some(lockout) = lockout {
        lockout.allow(attempt.use_last_try)?;
    }
    connection.set_pin(handle, attempt.pin)?;
    match operation(connection, handle) {
        Ok(value) => {
            attempt.ended.set(Ended::Accepted);
            if key.pin == PinPolicy::Once {
                connection.opened(key);
            } else {
                connection.evict_pin(handle);
            }
            Ok(value)
        }
        Err(Fault::Tss(e)) => {
            if codes::is(e, &[codes::AUTH_FAIL, codes::BAD_AUTH]) {
                attempt.ended.set(Ended::Refused);
            }
            let fault = failed(connection, key, e);
            connection.evict(key);
            Err(match fault {
                // It is not known whether the TPM counted this try, so there is no second one.
                Fault::Tss(e) if !matches!(codes::classify(e), Action::GiveUp(_)) => Fault::Answer(
                    Error::new(ErrorKind::DeviceGone, "the TPM went away while a PIN was tried")
                        .vendor(e)
                        .next("try again when it is back"),
                ),
                other => other,
            })
        }
        Err(other) => {
            connection.evict(key);
            Err(other)
        }
    }
}

/// What a person is told who is asked for the PIN.
pub(crate) fn prompt(device: &Device, key: Option<String>, tries_left: Option<u32>) -> PinPrompt {
    PinPrompt { device: format!("the TPM of {} ({})", device.backend, device.config.tcti), key, tries_left }
}

/// What is kept of a PIN that was right: enough to know it again, nothing to use a key with.
pub(crate) struct PinMark {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl PinMark {
    /// The mark of a PIN.
    pub(crate) fn of(pin: &Pin) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let tag = hmac::sign(&key, pin.expose().as_bytes());
        Some(Self { key, tag })
    }

    /// Whether it is this PIN.
    pub(crate) fn fits(&self, pin: &Pin) -> bool {
        hmac::verify(&self.key, pin.expose().as_bytes(), self.tag.as_ref()).is_ok()
    }
}

/// Whether the PIN is the one that was right before; `None` if none was yet. Without a try.
pub(crate) fn known(device: &Device, pin: &Pin) -> Option<Result<()>> {
    let fits = device.opened_with().as_ref()?.fits(pin);
    Some(if fits {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::WrongPin { tries_left: None },
            "the TPM's keys here are open with another PIN",
        )
        .next("this one was not tried; give the right one"))
    })
}

/// Reports a lease whose PIN was not tried.
pub(crate) fn untried(lease: Box<dyn PinLease>) {
    lease.report(PinOutcome::NotTried);
}

fn without_pin<T>(
    connection: &mut Connection,
    key: &Material,
    handle: KeyHandle,
    operation: impl FnOnce(&mut Connection, KeyHandle) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let has_one = || {
        Error::new(ErrorKind::Denied, "the key has an authorisation of its own, and was taken to have none").next(
            "name a persistent key in handles_with_pin, and configure its authorisation as the backend's PIN; it is \
             not tried again until signerd-tpm is started anew",
        )
    };
    if connection.guarded().contains(&key.name) {
        return Err(has_one().into());
    }
    match operation(connection, handle) {
        Err(Fault::Tss(e)) if codes::is(e, &[codes::AUTH_FAIL, codes::BAD_AUTH]) => {
            connection.guarded().insert(key.name.clone());
            Err(has_one().into())
        }
        done => done,
    }
}

/// What a failure means for somebody who gave a PIN, or whose PIN was given before.
fn failed(connection: &mut Connection, key: &Material, error: tss_esapi::Error) -> Fault {
    let refused = codes::is(error, &[codes::AUTH_FAIL, codes::BAD_AUTH]);
    if !refused && !codes::is(error, &[codes::LOCKOUT]) {
        return error.into();
    }
    let lockout = if key.counts_tries() { Lockout::read(&mut connection.context).ok() } else { None };
    if !refused {
        return lockout.map_or(codes::to_error(error), Lockout::error).into();
    }
    connection.evict(key);
    let plain = codes::to_error(error);
    let mut told =
        Error::new(ErrorKind::WrongPin { tries_left: lockout.map(Lockout::tries_left) }, plain.what())
            .vendor(plain.vendor_code().unwrap_or_default());
    let advice = plain.advice().unwrap_or_default();
    told = match lockout {
        Some(lockout) => told.next(format!("{advice}; {}", lockout.recovery())),
        None => told.next(advice),
    };
    told.into()
}
