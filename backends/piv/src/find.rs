//! Finding a card by its serial number, among all readers.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    time::Duration,
};

use pcsc::{Card, Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use signer_core::{Error, ErrorKind};

use crate::{
    codes::{self, Remedy},
    identity::{Identity, Number},
};

/// A connection to a card, shared with other programs.
pub(crate) struct Connection {
    /// `None` only while it is dropped.
    card: Option<Card>,
    pub(crate) identity: Identity,
}

impl Connection {
    /// Connects, and asks the card who it is; `None` when it has no PIV application.
    fn open(context: &Context, reader: &CStr) -> Result<Option<Self>, pcsc::Error> {
        let reader_name = reader.to_string_lossy().into_owned();
        let nobody = Identity { number: Number::Unknown, firmware: None, reader: reader_name };
        let mut this = Self::again(context, reader, nobody)?;
        let (card, nobody) = this.parts()?;
        let transaction = card.transaction()?;
        let identity = Identity::of(&transaction, &nobody.reader);
        drop(transaction); // leaves the card
        Ok(identity?.map(|identity| {
            this.identity = identity;
            this
        }))
    }

    /// Connects to a card that is known. It is not asked anything, so that no other program loses its login.
    fn again(context: &Context, reader: &CStr, identity: Identity) -> Result<Self, pcsc::Error> {
        let card = context.connect(reader, ShareMode::Shared, Protocols::ANY)?;
        Ok(Self { card: Some(card), identity })
    }

    /// The card, and who it is.
    pub(crate) fn parts(&mut self) -> Result<(&mut Card, &Identity), pcsc::Error> {
        Ok((self.card.as_mut().ok_or(pcsc::Error::InvalidHandle)?, &self.identity))
    }
}

impl Drop for Connection {
    /// The card is left as it is; dropped by itself, the handle would reset it under other programs.
    fn drop(&mut self) {
        if let Some(card) = self.card.take() {
            let _ = card.disconnect(Disposition::LeaveCard);
        }
    }
}

/// What was found in a reader. It holds for as long as the reader counts no other insertion.
#[derive(Clone, Debug)]
enum Seen {
    Piv(Identity),
    Other,
}

/// Looks for one card.
pub(crate) struct Finder {
    wanted: Option<Number>,
    context: Option<Context>,
    /// By reader, and by how often something was put in or taken out there: no card is disturbed twice.
    seen: HashMap<(CString, u32), Seen>,
}

impl Finder {
    pub(crate) fn new(wanted: Option<Number>) -> Self {
        Self { wanted, context: None, seen: HashMap::new() }
    }

    /// Asks this card again who it is before it is used.
    pub(crate) fn forget(&mut self, identity: &Identity) {
        self.seen.retain(|_, seen| !matches!(seen, Seen::Piv(known) if known == identity));
    }

    /// Connects to the service afresh next time.
    pub(crate) fn forget_service(&mut self) {
        self.context = None;
        // A new service counts anew.
        self.seen.clear();
    }

    /// Finds the card and connects to it.
    pub(crate) fn connect(&mut self) -> Result<Connection, Error> {
        // A service that was started anew is noticed by the first call, and answers the second one.
        match self.look() {
            Err(Unfound::Service(_)) => {
                self.forget_service();
                self.look()
            }
            other => other,
        }
        .map_err(|unfound| match unfound {
            Unfound::Service(code) => {
                self.forget_service();
                codes::error(code)
            }
            Unfound::Card(error) => error,
        })
    }

    /// Every PIV card that there is. Those that cannot be asked are left out.
    pub(crate) fn all(&mut self) -> Result<Vec<Identity>, Error> {
        let survey = self.survey(|_| false).map_err(|unfound| match unfound {
            Unfound::Service(code) => codes::error(code),
            Unfound::Card(error) => error,
        })?;
        Ok(survey.cards)
    }

    fn look(&mut self) -> Result<Connection, Unfound> {
        let wanted = self.wanted;
        let survey = self.survey(|identity| Some(identity.number) == wanted)?;
        if let Some(found) = survey.found {
            return Ok(found);
        }
        match (wanted, &survey.cards[..]) {
            // The only one is as good as named.
            (None, [only]) => {
                let only = only.clone();
                let survey = self.survey(|identity| *identity == only)?;
                survey.found.ok_or_else(|| Unfound::Card(codes::error(pcsc::Error::RemovedCard)))
            }
            _ => Err(Unfound::Card(survey.missing(wanted))),
        }
    }

    /// Looks at all readers until `is_wanted` says yes to a card.
    fn survey(&mut self, is_wanted: impl Fn(&Identity) -> bool) -> Result<Survey, Unfound> {
        let context = self.context()?;
        let mut readers = states(&context).map_err(Unfound::Service)?;
        let key = |state: &ReaderState| (state.name().to_owned(), state.event_count());
        self.seen.retain(|at, _| readers.iter().any(|state| key(state) == *at));
        // Where it was before, first.
        readers.sort_by_key(
            |state| !matches!(self.seen.get(&key(state)), Some(Seen::Piv(identity)) if is_wanted(identity)),
        );
        let mut survey = Survey { readers: readers.len(), ..Survey::default() };
        for state in readers.iter().filter(|state| state.event_state().contains(State::PRESENT)) {
            let connected = match self.seen.get(&key(state)) {
                Some(Seen::Other) => continue,
                Some(Seen::Piv(identity)) if !is_wanted(identity) => {
                    survey.cards.push(identity.clone());
                    continue;
                }
                Some(Seen::Piv(identity)) => known(&context, state, identity.clone()),
                None => Connection::open(&context, state.name()),
            };
            match connected {
                Ok(Some(connection)) => {
                    let identity = connection.identity.clone();
                    self.seen.insert(key(state), Seen::Piv(identity.clone()));
                    if is_wanted(&identity) {
                        survey.found = Some(connection);
                        return Ok(survey);
                    }
                    survey.cards.push(identity);
                }
                Ok(None) => {
                    self.seen.insert(key(state), Seen::Other);
                }
                Err(code) if codes::remedy(code) == Remedy::FindService => {
                    return Err(Unfound::Service(code));
                }
                Err(code) => survey.failed.push((state.name().to_string_lossy().into_owned(), code)),
            }
        }
        Ok(survey)
    }

    fn context(&mut self) -> Result<Context, Unfound> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        let context = Context::establish(Scope::System).map_err(Unfound::Service)?;
        self.context = Some(context.clone());
        Ok(context)
    }
}

/// Connects to a card that was asked before, if it is certain that nobody has put another in its place since.
fn known(
    context: &Context,
    state: &ReaderState,
    identity: Identity,
) -> Result<Option<Connection>, pcsc::Error> {
    let connection = Connection::again(context, state.name(), identity)?;
    let mut now = [ReaderState::new(state.name().to_owned(), State::UNAWARE)];
    context.get_status_change(Duration::ZERO, &mut now)?;
    if now[0].event_count() == state.event_count() {
        return Ok(Some(connection));
    }
    drop(connection);
    Connection::open(context, state.name())
}

enum Unfound {
    /// The service failed.
    Service(pcsc::Error),
    /// It works, and the card is not there.
    Card(Error),
}

/// What is in the readers.
#[derive(Default)]
struct Survey {
    found: Option<Connection>,
    cards: Vec<Identity>,
    /// Cards that could not be asked who they are.
    failed: Vec<(String, pcsc::Error)>,
    readers: usize,
}

impl Survey {
    /// Says which card is missing, and which are there.
    fn missing(&self, wanted: Option<Number>) -> Error {
        let there: Vec<_> = self.cards.iter().map(ToString::to_string).collect();
        if wanted.is_none() && !there.is_empty() {
            return Error::bad_request(format!("there are several PIV cards: {}", there.join(", ")))
                .next("write serial = NUMBER in the backend's table to say which one is meant");
        }
        let what = match wanted {
            Some(number) => format!("the PIV card with the serial number {number} is not there"),
            None => "there is no PIV card".to_owned(),
        };
        // One that could not be asked may be the one.
        if let Some((reader, code)) = self.failed.first() {
            let cause = codes::error(*code);
            let error =
                Error::new(cause.kind(), format!("{what}, unless it is in {reader}: {}", cause.what()));
            return error
                .vendor(cause.vendor_code().unwrap_or_default())
                .next(cause.advice().unwrap_or_default());
        }
        let next = if !there.is_empty() {
            format!("plug it in; there is {}", there.join(", "))
        } else if self.readers == 0 {
            "plug it in; there is no card reader".to_owned()
        } else {
            "plug it in; there is no other PIV card".to_owned()
        };
        Error::new(ErrorKind::DeviceGone, what).next(next)
    }
}

/// The readers, and what is in them now.
pub(crate) fn states(context: &Context) -> Result<Vec<ReaderState>, pcsc::Error> {
    let names = match context.list_readers_owned() {
        Err(pcsc::Error::NoReadersAvailable) => Vec::new(),
        other => other?,
    };
    let mut states: Vec<_> = names.into_iter().map(|name| ReaderState::new(name, State::UNAWARE)).collect();
    if states.is_empty() {
        return Ok(states);
    }
    match context.get_status_change(Duration::ZERO, &mut states) {
        // A reader that went away since the names were listed.
        Err(pcsc::Error::UnknownReader) => Ok(Vec::new()),
        other => other.map(|()| states),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::Firmware;

    fn card(serial: u32) -> Identity {
        let firmware = Some(Firmware::new(5, 7, 1));
        Identity { number: Number::Serial(serial), firmware, reader: "R".into() }
    }

    #[test]
    fn a_missing_card_is_named_and_those_that_are_there_too() {
        let survey = Survey { cards: vec![card(2), card(3)], readers: 2, ..Survey::default() };
        let error = survey.missing(Some(Number::Serial(1)));
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert_eq!(
            error.to_string(),
            "the PIV card with the serial number 1 is not there; \
             plug it in; there is YubiKey 5.7.1 serial 2, YubiKey 5.7.1 serial 3"
        );
        let error = survey.missing(None);
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.what().contains("serial 2, YubiKey 5.7.1 serial 3"), "{error}");
    }

    #[test]
    fn a_card_that_another_program_holds_may_be_the_one() {
        let failed = vec![("R 00".to_owned(), pcsc::Error::SharingViolation)];
        let error = Survey { failed, readers: 1, ..Survey::default() }.missing(Some(Number::Serial(1)));
        assert!(matches!(error.kind(), ErrorKind::Busy { .. }));
        assert!(error.to_string().contains("R 00") && error.to_string().contains("pcsc-shared"), "{error}");
    }
}
