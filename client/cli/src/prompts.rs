//! Prompts: PINs and touches that the daemon waits for, put before whoever started this program.
//!
//! A command that may meet them listens beside its own calls, on the same connection. Without anybody to ask it does not
//! listen, and the daemon, which nobody answers, fails the call at once.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use signer_core::{BackendName, Error, ErrorKind, Event, UnlockRequest};
use signerd_api::{Client, DaemonEvent, EventStream, Happening, PinEnd, PinRequest, Prompts};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    context::Context,
    failure::{Exit, Failure},
};

mod assuan;
mod means;
mod pinentry;
mod terminal;
mod text;
mod touch;

pub(crate) use means::Means;
pub(crate) use terminal::Terminal;
pub(crate) use text::{Question, asker};

use touch::Touches;
pub(crate) use touch::take_away;

/// Does a command's work, and puts prompts before a person meanwhile.
pub(crate) async fn attended(
    context: &Context,
    work: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let Some(means) = context.means() else { return work.await };
    context.expect_prompts();
    let client = context.client();
    // A daemon that is not there, or that knows no prompts: the command says what is to be said of that.
    let Ok(events) = client.watch_with(None, Prompts::Own).await else { return work.await };
    let mut work = std::pin::pin!(work);
    let mut prompter = Prompter::new(means.clone(), client, Prompts::Own, context);
    tokio::select! {
        biased;
        done = &mut work => return done,
        ended = prompter.run(events, |_| {}) => ended?,
        failure = ended_by_signal() => return Err(failure),
    }
    // The events have ended, and with them the daemon; the work finds out by itself.
    work.await
}

/// Waits for a signal that ends the program. The terminal has to be put in order first.
pub(crate) async fn ended_by_signal() -> Failure {
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    Failure::failed(Error::new(ErrorKind::TimedOut, "ended by a signal"))
}

/// Puts the prompts of one stream of events before a person, one after another.
pub(crate) struct Prompter {
    means: Means,
    client: Client,
    whose: Prompts,
    /// Requests that are not over, the oldest first.
    open: BTreeMap<u64, Request>,
    /// Those that were answered from here: later news of them are of no interest.
    done: Vec<u64>,
    touches: Touches,
}

/// A request as it was told last.
#[derive(Clone)]
struct Request {
    backend: BackendName,
    /// Shared with the question that is being asked.
    news: Rc<RefCell<PinRequest>>,
}

/// A question that is before a person.
struct Asking {
    number: u64,
    /// An answer is on its way to the device.
    answering: Rc<Cell<bool>>,
    question: Pin<Box<dyn Future<Output = Outcome>>>,
}

/// How a question ended.
enum Outcome {
    /// The request is over.
    Over,
    /// The person does not want to give the PIN.
    Cancelled,
    Failed(Failure),
}

impl Prompter {
    pub(crate) fn new(means: Means, client: Client, whose: Prompts, context: &Context) -> Self {
        let touches = Touches::new(means.clone(), context.transient());
        Self { means, client, whose, open: BTreeMap::new(), done: Vec::new(), touches }
    }

    /// Goes on until the events end. `each` hears of every event, too.
    pub(crate) async fn run(
        &mut self,
        mut events: EventStream,
        mut each: impl FnMut(&DaemonEvent),
    ) -> Result<(), Failure> {
        let mut asking: Option<Asking> = None;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            if asking.is_none()
                && let Some((number, request)) = self.open.first_key_value()
            {
                let answering = Rc::new(Cell::new(false));
                let question =
                    ask(self.means.clone(), self.client.clone(), request.clone(), answering.clone());
                asking = Some(Asking { number: *number, answering, question: Box::pin(question) });
                self.touches.hide();
            }
            tokio::select! {
                event = events.next() => match event {
                    None => return Ok(()),
                    // The work meets the same, and may try again.
                    Some(Err(_)) if self.whose == Prompts::Own => return Ok(()),
                    Some(event) => {
                        let event = event?;
                        each(&event);
                        let over = self.heard(event);
                        // What is being asked is over, and not by an answer from here: the question is taken back.
                        if let Some((over, end)) = over
                            && asking.as_ref().is_some_and(|a| a.number == over && !a.answering.get())
                        {
                            asking = None;
                            self.means.note(text::over(end));
                        }
                    }
                },
                outcome = async {
                    match &mut asking {
                        Some(asking) => asking.question.as_mut().await,
                        None => std::future::pending().await,
                    }
                } => {
                    let number = asking.take().map(|asking| asking.number).unwrap_or_default();
                    self.answered(number, outcome).await?;
                }
                _ = second.tick() => if asking.is_none() {
                    self.touches.show();
                },
                () = self.touches.dialog() => {}
            }
        }
    }

    /// Takes note of an event. The number of a request that is over now, and how it ended.
    fn heard(&mut self, event: DaemonEvent) -> Option<(u64, Option<PinEnd>)> {
        if !event.yours && self.whose == Prompts::Own {
            return None;
        }
        let backend: Option<BackendName> = event.backend.as_deref().and_then(|b| b.parse().ok());
        match event.happening {
            Happening::PinRequest(request) if !self.done.contains(&request.number) => {
                if let Some(known) = self.open.get(&request.number) {
                    known.news.replace(request);
                } else if let Some(backend) = backend {
                    let number = request.number;
                    self.open.insert(number, Request { backend, news: Rc::new(RefCell::new(request)) });
                }
                None
            }
            Happening::PinRequestEnded { number, end } => self.open.remove(&number).map(|_| (number, end)),
            Happening::Backend(Event::TouchRequired { prompt, caller, purpose, label }) => {
                self.touches.begin(&prompt, &caller, &purpose, label.as_deref());
                None
            }
            Happening::Backend(Event::TouchEnded { key }) => {
                self.touches.end(&key);
                None
            }
            _ => None,
        }
    }

    async fn answered(&mut self, number: u64, outcome: Outcome) -> Result<(), Failure> {
        let request = self.open.remove(&number);
        self.done.push(number);
        if self.done.len() > 64 {
            self.done.remove(0);
        }
        let failure = match outcome {
            Outcome::Over => return Ok(()),
            Outcome::Cancelled => Failure::from(Error::new(ErrorKind::PinRequired, "the PIN was not given")),
            Outcome::Failed(failure) => failure,
        };
        match (self.whose, request) {
            // Those who wait are told; the next one may be answered.
            (Prompts::All, Some(request)) => {
                self.means.note(failure.error().to_string());
                let _ = self.client.refuse_pin(&request.backend, number).await;
                Ok(())
            }
            _ => Err(failure),
        }
    }
}

/// Asks for a PIN until the device has taken one, or nobody wants to give it any more.
async fn ask(means: Means, client: Client, request: Request, answering: Rc<Cell<bool>>) -> Outcome {
    let mut wrong = None;
    loop {
        let (news, error) = (request.news.borrow().clone(), wrong.take());
        if news.tries_left == Some(1) {
            let error =
                Error::new(ErrorKind::Locked, "one try is left for the PIN: it is not asked for here")
                    .device(&news.device)
                    .next(format!(
                        "if you are sure of the PIN, give it with `signer keys unlock {} --use-last-try`",
                        request.backend
                    ));
            return Outcome::Failed(error.into());
        }
        let question = Question::new(&request.backend, &news, error);
        let pin = match means.ask(&question).await {
            Ok(Some(pin)) => pin,
            Ok(None) => return Outcome::Cancelled,
            Err(failure) => return Outcome::Failed(failure),
        };
        let given = UnlockRequest { pin, use_last_try: false };
        answering.set(true);
        let answered = client.answer_pin(&request.backend, news.number, given).await;
        answering.set(false);
        match answered {
            Ok(()) => return Outcome::Over,
            // Somebody else was quicker.
            Err(error) if error.kind() == ErrorKind::NotFound => return Outcome::Over,
            Err(error) => {
                let ErrorKind::WrongPin { tries_left } = error.kind() else {
                    return Outcome::Failed(error.into());
                };
                if tries_left == Some(0) {
                    return Outcome::Failed(error.into());
                }
                let mut news = request.news.borrow_mut();
                news.tries_left = tries_left.or(news.tries_left);
                wrong = Some(text::wrong(&error));
            }
        }
    }
}
