//! One card: a thread that owns the connection to it, and does one piece of work after another.
//!
//! The connection is shared with other programs and given up soon after the last piece of work, so that one that wants the
//! card for itself gets it. Each piece of work is one transaction.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use signer_core::{Error, ErrorKind, Event, EventSink, Result};

use crate::{
    applet::Applet,
    codes::{self, Remedy},
    fault::Fault,
    find::{Connection, Finder},
    identity::{Identity, Number},
    login::Tries,
};

/// How long a connection is kept after the last piece of work.
const IDLE: Duration = Duration::from_secs(1);
/// How long another program may hold the card before whoever waits is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whoever waits has waited for this long before being told: the card may be free any moment.
const GRACE: Duration = Duration::from_millis(300);
/// How long the card is worked with without a pause. Programs that wait for it look every 100 ms whether it is free, and would
/// otherwise wait for ever.
const SHIFT: Duration = Duration::from_secs(2);
/// A pause in which they get their turn.
const BREAK: Duration = Duration::from_millis(110);
/// How often a piece of work is begun again when the card or the service went away in the middle.
const ATTEMPTS: u32 = 4;
/// What a card needs that is being given power, and a service that is ending.
const PAUSE: Duration = Duration::from_millis(40);

/// A card, as the rest of the backend sees it.
#[derive(Clone)]
pub(crate) struct Device {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

struct Shared {
    backend: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The card as it was last seen.
    identity: Option<Identity>,
    tries_left: Option<u32>,
    accepted: bool,
    /// Since when the thread waits for another program to let the card go.
    blocked_since: Option<Instant>,
    sinks: Vec<EventSink>,
}

enum Message {
    Work(Job),
    /// Something happened in the readers.
    Look,
    /// That a PIN was accepted counts for nothing any more.
    Lock,
}

type Attempt = Box<dyn FnMut(&mut Applet<'_>) -> Result<(), Fault> + Send>;

struct Job {
    attempt: Attempt,
    fail: Box<dyn FnOnce(Error) + Send>,
    progress: Arc<AtomicU8>,
}

/// A job's progress: whoever asked may go away until it has begun.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

impl Device {
    /// Starts the thread. The card need not be there.
    pub(crate) fn start(backend: &str, wanted: Option<Number>) -> Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let shared = Arc::new(Shared { backend: backend.to_owned(), state: Mutex::default() });
        let owner = Owner {
            shared: shared.clone(),
            finder: Finder::new(wanted),
            connection: None,
            tries: Tries::default(),
            changing: false,
            shift: Instant::now(),
            told: None,
        };
        std::thread::Builder::new()
            .name("card".into())
            .spawn(move || owner.run(&inbox))
            .map_err(|e| Error::internal("a thread cannot be started").vendor(e))?;
        Ok(Self { messages, shared })
    }

    /// Does something in one transaction, and waits for it. `Busy` when another program does not let the card go,
    /// `TimedOut` when it has not begun at the deadline.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        until: Option<Instant>,
        mut work: impl FnMut(&mut Applet<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        let done = sender.clone();
        let progress = Arc::new(AtomicU8::new(WAITING));
        let job = Job {
            attempt: Box::new(move |applet| {
                let value = work(applet)?;
                let _ = done.send(Ok(value));
                Ok(())
            }),
            fail: Box::new(move |error| {
                let _ = sender.send(Err(error));
            }),
            progress: progress.clone(),
        };
        let ended = || Error::internal("the card's thread has ended");
        let asked = Instant::now();
        self.messages.send(Message::Work(job)).map_err(|_| ended())?;
        loop {
            match receiver.recv_timeout(Duration::from_millis(20)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let give_up = if until.is_some_and(|t| t <= Instant::now()) {
                Error::new(ErrorKind::TimedOut, "the deadline passed before the card was free")
            } else if asked.elapsed() > GRACE && self.is_held() {
                Error::new(
                    ErrorKind::Busy { retry_after: Duration::from_secs(1) },
                    "another program holds the card and does not let it go",
                )
                .next("end it, or wait until it is done")
            } else {
                continue;
            };
            if progress.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Err(self.about(give_up));
            }
        }
    }

    fn is_held(&self) -> bool {
        self.state().blocked_since.is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// Looks at the readers now, and tells who watches if the card came or went.
    pub(crate) fn look(&self) {
        let _ = self.messages.send(Message::Look);
    }

    /// Forgets that the card took a PIN: health asks for one again.
    pub(crate) fn lock(&self) {
        self.state().accepted = false;
        let _ = self.messages.send(Message::Lock);
    }

    pub(crate) fn add_sink(&self, sink: EventSink) {
        self.state().sinks.push(sink);
    }

    /// The card's name for people: as it was last seen.
    pub(crate) fn name(&self) -> String {
        self.state().identity.as_ref().map_or_else(|| self.shared.backend.clone(), ToString::to_string)
    }

    /// Tries left for the PIN, as far as it is known.
    pub(crate) fn tries_left(&self) -> Option<u32> {
        self.state().tries_left
    }

    /// Whether the card took a PIN from here, and nothing since made that doubtful.
    pub(crate) fn pin_was_accepted(&self) -> bool {
        self.state().accepted
    }

    /// Adds to an error which card it was about.
    pub(crate) fn about(&self, error: Error) -> Error {
        error.device(self.name())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// What lives on the thread.
struct Owner {
    shared: Arc<Shared>,
    finder: Finder,
    connection: Option<Connection>,
    tries: Tries,
    /// The piece of work used the management key: it may have changed something.
    changing: bool,
    /// When the card was last left to others for a while.
    shift: Instant,
    /// Whether the card was there when it was last told.
    told: Option<bool>,
}

impl Owner {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            if self.shift.elapsed() > SHIFT {
                std::thread::sleep(BREAK);
                self.shift = Instant::now();
            }
            let idle = Instant::now();
            let message = inbox.recv_timeout(IDLE);
            if idle.elapsed() > BREAK {
                self.shift = Instant::now();
            }
            match message {
                Ok(Message::Work(job)) => self.work(job),
                Ok(Message::Look) => self.look(),
                Ok(Message::Lock) => self.tries.accepted = false,
                Err(RecvTimeoutError::Timeout) => {
                    self.connection = None;
                    // Nothing to give up any more: sleep until there is something to do.
                    let message = inbox.recv();
                    self.shift = Instant::now();
                    match message {
                        Ok(Message::Work(job)) => self.work(job),
                        Ok(Message::Look) => self.look(),
                        Ok(Message::Lock) => self.tries.accepted = false,
                        Err(_) => return,
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, mut job: Job) {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            // A panic is a defect: it costs its request, not the card.
            let attempt = std::panic::catch_unwind(AssertUnwindSafe(|| self.attempt(&mut job)));
            let fault = match attempt {
                Ok(Ok(())) => return,
                Ok(Err(fault)) => fault,
                Err(_) => {
                    self.connection = None;
                    Fault::Answer(Error::internal("the driver panicked"))
                }
            };
            match fault {
                Fault::Answer(error) => return (job.fail)(self.about(error)),
                Fault::Reader(code) => {
                    if let Some(connection) = self.connection.take()
                        && code != pcsc::Error::ResetCard
                    {
                        self.finder.forget(&connection.identity);
                    }
                    let remedy = codes::remedy(code);
                    if remedy == Remedy::FindService {
                        self.finder.forget_service();
                    }
                    // Nothing was changed yet, or nobody knows.
                    let may_repeat = !self.changing;
                    if left == 0 || !may_repeat || remedy == Remedy::GiveUp {
                        let error = self.about(codes::error(code));
                        return (job.fail)(if may_repeat { error } else { error.may_have_happened() });
                    }
                    if remedy == Remedy::FindCard && code != pcsc::Error::ResetCard {
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        }
    }

    /// One transaction with the card.
    fn attempt(&mut self, job: &mut Job) -> Result<(), Fault> {
        self.changing = false;
        self.connect()?;
        let Some(connection) = self.connection.as_mut() else {
            return Err(Error::internal("the connection to the card is lost").into());
        };
        let (card, identity) = connection.parts()?;
        lock(&self.shared.state).blocked_since = Some(Instant::now());
        let transaction = card.transaction();
        lock(&self.shared.state).blocked_since = None;
        let transaction = transaction?;
        if job.progress.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire)
            == Err(ABANDONED)
        {
            return Ok(());
        }
        let result = Applet::open(&transaction, identity, &mut self.tries).and_then(|mut applet| {
            let done = (job.attempt)(&mut applet);
            self.changing = applet.is_managing();
            // If this fails, the card is gone, and its state with it: the next transaction finds out.
            let _ = applet.leave();
            done
        });
        drop(transaction); // leaves the card
        let mut state = lock(&self.shared.state);
        state.tries_left = self.tries.left;
        state.accepted = self.tries.accepted;
        drop(state);
        result
    }

    fn connect(&mut self) -> Result<(), Fault> {
        if self.connection.is_some() {
            return Ok(());
        }
        lock(&self.shared.state).blocked_since = Some(Instant::now());
        let found = self.finder.connect();
        lock(&self.shared.state).blocked_since = None;
        let connection = found.inspect_err(|error| self.tell(Err(error)))?;
        let identity = connection.identity.clone();
        let before = lock(&self.shared.state).identity.replace(identity.clone());
        if before.is_some_and(|before| before.number != identity.number) {
            self.tries = Tries::default();
        }
        self.connection = Some(connection);
        self.tell(Ok(()));
        Ok(())
    }

    /// Looks whether the card is there.
    fn look(&mut self) {
        if self.told.is_none() && lock(&self.shared.state).sinks.is_empty() {
            return;
        }
        // The connection says nothing about a card that was taken out; another one is soon made.
        self.connection = None;
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| self.connect()));
    }

    /// Tells who watches, if it is something new.
    fn tell(&mut self, found: Result<(), &Error>) {
        let is_there = found.is_ok();
        if self.told == Some(is_there) {
            return;
        }
        self.told = Some(is_there);
        let sinks = lock(&self.shared.state).sinks.clone();
        for sink in sinks {
            sink(match found {
                Ok(()) => Event::Up,
                Err(error) => Event::Down(error.clone()),
            });
        }
    }

    fn about(&self, error: Error) -> Error {
        let state = lock(&self.shared.state);
        match &state.identity {
            Some(identity) => error.device(identity),
            None => error.device(&self.shared.backend),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
