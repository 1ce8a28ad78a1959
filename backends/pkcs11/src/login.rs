//! PINs: the only place where one is tried, and it is tried once.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use aws_lc_rs::{hmac, rand::SystemRandom};
use cryptoki_sys as sys;
use signer_core::{Error, ErrorKind, Pin, PinOutcome, PinPrompt};
use sys::{CK_RV, CK_SLOT_ID, CK_USER_TYPE};

use crate::{fault::Fault, raw::Session, token::Token, token_info::TokenInfo, turn::Turn};

/// Logs the user in, once for all sessions of this process.
pub(crate) fn user(token: &Token, slot: CK_SLOT_ID, session: Session) -> Result<(), Fault> {
    leased(token, slot, session, sys::CKU_USER, None)
}

/// Logs in for one operation, which is under way in this session (CKA_ALWAYS_AUTHENTICATE). When it fails the operation
/// is still under way, so the session is of no more use.
pub(crate) fn for_one_operation(
    token: &Token,
    slot: CK_SLOT_ID,
    session: Session,
    key: &str,
) -> Result<(), Fault> {
    leased(token, slot, session, sys::CKU_CONTEXT_SPECIFIC, Some(key)).map_err(|fault| match fault {
        Fault::Answer(error) => Fault::Abandoned(error),
        other => other,
    })
}

/// Logs the user in with a PIN that somebody gave just now. Where the user is logged in already, another PIN than that of
/// the login is refused, without a try: it could only be tried by giving up the login that others sign with.
pub(crate) fn with_pin(
    token: &Token,
    slot: CK_SLOT_ID,
    session: Session,
    pin: &Pin,
    use_last_try: bool,
) -> Result<(), Fault> {
    let info = token.info(slot)?;
    let state = token.module.session_info(session)?.state;
    if [sys::CKS_RO_USER_FUNCTIONS, sys::CKS_RW_USER_FUNCTIONS].contains(&state)
        && let Some(mark) = &*token.opened_with()
    {
        return if mark.fits(pin) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::WrongPin { tries_left: None }, "the token is open with another PIN")
                .next("this one was not tried; give the right one")
                .into())
        };
    }
    attempt(token, &info, session, sys::CKU_USER, Some(pin), use_last_try).map_err(|refusal| refusal.fault)
}

/// What is kept of the PIN of a login: enough to know it again, nothing to log in with.
pub(crate) struct PinMark {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl PinMark {
    fn of(pin: &Pin) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let tag = hmac::sign(&key, pin.expose().as_bytes());
        Some(Self { key, tag })
    }

    fn fits(&self, pin: &Pin) -> bool {
        hmac::verify(&self.key, pin.expose().as_bytes(), self.tag.as_ref()).is_ok()
    }
}

fn leased(
    token: &Token,
    slot: CK_SLOT_ID,
    session: Session,
    user: CK_USER_TYPE,
    key: Option<&str>,
) -> Result<(), Fault> {
    // Another process may have used up tries since this was read first.
    let info = token.info(slot)?;
    if info.is(sys::CKF_PROTECTED_AUTHENTICATION_PATH) {
        return attempt(token, &info, session, user, None, true).map_err(|refusal| refusal.fault);
    }
    if info.is(sys::CKF_USER_PIN_LOCKED) {
        return Err(locked(&info).into());
    }
    let prompt =
        PinPrompt { device: info.name(), key: key.map(ToOwned::to_owned), tries_left: info.tries_left() };
    let lease = block_on(token.pins.lease(&prompt))?;
    match attempt(token, &info, session, user, Some(lease.pin()), lease.may_use_last_try()) {
        Ok(()) => {
            lease.report(PinOutcome::Accepted);
            Ok(())
        }
        Err(Refusal { pin_is_bad: true, fault: Fault::Answer(error) }) => {
            lease.report(PinOutcome::Refused(token.about(error.clone())));
            Err(error.into())
        }
        Err(refusal) => {
            lease.report(PinOutcome::NotTried);
            Err(refusal.fault)
        }
    }
}

struct Refusal {
    /// It was the PIN: it must not be tried again.
    pin_is_bad: bool,
    fault: Fault,
}

/// The one call of C_Login.
fn attempt(
    token: &Token,
    info: &TokenInfo,
    session: Session,
    user: CK_USER_TYPE,
    pin: Option<&Pin>,
    use_last_try: bool,
) -> Result<(), Refusal> {
    let untried = |error: Error| Refusal { pin_is_bad: false, fault: error.into() };
    if info.is(sys::CKF_USER_PIN_LOCKED) {
        return Err(untried(locked(info)));
    }
    if info.is(sys::CKF_USER_PIN_FINAL_TRY) && !use_last_try {
        return Err(untried(
            Error::new(ErrorKind::Locked, "one try is left for the PIN: not used unless you say so")
                .next("if you are sure of the PIN, give it with `signer keys unlock --use-last-try`"),
        ));
    }
    let done = {
        let _turn = (user == sys::CKU_USER).then(|| Turn::take(&token.path));
        token.module.login(session, user, pin.map(Pin::expose))
    };
    let Err(failure) = done else {
        if user == sys::CKU_USER {
            *token.opened_with() = pin.and_then(PinMark::of);
        }
        return Ok(());
    };
    if failure.code == sys::CKR_USER_ALREADY_LOGGED_IN {
        return Ok(());
    }
    if !is_about_the_pin(failure.code) {
        return Err(Refusal { pin_is_bad: false, fault: failure.into() });
    }
    let mut error = Error::from(failure);
    if let ErrorKind::WrongPin { .. } = error.kind() {
        let after = token.info(info.slot).ok();
        let tries_left =
            after.and_then(|i| if i.is(sys::CKF_USER_PIN_LOCKED) { Some(0) } else { i.tries_left() });
        let vendor = error.vendor_code().unwrap_or_default().to_owned();
        let next = error.advice().unwrap_or_default().to_owned();
        error = Error::new(ErrorKind::WrongPin { tries_left }, error.what()).vendor(vendor).next(next);
    }
    Err(Refusal { pin_is_bad: true, fault: error.into() })
}

fn is_about_the_pin(code: CK_RV) -> bool {
    [
        sys::CKR_PIN_INCORRECT,
        sys::CKR_PIN_INVALID,
        sys::CKR_PIN_LEN_RANGE,
        sys::CKR_PIN_LOCKED,
        sys::CKR_PIN_EXPIRED,
        sys::CKR_USER_PIN_NOT_INITIALIZED,
    ]
    .contains(&code)
}

fn locked(info: &TokenInfo) -> Error {
    Error::new(ErrorKind::Locked, format!("the PIN of {} is locked: too many wrong tries", info.name()))
        .next("the token's security officer can reset it (`pkcs11-tool --init-pin`)")
}

/// Waits for a future on this thread, which may block: all work in a token is done in threads that may.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
