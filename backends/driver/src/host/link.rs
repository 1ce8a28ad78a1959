//! One driver process as the daemon sees it: requests in flight, what was not written yet, what came.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::net::UnixStream as StdStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use signer_core::{Error, ErrorKind, Event, PinPrompt, TouchListener, TouchPrompt};
use tokio::{
    net::UnixStream,
    sync::{Notify, oneshot},
};
use zeroize::Zeroize;

use super::{Sinks, Vault, lock, pins::Loan};
use crate::{
    convert, frame,
    pb::{self, from_driver::Body as Answer, to_driver::Body as Request},
};

/// More than this waiting to be written to one driver, and it is busy.
const MAX_UNWRITTEN: usize = 64 << 20;
/// The runtime is kept awake for the answer to a lone request that is expected within this time; one that takes longer is
/// not worth a busy processor.
const WORTH_SPINNING_NS: u32 = 150_000;
/// What is added to the expected time: the way to the driver and back.
const WAY: Duration = Duration::from_micros(50);

/// A driver that is silent for so long gets no more to do while another one is there.
const STUCK_AFTER: Duration = Duration::from_millis(250);
/// The load of a driver that seems to be stuck.
pub(super) const STUCK: u64 = u64::MAX;

/// A running driver.
pub(super) struct Link {
    backend: String,
    socket: UnixStream,
    pid: u32,
    state: Mutex<State>,
    /// There is something to write that nobody writes yet.
    unwritten: Notify,
    dead: AtomicBool,
    in_flight: AtomicUsize,
    /// Work in flight, in nanoseconds as it was estimated.
    load_ns: AtomicU64,
    /// When something was last heard, or the driver began to be busy; microseconds since `born`.
    progress_us: AtomicU64,
    born: Instant,
    /// PIN leases that wait for the vault: a driver that waits for one does not hang.
    waiting_leases: AtomicUsize,
    spin: bool,
    spin_wanted: Notify,
    /// How long the work is expected to take that is waited for.
    spin_ns: AtomicU32,
    spinning: AtomicBool,
    closed: Notify,
    vault: Arc<Vault>,
    sinks: Arc<Sinks>,
}

struct State {
    /// Whether the link ended.
    dead: bool,
    out: Vec<u8>,
    /// A PIN is among what is to be written: the place is overwritten when it is.
    secret: bool,
    pending: HashMap<u64, Pending, std::hash::BuildHasherDefault<IdHasher>>,
    next_id: u64,
    flush_asked: bool,
    inbox: frame::Inbox,
    /// Keys that the driver has opened.
    open: HashSet<u32>,
    /// Leases that are out to this driver.
    loans: HashMap<u64, Loan>,
}

/// Request numbers count up: they are their own hash.
#[derive(Default)]
struct IdHasher(u64);

impl std::hash::Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

struct Pending {
    answer: oneshot::Sender<Result<Answer, CallError>>,
    work_ns: u32,
    hang: Duration,
    /// Whom to tell that the device waits for a finger.
    touch: Option<TouchListener>,
}

/// Why a call has no answer of the kind that was hoped for.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// The driver answered with an error, or the request cannot be sent.
    Answer(Error),
    /// The driver ended before it answered; how.
    Died(String),
    /// The driver had ended before anything was sent to it.
    NotSent,
}

impl Link {
    pub(super) fn new(
        backend: &str,
        socket: StdStream,
        pid: u32,
        spin: bool,
        vault: &Arc<Vault>,
        sinks: &Arc<Sinks>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            backend: backend.to_owned(),
            socket: UnixStream::from_std(socket)?,
            pid,
            state: Mutex::new(State {
                dead: false,
                out: Vec::new(),
                secret: false,
                pending: HashMap::default(),
                next_id: 1,
                flush_asked: false,
                inbox: frame::Inbox::default(),
                open: HashSet::new(),
                loans: HashMap::new(),
            }),
            unwritten: Notify::new(),
            dead: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            load_ns: AtomicU64::new(0),
            progress_us: AtomicU64::new(0),
            born: Instant::now(),
            waiting_leases: AtomicUsize::new(0),
            spin,
            spin_wanted: Notify::new(),
            spin_ns: AtomicU32::new(0),
            spinning: AtomicBool::new(false),
            closed: Notify::new(),
            vault: vault.clone(),
            sinks: sinks.clone(),
        }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Work in flight, in nanoseconds as it is estimated; [`STUCK`] for a driver that has not said a word for a while
    /// although it has something to do, `None` for one that ended.
    pub(super) fn load_ns(&self) -> Option<u64> {
        if self.dead.load(Relaxed) {
            None
        } else if self.in_flight.load(Relaxed) > 0 && self.silence() > STUCK_AFTER {
            Some(STUCK)
        } else {
            Some(self.load_ns.load(Relaxed))
        }
    }

    fn silence(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_micros(self.progress_us.load(Relaxed)))
    }

    pub(super) fn has_open(&self, handle: u32) -> bool {
        lock(&self.state).open.contains(&handle)
    }

    pub(super) fn set_open(&self, handle: u32) {
        lock(&self.state).open.insert(handle);
    }

    /// Tells the driver to forget a key that nobody uses any more.
    pub(super) fn close_key(&self, handle: u32) {
        let mut state = lock(&self.state);
        if state.open.remove(&handle) && !state.dead {
            self.write(&mut state, 0, None, Request::Close(pb::Close { handle }));
        }
    }

    /// Sends a request and waits for its answer. Dropping the future gives up waiting; the driver may do it all the same.
    pub(super) async fn call(
        &self,
        request: Request,
        work_ns: u32,
        until: Option<Instant>,
        hang: Duration,
        touch: Option<TouchListener>,
    ) -> Result<Answer, CallError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if state.dead {
                return Err(CallError::NotSent);
            }
            if state.out.len() > MAX_UNWRITTEN {
                let busy = ErrorKind::Busy { retry_after: Duration::from_millis(50) };
                return Err(CallError::Answer(
                    Error::new(busy, "the driver has too much to read already").device(&self.backend),
                ));
            }
            let id = state.next_id;
            state.next_id += 1;
            state.pending.insert(id, Pending { answer: sender, work_ns, hang, touch });
            self.load_ns.fetch_add(u64::from(work_ns), Relaxed);
            let before = self.in_flight.fetch_add(1, Relaxed);
            if before == 0 {
                self.note_progress();
            }
            self.write(&mut state, id, until, request);
            if before == 0 && self.spin && work_ns < WORTH_SPINNING_NS && !self.spinning.load(Relaxed) {
                self.spin_ns.store(work_ns, Relaxed);
                self.spin_wanted.notify_one();
            }
        }
        receiver.await.unwrap_or_else(|_| Err(CallError::Died("ended".into())))
    }

    /// Puts a message where it is written: at once when the driver was idle, else together with what else waits.
    fn write(&self, state: &mut State, id: u64, until: Option<Instant>, body: Request) {
        let timeout_us =
            until.map_or(0, |t| (t.saturating_duration_since(Instant::now()).as_micros() as u64).max(1));
        let mut message = pb::ToDriver { id, timeout_us, body: Some(body) };
        frame::push(&mut state.out, &message);
        if let Some(Request::PinLease(lease)) = &mut message.body
            && let Some(pb::pin_lease::Answer::Pin(pin)) = &mut lease.answer
        {
            pin.zeroize();
            state.secret = true;
        }
        let alone = self.in_flight.load(Relaxed) <= 1;
        if alone && self.write_now(state) {
            return;
        }
        if !state.flush_asked {
            state.flush_asked = true;
            self.unwritten.notify_one();
        }
    }

    /// Writes as much as goes without waiting; whether nothing is left to write.
    fn write_now(&self, state: &mut State) -> bool {
        let mut written = 0;
        while written < state.out.len() {
            match self.socket.try_write(&state.out[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The driver is gone: the reader notices, and what was sent to it is given to another.
                Err(_) => written = state.out.len(),
            }
        }
        if written == state.out.len() {
            if std::mem::take(&mut state.secret) {
                state.out.zeroize();
            }
            state.out.clear();
            if state.out.capacity() > 1 << 20 {
                state.out = Vec::new();
            }
            return true;
        }
        state.out.drain(..written);
        false
    }

    fn note_progress(&self) {
        self.progress_us.store(self.born.elapsed().as_micros() as u64, Relaxed);
    }

    /// Serves the link until the driver ends, hangs or breaks the protocol; says how.
    pub(super) async fn run(self: &Arc<Self>) -> String {
        let reason = tokio::select! {
            reason = self.read_all() => reason,
            never = self.write_all() => never,
            never = self.keep_awake() => never,
            reason = self.watch_for_hang() => reason,
            () = self.closed.notified() => "was stopped".to_owned(),
        };
        self.bury(&reason);
        reason
    }

    /// Ends [`Self::run`].
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// Fails all that waits.
    fn bury(&self, reason: &str) {
        self.dead.store(true, Relaxed);
        let (pending, loans) = {
            let mut state = lock(&self.state);
            state.dead = true;
            state.out = Vec::new();
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.loans))
        };
        self.in_flight.store(0, Relaxed);
        self.load_ns.store(0, Relaxed);
        drop(loans);
        for pending in pending.into_values() {
            let _ = pending.answer.send(Err(CallError::Died(reason.to_owned())));
        }
    }

    async fn read_all(self: &Arc<Self>) -> String {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Err(e) = self.socket.readable().await {
                return format!("cannot be read from: {e}");
            }
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return "ended".to_owned(),
                Ok(n) => {
                    self.note_progress();
                    if let Err(e) = self.take(&buffer[..n]) {
                        return format!("broke the protocol: {e}");
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return format!("cannot be read from: {e}"),
            }
        }
    }

    /// Takes what was received apart and hands it to whoever waits for it.
    fn take(self: &Arc<Self>, bytes: &[u8]) -> Result<(), String> {
        let mut state = lock(&self.state);
        state.inbox.push(bytes);
        while let Some(message) = state.inbox.next::<pb::FromDriver>()? {
            let body = message.body.ok_or("a message is empty")?;
            if let Answer::TouchRequired(touch) = body {
                if let Some(listener) = state.pending.get(&message.id).and_then(|p| p.touch.as_ref()) {
                    listener.tell(&TouchPrompt {
                        device: touch.device,
                        key: touch.key,
                        timeout: Duration::from_millis(touch.timeout_ms),
                    });
                }
                continue;
            }
            if message.id != 0 {
                // An answer to a request that nobody waits for any more is dropped.
                if let Some(pending) = state.pending.remove(&message.id) {
                    self.in_flight.fetch_sub(1, Relaxed);
                    self.load_ns.fetch_sub(u64::from(pending.work_ns), Relaxed);
                    let _ = pending.answer.send(match body {
                        Answer::Error(error) => Err(CallError::Answer(convert::error_from_pb(error))),
                        answer => Ok(answer),
                    });
                }
                continue;
            }
            match body {
                Answer::PinRequest(request) => self.lend(request),
                Answer::PinOutcome(outcome) => {
                    if let Some(loan) = state.loans.remove(&outcome.lease) {
                        match outcome.outcome {
                            Some(pb::pin_outcome::Outcome::Accepted(_)) => self.vault.accepted(&loan),
                            Some(pb::pin_outcome::Outcome::Refused(error)) => {
                                self.vault.refused(&loan, convert::error_from_pb(error));
                            }
                            Some(pb::pin_outcome::Outcome::NotTried(_)) | None => {}
                        }
                    }
                }
                Answer::Event(event) => match event.what {
                    Some(pb::event::What::Up(_)) => self.sinks.tell(&Event::Up),
                    Some(pb::event::What::Down(error)) => {
                        self.sinks.tell(&Event::Down(convert::error_from_pb(error).device(&self.backend)));
                    }
                    None => {}
                },
                _ => return Err("an answer has no request".into()),
            }
        }
        Ok(())
    }

    /// Waits for the vault's turn and sends the PIN.
    fn lend(self: &Arc<Self>, request: pb::PinRequest) {
        let link = self.clone();
        self.waiting_leases.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            let prompt =
                PinPrompt { device: request.device, key: request.key, tries_left: request.tries_left };
            let loan = link.vault.lend(&prompt).await;
            let mut state = lock(&link.state);
            link.waiting_leases.fetch_sub(1, Relaxed);
            link.note_progress();
            if state.dead {
                return;
            }
            let mut lease = pb::PinLease { lease: request.lease, use_last_try: false, answer: None };
            match loan {
                Ok(loan) => {
                    lease.use_last_try = loan.use_last_try;
                    lease.answer = Some(pb::pin_lease::Answer::Pin(loan.pin.expose().as_bytes().to_vec()));
                    state.loans.insert(request.lease, loan);
                }
                Err(error) => {
                    lease.answer = Some(pb::pin_lease::Answer::Refused(convert::error_to_pb(&error)));
                }
            }
            link.write(&mut state, 0, None, Request::PinLease(lease));
        });
    }

    async fn write_all(&self) -> String {
        loop {
            self.unwritten.notified().await;
            loop {
                {
                    let mut state = lock(&self.state);
                    state.flush_asked = false;
                    if self.write_now(&mut state) {
                        break;
                    }
                }
                if self.socket.writable().await.is_err() {
                    // The reader says why.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Keeps the runtime polling while exactly one request is in flight, for a moment: going to sleep and being woken
    /// costs as much as a signature.
    async fn keep_awake(&self) -> String {
        loop {
            self.spin_wanted.notified().await;
            self.spinning.store(true, Relaxed);
            let start = Instant::now();
            let limit = Duration::from_nanos(self.spin_ns.load(Relaxed).into()) + WAY;
            while self.in_flight.load(Relaxed) == 1 && start.elapsed() < limit {
                // Whoever else wants this processor goes first: it may be the driver.
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            self.spinning.store(false, Relaxed);
        }
    }

    /// Returns when the driver has been silent for too long although it has something to do.
    async fn watch_for_hang(&self) -> String {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.in_flight.load(Relaxed) == 0 || self.waiting_leases.load(Relaxed) > 0 {
                continue;
            }
            let Some(limit) = lock(&self.state).pending.values().map(|p| p.hang).max() else {
                continue;
            };
            let silent = self.silence();
            if silent > limit {
                return format!("hung for {} s", silent.as_secs());
            }
        }
    }
}
