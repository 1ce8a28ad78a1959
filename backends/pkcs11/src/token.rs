//! The token as this process is connected to it: every piece of work goes through [`Token::with`].
//!
//! Locks, in the order in which they are taken: `mender` (whoever connects, logs in or takes a connection down), then
//! `live` (read-held by everybody who is inside the module with a session, so that whoever holds it for writing is the
//! only one in the module), then the pool of sessions. A PIN is waited for while `mender` or a read lock of `live` is
//! held, never while a write lock is.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use cryptoki_sys as sys;
use signer_core::{Error, ErrorKind, EventSink, Pin, PinSource, Result};
use sys::CK_MECHANISM_TYPE;

use crate::{
    codes::{self, Action},
    config::{Pkcs11Config, Wanted},
    fault::Fault,
    login::{self, PinMark},
    raw::{Failure, Module, Session},
    sessions::Sessions,
    token_info::TokenInfo,
    turn::Turn,
};

mod connect;

use connect::Mender;

/// What a piece of work needs to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The token alone: what it says to everybody.
    Token,
    /// The user's login.
    Login,
}

/// Ends this process so that the daemon starts another one.
pub(crate) type LastResort = Arc<dyn Fn() + Send + Sync>;

/// One configured token.
pub(crate) struct Token {
    /// The backend's configured name, for messages.
    pub(crate) backend: String,
    /// Nothing in it may be changed.
    pub(crate) read_only: bool,
    pub(crate) module: Module,
    /// Where the module was loaded from.
    pub(crate) path: PathBuf,
    pub(crate) pins: Arc<dyn PinSource>,
    wanted: Wanted,
    live: RwLock<Option<Live>>,
    mender: Mutex<Mender>,
    epochs: AtomicU64,
    /// Initialisations in a row after which work still failed.
    useless: AtomicU32,
    /// The token was found without any key although somebody named one, and was looked at again: a module that read the
    /// token's files while another process wrote them takes it for empty (SoftHSM).
    pub(crate) doubted: AtomicBool,
    /// The PIN of the last login, to be known again.
    opened_with: Mutex<Option<PinMark>>,
    sinks: Mutex<Vec<EventSink>>,
    pub(crate) last_resort: Option<LastResort>,
}

/// A connection, from the opening of its anchor session until it is taken down.
pub(crate) struct Live {
    /// No two connections have the same. Object handles are good for one.
    pub(crate) epoch: u64,
    pub(crate) info: TokenInfo,
    /// Sorted.
    mechanisms: Vec<CK_MECHANISM_TYPE>,
    sessions: Sessions,
    logged_in: AtomicBool,
    /// Private keys were seen: that there are none any more needs an explanation.
    pub(crate) seen_keys: AtomicBool,
}

impl Live {
    pub(crate) fn has_mechanism(&self, mechanism: CK_MECHANISM_TYPE) -> bool {
        self.mechanisms.binary_search(&mechanism).is_ok()
    }
}

/// Where a piece of work is done: a connection, and a session of its own.
pub(crate) struct Inside<'a> {
    pub(crate) token: &'a Token,
    pub(crate) live: &'a Live,
    pub(crate) session: Session,
}

impl Inside<'_> {
    /// Fails when the login was lost: the token then shows no private keys, and says nothing. Call it before you believe
    /// that there is none.
    pub(crate) fn check_login(&self) -> Result<(), Failure> {
        let state = self.token.module.session_info(self.session)?.state;
        if self.live.info.is(sys::CKF_LOGIN_REQUIRED)
            && [sys::CKS_RO_PUBLIC_SESSION, sys::CKS_RW_PUBLIC_SESSION].contains(&state)
        {
            return Err(Failure { code: sys::CKR_USER_NOT_LOGGED_IN, function: "C_GetSessionInfo" });
        }
        Ok(())
    }
}

impl Token {
    /// Loads the module. The token may be absent.
    pub(crate) fn new(config: &Pkcs11Config, backend: String, pins: Arc<dyn PinSource>) -> Result<Self> {
        let wanted = config.wanted()?;
        let module = load(&config.module)?;
        Ok(Self {
            backend,
            read_only: config.read_only,
            module,
            path: config.module.clone(),
            pins,
            wanted,
            live: RwLock::default(),
            mender: Mutex::default(),
            epochs: AtomicU64::new(1),
            useless: AtomicU32::new(0),
            doubted: AtomicBool::new(false),
            opened_with: Mutex::default(),
            sinks: Mutex::default(),
            last_resort: None,
        })
    }

    /// Does a piece of work in the token, and whatever it takes that it succeeds: connects, logs in, and when it fails
    /// goes up the tiers of [`Action`]. `work` may so be called several times; what must not happen twice ends in
    /// [`Fault::Abandoned`].
    pub(crate) fn with<T>(
        &self,
        need: Need,
        mut work: impl FnMut(&Inside<'_>) -> Result<T, Fault>,
    ) -> Result<T> {
        let mut taken: Option<Action> = None;
        loop {
            let live = self.enter(need)?;
            let epoch = live.epoch;
            let (spoilt, fault) = match self.session(&live) {
                Err(fault) => (None, fault),
                Ok(session) => match work(&Inside { token: self, live: &live, session }) {
                    Ok(value) => {
                        live.sessions.put_back(session);
                        if self.useless.load(Ordering::Relaxed) != 0 {
                            self.useless.store(0, Ordering::Relaxed);
                        }
                        return Ok(value);
                    }
                    Err(fault @ (Fault::Answer(_) | Fault::Absent(_))) => {
                        live.sessions.put_back(session);
                        (None, fault)
                    }
                    Err(fault) => (Some(session), fault),
                },
            };
            if let Some(session) = spoilt {
                self.discard(&live, session);
            }
            let anchor_spoilt = spoilt == Some(live.sessions.anchor);
            drop(live);
            let (action, error) = match fault {
                Fault::Answer(error) | Fault::Abandoned(error) => return Err(self.about(error)),
                // It is not that the module had lost it.
                Fault::Absent(error) if taken >= Some(Action::Reinitialise) => return Err(self.about(error)),
                Fault::Absent(error) => (Action::Reinitialise, error),
                Fault::Module(failure) => (codes::classify(failure.code), failure.into()),
            };
            let action = match next(taken, action) {
                Action::Reopen if anchor_spoilt => Action::LogIn,
                other => other,
            };
            tracing::debug!(backend = self.backend, ?action, %error, "work in the token failed");
            match action {
                Action::Reopen => {}
                Action::LogIn => self.disconnect(epoch),
                Action::Reinitialise => {
                    if !self.reinitialise(epoch) {
                        return Err(self.about(error));
                    }
                }
                Action::RestartDriver => {
                    self.nothing_helps(&mut self.mender());
                    return Err(self.about(error));
                }
                Action::GiveUp(_) => return Err(self.about(error)),
            }
            taken = Some(action);
        }
    }

    /// Logs in with a PIN that somebody gave just now.
    pub(crate) fn unlock(&self, pin: &Pin, use_last_try: bool) -> Result<()> {
        for last in [false, true] {
            let entered = self.enter(Need::Token)?;
            let (epoch, anchor) = (entered.epoch, entered.sessions.anchor);
            match login::with_pin(self, entered.info.slot, anchor, pin, use_last_try) {
                Ok(()) => return self.logged_in(&entered).map_err(|failure| self.about(failure.into())),
                // What the module knows may be old.
                Err(Fault::Module(failure))
                    if !last && !matches!(codes::classify(failure.code), Action::GiveUp(_)) =>
                {
                    drop(entered);
                    self.reinitialise(epoch);
                }
                Err(Fault::Module(failure)) => return Err(self.about(failure.into())),
                Err(Fault::Answer(e) | Fault::Absent(e) | Fault::Abandoned(e)) => return Err(self.about(e)),
            }
        }
        Err(self.about(Error::new(ErrorKind::DeviceGone, "the token went away just now")))
    }

    /// Gives up the login: it ends with the last session (PKCS#11 C_CloseAllSessions).
    pub(crate) fn lock(&self) {
        let epoch = self.live.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|live| live.epoch);
        if let Some(epoch) = epoch {
            self.disconnect(epoch);
        }
        *self.opened_with() = None;
    }

    /// The PIN of the last login.
    pub(crate) fn opened_with(&self) -> MutexGuard<'_, Option<PinMark>> {
        self.opened_with.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the token says of itself now.
    pub(crate) fn info(&self, slot: sys::CK_SLOT_ID) -> Result<TokenInfo, Failure> {
        let _turn = Turn::take(&self.path);
        TokenInfo::read(&self.module, slot)
    }

    /// Calls `sink` when the token goes away and when it is back.
    pub(crate) fn watch(&self, sink: EventSink) {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).push(sink);
    }

    /// Adds whose token it is about.
    pub(crate) fn about(&self, error: Error) -> Error {
        error.device(&self.backend)
    }

    /// Goes into the module, where nothing is taken down as long as the guard lives.
    fn enter(&self, need: Need) -> Result<Entered<'_>> {
        loop {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            if live.as_ref().is_some_and(|live| live.serves(need)) {
                return Ok(Entered(live));
            }
            drop(live);
            self.connect(need)?;
        }
    }

    fn session(&self, live: &Live) -> Result<Session, Fault> {
        let open = || self.module.open_session(live.info.slot, self.writable(&live.info));
        Ok(live.sessions.take(open)?)
    }

    fn discard(&self, live: &Live, session: Session) {
        if session != live.sessions.anchor {
            let _ = self.module.close_session(session);
        }
        live.sessions.forget(session);
    }

    fn writable(&self, info: &TokenInfo) -> bool {
        !self.read_only && !info.is(sys::CKF_WRITE_PROTECTED)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mender = self.mender.get_mut().unwrap_or_else(PoisonError::into_inner);
        if mender.initialized {
            let _ = self.module.finalize();
        }
    }
}

impl Live {
    fn serves(&self, need: Need) -> bool {
        need == Need::Token || self.logged_in.load(Ordering::Acquire)
    }
}

/// A connection that is not taken down meanwhile.
struct Entered<'a>(RwLockReadGuard<'a, Option<Live>>);

impl std::ops::Deref for Entered<'_> {
    type Target = Live;

    fn deref(&self) -> &Live {
        match &*self.0 {
            Some(live) => live,
            None => unreachable!("it is only made where there is a connection"),
        }
    }
}

/// What to do now, when `taken` was done before and `due` is what the table says.
fn next(taken: Option<Action>, due: Action) -> Action {
    use Action::{GiveUp, LogIn, Reinitialise, Reopen, RestartDriver};
    let higher = match taken {
        None => Reopen,
        Some(Reopen) => LogIn,
        Some(LogIn) => Reinitialise,
        Some(Reinitialise | RestartDriver | GiveUp(_)) => RestartDriver,
    };
    if matches!(due, GiveUp(_)) || due > higher { due } else { higher }
}

/// Loads a module, saying what to do when it cannot be.
pub(crate) fn load(path: &Path) -> Result<Module> {
    Module::load(path).map_err(|reason| {
        let error = Error::bad_request(format!("{} cannot be loaded as a PKCS#11 module", path.display()))
            .vendor(reason);
        if path.exists() {
            error.next("is it the PKCS#11 library of the token's maker, for this machine's architecture?")
        } else {
            error.next("there is no such file: install the token's software, or mend `module`")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_is_met_with_the_next_tier() {
        use Action::{GiveUp, LogIn, Reinitialise, Reopen, RestartDriver};
        assert_eq!(next(None, Reopen), Reopen);
        assert_eq!(next(Some(Reopen), Reopen), LogIn);
        assert_eq!(next(Some(Reopen), Reinitialise), Reinitialise);
        assert_eq!(next(Some(LogIn), Reopen), Reinitialise);
        assert_eq!(next(Some(Reinitialise), Reopen), RestartDriver);
        assert_eq!(next(Some(Reinitialise), LogIn), RestartDriver);
        let denied = GiveUp(ErrorKind::Denied);
        assert_eq!(next(Some(Reinitialise), denied), denied);
    }
}
