//! How long a request may take and how often it is tried.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use signer_core::{Error, ErrorKind, Result};

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the caller is told if this was the last attempt.
    pub error: Error,
    /// Whether another attempt may help.
    pub again: Again,
    /// Whether the service may have done what was asked although its answer is lost.
    pub lost: bool,
}

/// Whether another attempt may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It would end the same way.
    Never,
    /// Once or twice: the network or the service may have stumbled.
    Few,
    /// For as long as the caller waits: the service asks for it.
    Patiently,
}

impl Failure {
    /// A failure that would be the same again.
    pub fn never(error: Error) -> Self {
        Self { error, again: Again::Never, lost: false }
    }

    /// A failure that may be gone at the next attempt.
    pub fn few(error: Error) -> Self {
        Self { error, again: Again::Few, lost: false }
    }

    /// A failure that goes away with time.
    pub fn patiently(error: Error) -> Self {
        Self { error, again: Again::Patiently, lost: false }
    }

    /// The same, with an answer that is lost.
    #[must_use]
    pub fn lost(mut self) -> Self {
        self.lost = true;
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::never(error)
    }
}

/// How long one attempt and a whole request may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One attempt.
    pub attempt: Duration,
    /// A whole request whose caller has no deadline.
    pub total: Duration,
}

/// Attempts in all, where the service does not ask to come again.
const FEW: u32 = 3;
/// The pause after the first attempt is up to this, and doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause that the service did not ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Patience {
    /// Tries something that can be done twice without harm until it succeeds, cannot, or `until` is there. Pauses are
    /// random between nothing and a limit that doubles (full jitter), and at least what the service asks for.
    ///
    /// The answer is there at the deadline at the latest: `TimedOut` when the caller's own has passed, otherwise what
    /// the last attempt met with.
    pub async fn persist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        until: Option<Instant>,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        self.run(until, true, attempt).await
    }

    /// Tries a change that must not be made twice: it is tried again only when the service has surely not made it. An
    /// answer that is lost becomes an error that says so ([`Error::is_uncertain`]).
    pub async fn change<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        until: Option<Instant>,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        self.run(until, false, attempt).await
    }

    async fn run<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        until: Option<Instant>,
        repeatable: bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let own = Instant::now().checked_add(self.total);
        let end = match (until, own) {
            (Some(until), _) => until,
            (None, Some(own)) => own,
            (None, None) => Instant::now() + LONGEST_PAUSE,
        };
        for number in 1_u32.. {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let failure = match tokio::time::timeout(left.min(self.attempt), attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) if left <= self.attempt && until.is_some() => Failure::never(late()).lost(),
                Err(_) => Failure::few(silent(left.min(self.attempt))).lost(),
            };
            if failure.lost && !repeatable {
                return Err(failure.error.may_have_happened());
            }
            let tired = match failure.again {
                Again::Never => true,
                Again::Few => number >= FEW,
                Again::Patiently => false,
            };
            if tired {
                return Err(failure.error);
            }
            let asked = failure.error.kind().retry_after().unwrap_or_default();
            let pause = asked + jitter(number);
            if pause >= end.saturating_duration_since(Instant::now()) {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
        Err(late())
    }
}

/// The caller's deadline has passed.
fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "the deadline has passed")
}

fn silent(after: Duration) -> Error {
    Error::new(ErrorKind::DeviceGone, format!("the service did not answer within {} ms", after.as_millis()))
        .next("check the network and the service's status page")
}

/// A random pause after so many attempts: between nothing and a limit that doubles.
fn jitter(attempts: u32) -> Duration {
    let limit = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
    // Each RandomState has keys of its own: a hash of nothing by it is random enough for a pause.
    let random = RandomState::new().hash_one(()) >> 11;
    limit.mul_f64(random as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const PATIENCE: Patience = Patience { attempt: Duration::from_secs(1), total: Duration::from_secs(20) };

    fn gone() -> Error {
        Error::new(ErrorKind::DeviceGone, "gone")
    }

    fn throttled(ms: u64) -> Error {
        Error::new(ErrorKind::Throttled { retry_after: Duration::from_millis(ms) }, "slower")
    }

    /// Fails so many times, and says how often it was asked.
    async fn after(
        failures: u32,
        failure: Failure,
        until: Option<Duration>,
        repeatable: bool,
    ) -> (u32, Result<()>) {
        let asked = AtomicU32::new(0);
        let until = until.map(|d| Instant::now() + d);
        let attempt = || {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let failure = failure.clone();
            async move { if number < failures { Err(failure) } else { Ok(()) } }
        };
        let result = if repeatable {
            PATIENCE.persist(until, attempt).await
        } else {
            PATIENCE.change(until, attempt).await
        };
        (asked.load(Ordering::Relaxed), result)
    }

    #[tokio::test]
    async fn a_stumble_is_tried_three_times() {
        assert!(matches!(after(2, Failure::few(gone()), None, true).await, (3, Ok(()))));
        let (asked, result) = after(9, Failure::few(gone()), None, true).await;
        assert_eq!((asked, result.unwrap_err().kind()), (3, ErrorKind::DeviceGone));
        assert_eq!(after(9, Failure::never(gone()), None, true).await.0, 1);
    }

    #[tokio::test]
    async fn a_throttled_request_waits_as_asked_but_not_beyond_its_deadline() {
        let start = Instant::now();
        let (asked, result) = after(1, Failure::patiently(throttled(150)), None, true).await;
        assert!(result.is_ok() && asked == 2 && start.elapsed() >= Duration::from_millis(150));
        let start = Instant::now();
        let until = Some(Duration::from_millis(500));
        let (_, result) = after(u32::MAX, Failure::patiently(throttled(60_000)), until, true).await;
        assert_eq!(result.unwrap_err().kind(), throttled(60_000).kind());
        assert!(start.elapsed() < Duration::from_millis(100), "no use in waiting");
        let (asked, result) = after(u32::MAX, Failure::patiently(throttled(0)), until, true).await;
        assert!(asked > 2 && result.is_err() && start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_change_whose_answer_is_lost_is_not_made_twice() {
        let (asked, result) = after(1, Failure::few(gone()).lost(), None, false).await;
        assert!(asked == 1 && result.unwrap_err().is_uncertain());
        assert!(matches!(after(1, Failure::few(gone()), None, false).await, (2, Ok(()))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let never = || std::future::pending::<Result<(), Failure>>();
        let patience = Patience { attempt: Duration::from_millis(20), total: Duration::from_secs(20) };
        let error = patience.persist(None, never).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        let soon = Instant::now() + Duration::from_millis(10);
        let error = patience.persist(Some(soon), never).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let past = Some(Instant::now());
        assert_eq!(patience.persist(past, never).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
