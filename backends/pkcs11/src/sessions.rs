//! The sessions of one connection: an anchor that keeps the login, and a pool to work with.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cryptoki_sys as sys;

use crate::raw::{Failure, Session};

/// How long a caller waits for a session when the token has no more of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sessions of one connection to a token.
pub(crate) struct Sessions {
    /// Open as long as the connection lasts: a token forgets the login with its last session. It works, too, on a
    /// token that has no other.
    pub(crate) anchor: Session,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Session>,
    /// Sessions that are at work, the anchor not counted.
    working: usize,
    anchor_works: bool,
}

impl Sessions {
    pub(crate) fn new(anchor: Session) -> Self {
        Self { anchor, pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Takes a session out of the pool, opening one if all are at work; waits for one if the token has no more.
    pub(crate) fn take(&self, open: impl Fn() -> Result<Session, Failure>) -> Result<Session, Failure> {
        let until = Instant::now() + PATIENCE;
        let mut pool = self.lock();
        loop {
            if let Some(session) = pool.idle.pop() {
                pool.working += 1;
                return Ok(session);
            }
            let full = match open() {
                Ok(session) => {
                    pool.working += 1;
                    return Ok(session);
                }
                Err(e) if e.code == sys::CKR_SESSION_COUNT => e,
                Err(e) => return Err(e),
            };
            if pool.working == 0 && !pool.anchor_works {
                pool.anchor_works = true;
                return Ok(self.anchor);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(full);
            }
            pool = self.returned.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Puts a session back that is in order.
    pub(crate) fn put_back(&self, session: Session) {
        let mut pool = self.lock();
        if session == self.anchor {
            pool.anchor_works = false;
        } else {
            pool.working -= 1;
            pool.idle.push(session);
        }
        drop(pool);
        self.returned.notify_one();
    }

    /// Notes that a session is gone. The anchor stays: only a new connection replaces it.
    pub(crate) fn forget(&self, session: Session) {
        let mut pool = self.lock();
        if session == self.anchor {
            pool.anchor_works = false;
        } else {
            pool.working -= 1;
        }
        drop(pool);
        self.returned.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
