//! Who may try the PIN: one process at a time, and nobody after it was refused. Where the PIN that a person gave is kept,
//! and until when.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use signer_core::{Error, ErrorKind, Event, Pin, PinPrompt, Result, utc};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{PinLoader, Sinks, lock, sealed::Sealed};

/// A backend's PIN.
pub(super) struct Vault {
    backend: String,
    loader: Option<PinLoader>,
    /// How long a PIN that a person gave is kept after it served last.
    ttl: Option<Duration>,
    /// When it served last: milliseconds of the clock that goes on while the machine sleeps.
    served: AtomicU64,
    state: Mutex<State>,
    turn: Arc<Semaphore>,
    sinks: Arc<Sinks>,
    /// There is something new for whoever sees to it that PINs are forgotten in time.
    pub(super) news: Notify,
}

#[derive(Default)]
struct State {
    /// The PIN that a person gave, which goes before the configured one.
    given: Option<Sealed>,
    /// Whether that person said that the last try may be used. It holds for one attempt.
    use_last_try: bool,
    /// The PIN that the device refused, and what it said.
    refused: Option<(Sealed, Error)>,
    /// The last PIN that a person gave and the device took.
    proven: Option<Sealed>,
    /// The last PIN that the device took was the configured one. It is read again each time, and not kept.
    configured_is_right: bool,
    /// The last PIN that a person gave and the device refused, and what it said.
    mistyped: Option<(Sealed, Error)>,
    /// What somebody was not lent a PIN for, when a person could give one.
    wanted: Option<PinPrompt>,
    /// Since when there is no PIN because the one that a person gave was forgotten, and why.
    forgotten: Option<(SystemTime, String)>,
    /// The device is still open with a PIN that was forgotten.
    must_lock: bool,
}

/// A PIN that may be tried once. The next one is lent when this is dropped.
pub(super) struct Loan {
    pub(super) pin: Sealed,
    pub(super) use_last_try: bool,
    given: bool,
    _turn: OwnedSemaphorePermit,
}

impl Vault {
    pub(super) fn new(
        backend: String,
        loader: Option<PinLoader>,
        ttl: Option<Duration>,
        sinks: Arc<Sinks>,
    ) -> Self {
        Self {
            backend,
            loader,
            ttl,
            served: AtomicU64::new(0),
            state: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            sinks,
            news: Notify::new(),
        }
    }

    /// Takes a PIN that a person gave. Also takes back that an earlier one was refused.
    pub(super) fn give(&self, pin: &Pin, use_last_try: bool) {
        let mut state = lock(&self.state);
        *state = State {
            given: Some(Sealed::new(pin)),
            use_last_try,
            proven: state.proven.take(),
            configured_is_right: state.configured_is_right,
            ..State::default()
        };
        drop(state);
        self.serve();
        self.news.notify_one();
    }

    /// What the device said of a PIN that a person gave, if it refused it: whoever had its lease may have been somebody else.
    pub(super) fn verdict(&self, given: &Pin) -> Option<Error> {
        let state = lock(&self.state);
        let mistyped = state.mistyped.as_ref().filter(|(pin, _)| pin.expose() == given.expose());
        mistyped.map(|(_, error)| error.clone())
    }

    /// Waits until nobody else tries the PIN and lends it.
    pub(super) async fn lend(&self, prompt: &PinPrompt) -> Result<Loan> {
        let turn = self
            .turn
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::internal("the PIN vault is closed"))?;
        // The machine may have slept past the time.
        if self.time_left().is_some_and(|left| left.is_zero()) {
            self.forget_in_time();
        }
        let (given, use_last_try, refused) = {
            let mut state = lock(&self.state);
            let use_last_try = std::mem::take(&mut state.use_last_try);
            (state.given.clone(), use_last_try, state.refused.clone())
        };
        let is_given = given.is_some();
        let pin = match given {
            Some(pin) => Some(pin),
            None => self
                .loader
                .as_ref()
                .map(|load| load())
                .transpose()
                .map_err(|e| e.device(&self.backend))?
                .flatten()
                .map(|pin| Sealed::new(&pin)),
        };
        let Some(pin) = pin else {
            let what = {
                let mut state = lock(&self.state);
                state.wanted = Some(prompt.clone());
                match &state.forgotten {
                    Some((since, why)) => {
                        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                        format!("the device needs its PIN: it is locked since {}, {why}", utc(since))
                    }
                    None => "the device needs its PIN".to_owned(),
                }
            };
            self.sinks.tell(&Event::PinRequired(prompt.clone()));
            return Err(Error::new(ErrorKind::PinRequired, what)
                .device(&self.backend)
                .next(format!("run `signer keys unlock {}`", self.backend)));
        };
        // A PIN that was refused is never tried again. Another one, in its file, is a new chance.
        if let Some((bad, error)) = refused
            && bad.is(&pin)
        {
            // Whoever mistyped it may type it again; what is configured somebody has to mend.
            if is_given && !says_blocked(&error) {
                let tries_left = error.kind().tries_left().or(prompt.tries_left);
                lock(&self.state).wanted = Some(PinPrompt { tries_left, ..prompt.clone() });
            }
            return Err(Error::new(ErrorKind::Locked, "the PIN was refused before and is not tried again")
                .device(&self.backend)
                .vendor(error.vendor_code().unwrap_or(error.kind().name()))
                .next(format!("run `signer keys unlock {}`, or mend the configured PIN", self.backend)));
        }
        Ok(Loan { pin, use_last_try, given: is_given, _turn: turn })
    }

    /// What a PIN was wanted for, as long as a person could help by giving one.
    pub(super) fn wanted(&self) -> Option<PinPrompt> {
        lock(&self.state).wanted.clone()
    }

    /// Whether the device takes no PIN any more.
    pub(super) fn is_blocked(&self) -> bool {
        lock(&self.state).refused.as_ref().is_some_and(|(_, error)| says_blocked(error))
    }

    /// Notes that the device refused the PIN. A person who mistyped it takes nothing away: the one that the device took
    /// before is lent on, for devices that want it again for each signature.
    pub(super) fn refused(&self, loan: &Loan, error: Error) {
        let mut state = lock(&self.state);
        state.refused = Some((loan.pin.clone(), error.clone()));
        if !loan.given {
            state.configured_is_right = false;
            return;
        }
        state.mistyped = Some((loan.pin.clone(), error));
        match state.proven.take() {
            Some(pin) if !pin.is(&loan.pin) => {
                state.given = Some(pin.clone());
                state.proven = Some(pin);
            }
            None if state.configured_is_right => state.given = None,
            _ => {}
        }
    }

    /// Notes that the device took the PIN.
    pub(super) fn accepted(&self, loan: &Loan) {
        let mut state = lock(&self.state);
        state.refused = None;
        state.wanted = None;
        state.configured_is_right = !loan.given;
        state.proven = loan.given.then(|| loan.pin.clone());
    }

    /// Notes that the PIN served just now: something was done that needs one.
    pub(super) fn serve(&self) {
        if self.ttl.is_some() {
            self.served.store(now(), Relaxed);
        }
    }

    /// How long until the PIN that a person gave is to be forgotten. `None` when there is none, or no limit.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let ttl = self.ttl?;
        lock(&self.state).given.as_ref()?;
        let idle = Duration::from_millis(now().saturating_sub(self.served.load(Relaxed)));
        Some(ttl.saturating_sub(idle))
    }

    /// Forgets the PIN that a person gave, because its time is over.
    pub(super) fn forget_in_time(&self) {
        let ttl = self.ttl.unwrap_or_default();
        self.forget(format!("{} after its PIN had served last", in_words(ttl)));
    }

    /// Forgets the PIN that a person gave.
    pub(super) fn forget(&self, why: String) {
        let mut state = lock(&self.state);
        let was_given = state.given.is_some();
        *state = State {
            // What is configured is right or wrong as before.
            configured_is_right: state.configured_is_right,
            refused: state.refused.take().filter(|_| !was_given),
            forgotten: Some((SystemTime::now(), why)),
            must_lock: true,
            ..State::default()
        };
        drop(state);
        self.news.notify_one();
    }

    /// Whether the device is still to be locked. Said once.
    pub(super) fn must_lock(&self) -> bool {
        std::mem::take(&mut lock(&self.state).must_lock)
    }
}

/// Whether what a device said of a PIN means that it takes none any more.
fn says_blocked(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Locked | ErrorKind::WrongPin { tries_left: Some(0) })
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(pin: &Arc<Mutex<&'static str>>) -> Vault {
        let pin = pin.clone();
        let loader: PinLoader = Arc::new(move || Pin::new((*lock(&pin)).to_owned()).map(Some));
        Vault::new("hsm".into(), Some(loader), None, Arc::default())
    }

    fn pin(text: &str) -> Pin {
        Pin::new(text.into()).unwrap()
    }

    #[tokio::test]
    async fn a_refused_pin_is_lent_once_and_another_one_again() {
        let configured = Arc::new(Mutex::new("1111"));
        let vault = vault(&configured);
        let prompt = PinPrompt::default();
        let loan = vault.lend(&prompt).await.unwrap();
        vault.refused(&loan, Error::new(ErrorKind::WrongPin { tries_left: Some(2) }, "no"));
        drop(loan);
        assert_eq!(vault.lend(&prompt).await.err().unwrap().kind(), ErrorKind::Locked);
        assert_eq!(vault.wanted(), None, "what is configured is not asked for");
        *lock(&configured) = "2222";
        assert_eq!(vault.lend(&prompt).await.unwrap().pin.expose(), "2222");
        vault.give(&pin("3333"), true);
        let loan = vault.lend(&prompt).await.unwrap();
        assert!(loan.use_last_try && loan.pin.expose() == "3333");
        drop(loan);
        assert!(!vault.lend(&prompt).await.unwrap().use_last_try, "it holds for one attempt");
    }

    #[tokio::test]
    async fn a_mistyped_pin_takes_nothing_away() {
        let vault = vault(&Arc::new(Mutex::new("1111")));
        let prompt = PinPrompt::default();
        let no = || Error::new(ErrorKind::WrongPin { tries_left: Some(2) }, "no");
        let loan = vault.lend(&prompt).await.unwrap();
        vault.accepted(&loan);
        drop(loan);
        for right in ["1111", "2222"] {
            vault.give(&pin("9999"), false);
            let loan = vault.lend(&prompt).await.unwrap();
            assert_eq!(loan.pin.expose(), "9999");
            vault.refused(&loan, no());
            drop(loan);
            assert_eq!(vault.lend(&prompt).await.unwrap().pin.expose(), right, "configured, then given");
            assert!(vault.verdict(&pin("9999")).is_some());
            assert!(vault.verdict(&pin(right)).is_none());
            vault.give(&pin("2222"), false);
            let loan = vault.lend(&prompt).await.unwrap();
            vault.accepted(&loan);
        }
        // The device changed its mind about it: nothing is lent any more.
        let loan = vault.lend(&prompt).await.unwrap();
        vault.refused(&loan, no());
        drop(loan);
        assert_eq!(vault.lend(&prompt).await.err().unwrap().kind(), ErrorKind::Locked);
        assert_eq!(vault.wanted().unwrap().tries_left, Some(2), "a person can give another one");
    }

    #[tokio::test]
    async fn one_loan_at_a_time() {
        let vault = vault(&Arc::new(Mutex::new("1111")));
        let prompt = PinPrompt::default();
        let loan = vault.lend(&prompt).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(50), vault.lend(&prompt)).await;
        assert!(second.is_err(), "the first is still out");
        drop(loan);
        assert!(vault.lend(&prompt).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_gave_a_pin() {
        let vault = Vault::new("hsm".into(), None, None, Arc::default());
        assert_eq!(vault.lend(&PinPrompt::default()).await.err().unwrap().kind(), ErrorKind::PinRequired);
        assert_eq!(vault.wanted(), Some(PinPrompt::default()));
    }

    #[tokio::test]
    async fn a_pin_is_forgotten_after_it_served_last() {
        let ttl = Duration::from_millis(200);
        let vault = Vault::new("card".into(), None, Some(ttl), Arc::default());
        assert_eq!(vault.time_left(), None);
        vault.give(&pin("123456"), false);
        let loan = vault.lend(&PinPrompt::default()).await.unwrap();
        vault.accepted(&loan);
        drop(loan);
        // Served again and again, it is kept.
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            vault.serve();
            assert!(vault.lend(&PinPrompt::default()).await.is_ok());
        }
        tokio::time::sleep(ttl + Duration::from_millis(10)).await;
        assert_eq!(vault.time_left(), Some(Duration::ZERO));
        let error = vault.lend(&PinPrompt::default()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::PinRequired);
        assert!(error.what().contains("locked since 20"), "{error}");
        assert!(error.what().contains("200 ms after"), "{error}");
        assert!(vault.must_lock() && !vault.must_lock());
        vault.give(&pin("123456"), false);
        assert!(vault.lend(&PinPrompt::default()).await.is_ok());
    }

    #[test]
    fn times_in_words() {
        for (seconds, words) in [(900, "15 min"), (7200, "2 h"), (90, "90 s"), (1, "1 s")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
