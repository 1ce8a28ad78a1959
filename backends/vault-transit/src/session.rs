//! The token: got when it is first needed, kept alive in the background, replaced before it ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Method;
use signer_core::{Digest, Error, ErrorKind, HashAlgorithm, Pin, Result};
use signer_remote::Failure;

use crate::{
    fault::{Asked, Fault},
    http::{Http, Request},
    login::{self, Lease, Proof, Source},
};

/// Who we are to the server.
pub(crate) struct Session {
    http: Http,
    source: Source,
    state: Mutex<State>,
    /// One gets a token, the others who want one wait.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Token>>,
    refusal: Option<Refusal>,
    /// Why the token will not outlive its lease, when that is near.
    trouble: Option<Error>,
}

/// A token in use.
pub(crate) struct Token {
    pin: Pin,
    renewable: bool,
    /// Its lease as it was given or renewed last.
    term: Mutex<Term>,
}

#[derive(Clone, Copy)]
struct Term {
    from: Instant,
    lasts: Option<Duration>,
}

/// A proof or token that Vault does not take is not sent again at once: it locks users out after a few tries.
struct Refusal {
    fingerprint: Digest,
    error: Error,
    until: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LAST_PAUSE: Duration = Duration::from_mins(15);

impl Session {
    pub(crate) fn new(http: Http, source: Source) -> Arc<Self> {
        Arc::new(Self { http, source, state: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// A token that is good now.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Fault> {
        if let Some(token) = self.valid() {
            return Ok(token);
        }
        let _turn = self.turn.lock().await;
        match self.valid() {
            Some(token) => Ok(token),
            None => self.obtain().await.map_err(|mut fault| {
                // Whatever was wanted the token for has not been asked yet.
                fault.failure.lost = false;
                fault
            }),
        }
    }

    /// Notes that the server does not take this token any more.
    pub(crate) fn reject(&self, token: &Arc<Token>, error: &Error) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|t| Arc::ptr_eq(t, token)) {
            state.current = None;
            // A given token that has not changed is not tried again; a login gets another one.
            if matches!(self.source, Source::Given(_)) {
                state.refuse(fingerprint(&token.pin), error.clone());
            }
        }
    }

    /// Why requests will fail soon, when that is known.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let state = self.state();
        let trouble = state.trouble.clone()?;
        let left = state.current.as_ref().and_then(|t| t.left());
        Some(match left {
            Some(left) => {
                let what = format!("the Vault token ends in {} s: {}", left.as_secs(), trouble.what());
                let error = Error::new(trouble.kind(), what);
                let error = trouble.advice().map_or(error.clone(), |next| error.clone().next(next));
                trouble.vendor_code().map_or(error.clone(), |vendor| error.vendor(vendor))
            }
            None => trouble,
        })
    }

    fn valid(&self) -> Option<Arc<Token>> {
        let state = self.state();
        state.current.as_ref().filter(|t| t.left() != Some(Duration::ZERO)).cloned()
    }

    /// Reads what there is to prove, and gets a token for it. The caller holds the turn.
    async fn obtain(self: &Arc<Self>) -> Result<Arc<Token>, Fault> {
        let lease = match &self.source {
            Source::Given(secret) => self.look_up(secret).await?,
            Source::Login(login) => {
                let proof = Proof::read(login).await?;
                self.check(&proof.fingerprint)?;
                proof.send(&self.http).await.map_err(|fault| self.refused(proof.fingerprint, fault))?
            }
        };
        Ok(self.adopt(lease))
    }

    /// What Vault says of a token that was given.
    async fn look_up(&self, secret: &crate::SecretLoader) -> Result<Lease, Fault> {
        let token = login::load(secret, "token").await?;
        self.check(&fingerprint(&token))?;
        let asked = Asked { path: "auth/token/lookup-self", capability: "read", repeatable: true };
        let request = Request { method: Method::GET, asked, query: "", body: None, token: Some(&token) };
        match self.http.send(request).await {
            Ok(answer) => Ok(Lease::of_lookup(&answer, token)?),
            Err(Fault { failure, stale_token: true }) => {
                self.state().refuse(fingerprint(&token), failure.error.clone());
                Err(failure.into())
            }
            // A token that may not look at itself may be good for everything else.
            Err(fault) if fault.failure.error.kind() == ErrorKind::Denied => {
                Ok(Lease { token, lasts: None, renewable: false })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether this was refused a short while ago.
    fn check(&self, fingerprint: &Digest) -> Result<()> {
        match &self.state().refusal {
            Some(refusal) if refusal.fingerprint == *fingerprint && Instant::now() < refusal.until => {
                Err(refusal.error.clone())
            }
            _ => Ok(()),
        }
    }

    /// A login that failed; noted when it was for what was sent, and not for the server.
    fn refused(&self, fingerprint: Digest, fault: Fault) -> Fault {
        let kind = fault.failure.error.kind();
        if !matches!(
            kind,
            ErrorKind::BadRequest | ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Unsupported
        ) {
            return fault;
        }
        let error = Error::new(ErrorKind::Denied, "Vault refuses the login")
            .next("check the login's mount, role or user, and its secret; it is tried again when the secret changes");
        let vendor = fault.failure.error.vendor_code();
        let error = vendor.map_or(error.clone(), |vendor| error.clone().vendor(vendor));
        self.state().refuse(fingerprint, error.clone());
        error.into()
    }

    fn adopt(self: &Arc<Self>, lease: Lease) -> Arc<Token> {
        let Lease { token, lasts, renewable } = lease;
        let term = Mutex::new(Term { from: Instant::now(), lasts });
        let token = Arc::new(Token { pin: token, renewable, term });
        let mut state = self.state();
        state.current = Some(token.clone());
        state.refusal = None;
        state.trouble = None;
        drop(state);
        if lasts.is_some() {
            tokio::spawn(keep(Arc::downgrade(self), token.clone()));
        }
        token
    }

    /// Makes the token last longer, or gets another one. Says whether this one is still the one.
    async fn extend(self: &Arc<Self>, token: &Arc<Token>) -> Result<bool> {
        let before = token.term().lasts;
        if token.renewable {
            match self.renew(token).await {
                // Short of its former length: the server has a maximum, and it is near.
                Ok(lease) if lease.lasts.is_none_or(|l| Some(l) >= before.map(|b| b / 2)) => {
                    *token.lock() = Term { from: Instant::now(), lasts: lease.lasts };
                    self.state().trouble = None;
                    return Ok(true);
                }
                Ok(lease) => {
                    let mut term = token.lock();
                    let longer = Term { from: Instant::now(), lasts: lease.lasts };
                    if longer.left() > term.left() {
                        *term = longer;
                    }
                }
                Err(fault) if fault.stale_token => self.reject(token, &fault.failure.error),
                // It is for the server's sake that it fails, and may do later.
                Err(Fault { failure: Failure { error, .. }, .. })
                    if error.is_retryable() || matches!(error.kind(), ErrorKind::TimedOut) =>
                {
                    return Err(error);
                }
                // Past its maximum (which Vault answers with 500), or not allowed to renew itself.
                Err(_) => {}
            }
        }
        let _turn = self.turn.lock().await;
        if let Source::Given(secret) = &self.source {
            let now = login::load(secret, "token").await?;
            if now.expose() == token.pin.expose() {
                let what = "it cannot be renewed any further, and there is no newer one";
                return Err(Error::new(ErrorKind::Denied, what)
                    .next("give the backend a new token, or a login that gets one by itself"));
            }
        }
        self.obtain().await.map(|_| false).map_err(|fault| fault.failure.error)
    }

    async fn renew(&self, token: &Token) -> Result<Lease, Fault> {
        let asked = Asked { path: "auth/token/renew-self", capability: "update", repeatable: true };
        let body = Some(Bytes::from_static(b"{}"));
        let request = Request { method: Method::POST, asked, query: "", body, token: Some(&token.pin) };
        Ok(Lease::of_login(&self.http.send(request).await?)?)
    }

    fn is_current(&self, token: &Arc<Token>) -> bool {
        self.state().current.as_ref().is_some_and(|t| Arc::ptr_eq(t, token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a token alive for as long as it is the one in use.
async fn keep(session: Weak<Session>, token: Arc<Token>) {
    let mut share = 2.0 / 3.0;
    loop {
        let Some(left) = token.left() else { return };
        if left.is_zero() {
            return;
        }
        let pause = left.mul_f64(share).clamp(Duration::from_millis(100), Duration::from_hours(24));
        tokio::time::sleep(pause).await;
        let Some(session) = session.upgrade() else { return };
        if !session.is_current(&token) {
            return;
        }
        match session.extend(&token).await {
            Ok(true) => share = 2.0 / 3.0,
            Ok(false) => return,
            Err(error) => {
                tracing::warn!("the Vault token is not renewed: {error}");
                if session.is_current(&token) {
                    session.state().trouble = Some(error);
                }
                share = 1.0 / 4.0;
            }
        }
    }
}

fn fingerprint(token: &Pin) -> Digest {
    Digest::of(HashAlgorithm::Sha256, token.expose().as_bytes())
}

impl State {
    fn refuse(&mut self, fingerprint: Digest, error: Error) {
        let pause = match &self.refusal {
            Some(before) if before.fingerprint == fingerprint => (before.pause * 2).min(LAST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.refusal = Some(Refusal { fingerprint, error, until: Instant::now() + pause, pause });
    }
}

impl Token {
    pub(crate) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// How long it is good for; `None` for ever.
    fn left(&self) -> Option<Duration> {
        self.term().left()
    }

    fn term(&self) -> Term {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Term {
    fn left(&self) -> Option<Duration> {
        Some(self.lasts?.saturating_sub(self.from.elapsed()))
    }
}
