//! Who may try the PIN: one process at a time, and nobody after it was refused.

use std::sync::{Arc, Mutex};

use signer_core::{Error, ErrorKind, Event, Pin, PinPrompt, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{PinLoader, Sinks, lock};

/// A backend's PIN.
pub(super) struct Vault {
    backend: String,
    loader: Option<PinLoader>,
    state: Mutex<State>,
    turn: Arc<Semaphore>,
    sinks: Arc<Sinks>,
}

#[derive(Default)]
struct State {
    /// The PIN that a person gave, which goes before the configured one.
    given: Option<Pin>,
    /// Whether that person said that the last try may be used. It holds for one attempt.
    use_last_try: bool,
    /// The PIN that the device refused, and what it said.
    refused: Option<(Pin, Error)>,
    /// The last PIN that the device took, and whether a person gave it.
    proven: Option<(Pin, bool)>,
    /// The last PIN that a person gave and the device refused, and what it said.
    mistyped: Option<(Pin, Error)>,
}

/// A PIN that may be tried once. The next one is lent when this is dropped.
pub(super) struct Loan {
    pub(super) pin: Pin,
    pub(super) use_last_try: bool,
    given: bool,
    _turn: OwnedSemaphorePermit,
}

impl Vault {
    pub(super) fn new(backend: String, loader: Option<PinLoader>, sinks: Arc<Sinks>) -> Self {
        Self { backend, loader, state: Mutex::default(), turn: Arc::new(Semaphore::new(1)), sinks }
    }

    /// Takes a PIN that a person gave. Also takes back that an earlier one was refused.
    pub(super) fn give(&self, pin: Pin, use_last_try: bool) {
        let mut state = lock(&self.state);
        let proven = state.proven.take();
        *state = State { given: Some(pin), use_last_try, refused: None, proven, mistyped: None };
    }

    /// What the device said of a PIN that a person gave, if it refused it: whoever had its lease may have been somebody else.
    pub(super) fn verdict(&self, given: &Pin) -> Option<Error> {
        let state = lock(&self.state);
        state
            .mistyped
            .as_ref()
            .filter(|(pin, _)| pin.expose() == given.expose())
            .map(|(_, error)| error.clone())
    }

    /// Waits until nobody else tries the PIN and lends it.
    pub(super) async fn lend(&self, prompt: &PinPrompt) -> Result<Loan> {
        let turn = self
            .turn
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::internal("the PIN vault is closed"))?;
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
                .flatten(),
        };
        let Some(pin) = pin else {
            self.sinks.tell(&Event::PinRequired(prompt.clone()));
            return Err(Error::new(ErrorKind::PinRequired, "the device needs its PIN")
                .device(&self.backend)
                .next(format!("run `signer keys unlock {}`", self.backend)));
        };
        // A PIN that was refused is never tried again. Another one, in its file, is a new chance.
        if let Some((bad, error)) = refused
            && bad.expose() == pin.expose()
        {
            return Err(Error::new(ErrorKind::Locked, "the PIN was refused before and is not tried again")
                .device(&self.backend)
                .vendor(error.vendor_code().unwrap_or(error.kind().name()))
                .next(format!("run `signer keys unlock {}`, or mend the configured PIN", self.backend)));
        }
        Ok(Loan { pin, use_last_try, given: is_given, _turn: turn })
    }

    /// Notes that the device refused the PIN. A person who mistyped it takes nothing away: the one that the device took
    /// before is lent on, for devices that want it again for each signature.
    pub(super) fn refused(&self, loan: &Loan, error: Error) {
        let mut state = lock(&self.state);
        if loan.given {
            state.mistyped = Some((loan.pin.clone(), error.clone()));
        }
        state.refused = Some((loan.pin.clone(), error));
        match state.proven.take() {
            Some((pin, given)) if pin.expose() != loan.pin.expose() => {
                if loan.given {
                    state.given = given.then(|| pin.clone());
                }
                state.proven = Some((pin, given));
            }
            _ => {}
        }
    }

    /// Notes that the device took the PIN.
    pub(super) fn accepted(&self, loan: &Loan) {
        let mut state = lock(&self.state);
        state.refused = None;
        state.proven = Some((loan.pin.clone(), loan.given));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(pin: &Arc<Mutex<&'static str>>) -> Vault {
        let pin = pin.clone();
        let loader: PinLoader = Arc::new(move || Pin::new((*lock(&pin)).to_owned()).map(Some));
        Vault::new("hsm".into(), Some(loader), Arc::default())
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
        *lock(&configured) = "2222";
        assert_eq!(vault.lend(&prompt).await.unwrap().pin.expose(), "2222");
        vault.give(Pin::new("3333".into()).unwrap(), true);
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
            vault.give(Pin::new("9999".into()).unwrap(), false);
            let loan = vault.lend(&prompt).await.unwrap();
            assert_eq!(loan.pin.expose(), "9999");
            vault.refused(&loan, no());
            drop(loan);
            assert_eq!(vault.lend(&prompt).await.unwrap().pin.expose(), right, "configured, then given");
            assert!(vault.verdict(&Pin::new("9999".into()).unwrap()).is_some());
            assert!(vault.verdict(&Pin::new(right.into()).unwrap()).is_none());
            vault.give(Pin::new("2222".into()).unwrap(), false);
            let loan = vault.lend(&prompt).await.unwrap();
            vault.accepted(&loan);
        }
        // The device changed its mind about it: nothing is lent any more.
        let loan = vault.lend(&prompt).await.unwrap();
        vault.refused(&loan, no());
        drop(loan);
        assert_eq!(vault.lend(&prompt).await.err().unwrap().kind(), ErrorKind::Locked);
    }

    #[tokio::test]
    async fn one_loan_at_a_time() {
        let vault = vault(&Arc::new(Mutex::new("1111")));
        let prompt = PinPrompt::default();
        let loan = vault.lend(&prompt).await.unwrap();
        let second = tokio::time::timeout(std::time::Duration::from_millis(50), vault.lend(&prompt)).await;
        assert!(second.is_err(), "the first is still out");
        drop(loan);
        assert!(vault.lend(&prompt).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_gave_a_pin() {
        let vault = Vault::new("hsm".into(), None, Arc::default());
        assert_eq!(vault.lend(&PinPrompt::default()).await.err().unwrap().kind(), ErrorKind::PinRequired);
    }
}
