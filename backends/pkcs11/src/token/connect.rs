//! Making a connection to the token, and taking it down: what the tiers of recovery do.

use std::{
    sync::{
        MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki_sys as sys;
use signer_core::{Error, Event, Result};

use super::{Live, Need, Token};
use crate::{
    codes,
    fault::Fault,
    login,
    raw::{Failure, Template},
    sessions::Sessions,
    token_info::TokenInfo,
    turn::Turn,
};

/// While a connection cannot be made, it is tried so often at most.
const RETRY: Duration = Duration::from_millis(150);
/// The longest time between two initialisations that did not help.
const LONGEST_RETRY: Duration = Duration::from_millis(600);
/// Milliseconds between attempts when a token is there, but fails while it is connected to.
const PAUSES: [u64; 4] = [0, 10, 20, 40];
/// A module that is initialised twice in such a time is quick.
const QUICK: Duration = Duration::from_millis(100);
/// After so many initialisations in a row that did not help, and so much time, only another process can.
const HOPELESS: (u32, Duration) = (8, Duration::from_secs(30));

/// What only whoever mends the connection looks at.
#[derive(Default)]
pub(super) struct Mender {
    pub(super) initialized: bool,
    /// When connecting failed last, and why.
    failed: Option<(Instant, Error)>,
    initialized_at: Option<Instant>,
    /// Since when nothing helps.
    hopeless_since: Option<Instant>,
}

impl Token {
    /// Makes a connection that serves the need, if nobody else has meanwhile.
    pub(super) fn connect(&self, need: Need) -> Result<()> {
        let mut mender = self.mender();
        if self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(|live| live.serves(need))
        {
            return Ok(());
        }
        if let Some((when, error)) = &mender.failed
            && when.elapsed() < RETRY
        {
            return Err(error.clone());
        }
        let error = match self.connect_now(&mut mender, need) {
            Ok(()) => {
                if mender.failed.take().is_some() {
                    tracing::info!(backend = self.backend, "the token can be used again");
                    self.tell(&Event::Up);
                }
                mender.hopeless_since = None;
                return Ok(());
            }
            // The token is there; it is the login that fails.
            Err(Fault::Answer(error)) => return Err(self.about(error)),
            Err(Fault::Module(failure)) => {
                self.nothing_helps(&mut mender);
                Error::from(failure)
            }
            Err(Fault::Absent(error) | Fault::Abandoned(error)) => error,
        };
        let error = self.about(error);
        if mender.failed.is_none() {
            tracing::warn!(backend = self.backend, "{error}");
            self.tell(&Event::Down(error.clone()));
        }
        mender.failed = Some((Instant::now(), error.clone()));
        Err(error)
    }

    fn connect_now(&self, mender: &mut Mender, need: Need) -> Result<(), Fault> {
        // What the module knows may be old, or was read while another process wrote it. A token that is not there is looked
        // for twice, or three times with a quick module, one that fails some times more.
        let start = Instant::now();
        let mut absences = 0;
        for pause in PAUSES {
            match self.attach(mender, need) {
                Err(Fault::Absent(_)) if absences == 0 || (absences == 1 && start.elapsed() < QUICK) => {
                    absences += 1;
                }
                Err(Fault::Module(_)) => {}
                done => return done,
            }
            self.finalize(mender);
            std::thread::sleep(Duration::from_millis(pause));
        }
        self.attach(mender, need)
    }

    fn attach(&self, mender: &mut Mender, need: Need) -> Result<(), Fault> {
        let mut live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if live.is_none() {
            drop(live);
            let made = {
                let _turn = Turn::take(&self.path);
                self.initialize(mender)?;
                self.open()?
            };
            // Nobody waits for the lock for long: whoever is inside the module is here because there is no connection.
            *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
            live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(live) = live.as_ref()
            && !live.serves(need)
        {
            if live.info.is(sys::CKF_LOGIN_REQUIRED) {
                login::user(self, live.info.slot, live.sessions.anchor)?;
            }
            self.logged_in(live)?;
        }
        Ok(())
    }

    /// Finds the token and opens the anchor session.
    fn open(&self) -> Result<Live, Fault> {
        let info = TokenInfo::find(&self.module, &self.wanted)?;
        let mut mechanisms = self.module.mechanisms(info.slot)?;
        mechanisms.sort_unstable();
        let anchor = self.module.open_session(info.slot, self.writable(&info))?;
        tracing::debug!(backend = self.backend, token = info.name(), "connected");
        Ok(Live {
            epoch: self.epochs.fetch_add(1, Ordering::Relaxed),
            info,
            mechanisms,
            sessions: Sessions::new(anchor),
            logged_in: AtomicBool::new(false),
            seen_keys: AtomicBool::new(false),
        })
    }

    /// Notes that private keys can be seen, and whether there are any: a token that goes away often looks like an empty
    /// one.
    pub(super) fn logged_in(&self, live: &Live) -> Result<(), Failure> {
        let keys = Template::of(sys::CKO_PRIVATE_KEY);
        let any = !self.module.find(live.sessions.anchor, &keys, 1)?.is_empty();
        live.seen_keys.store(any, Ordering::Relaxed);
        live.logged_in.store(true, Ordering::Release);
        Ok(())
    }

    fn initialize(&self, mender: &mut Mender) -> Result<(), Failure> {
        if !mender.initialized {
            match self.module.initialize() {
                Err(e) if e.code != sys::CKR_CRYPTOKI_ALREADY_INITIALIZED => return Err(e),
                _ => {
                    mender.initialized = true;
                    mender.initialized_at = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// C_Finalize, when nobody is inside the module any more.
    fn finalize(&self, mender: &mut Mender) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        *live = None;
        if std::mem::take(&mut mender.initialized)
            && let Err(failure) = self.module.finalize()
        {
            tracing::debug!(backend = self.backend, code = codes::name(failure.code), "C_Finalize failed");
        }
    }

    /// Closes a connection, if it is still this one.
    pub(super) fn disconnect(&self, epoch: u64) {
        let _mender = self.mender();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = live.take_if(|live| live.epoch == epoch) {
            let _ = self.module.close_all_sessions(old.info.slot);
        }
    }

    /// Takes the module down if the connection is still this one. False when that was done so lately, and did not
    /// help, that there is no sense in it.
    pub(super) fn reinitialise(&self, epoch: u64) -> bool {
        let mut mender = self.mender();
        let current =
            self.live.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|live| live.epoch);
        if current != Some(epoch) {
            return true;
        }
        let useless = self.useless.load(Ordering::Relaxed);
        let pause = (RETRY * (1 << useless.min(4))).min(LONGEST_RETRY);
        if mender.initialized_at.is_some_and(|at| useless > 0 && at.elapsed() < pause) {
            return false;
        }
        self.useless.fetch_add(1, Ordering::Relaxed);
        self.finalize(&mut mender);
        true
    }

    /// Counts an attempt that failed although the module was initialised for it; asks for another process after many.
    pub(super) fn nothing_helps(&self, mender: &mut Mender) {
        let since = *mender.hopeless_since.get_or_insert_with(Instant::now);
        let failures = self.useless.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= HOPELESS.0
            && since.elapsed() >= HOPELESS.1
            && let Some(last_resort) = &self.last_resort
        {
            tracing::warn!(
                backend = self.backend,
                "nothing in this process brings the token back: ending it"
            );
            mender.hopeless_since = None;
            last_resort();
        }
    }

    fn tell(&self, event: &Event) {
        for sink in self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sink(event.clone());
        }
    }

    pub(super) fn mender(&self) -> MutexGuard<'_, Mender> {
        self.mender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
