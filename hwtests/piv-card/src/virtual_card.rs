//! A card in a virtual reader: a thread that serves it, and a handle for whoever plays the user.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{Shutdown, TcpStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    apdu::Status,
    card::{Card, Finger},
    firmware::Firmware,
    keys::random,
    piv::{Counters, Stored},
    saved,
    vpcd::{self, Request, Slot},
};

/// How long a card is out of the slot at least. `pcscd` looks every 0.4 s: a hand that is faster than its eye leaves it with a
/// card that it has lost and does not look for.
const LEAST_ABSENCE: Duration = Duration::from_millis(600);

/// Which card it is.
#[derive(Clone, Debug)]
pub struct CardOptions {
    /// Its serial number.
    pub serial: u32,
    /// Its firmware.
    pub firmware: Firmware,
    /// Where it is kept between runs; without, each run begins with a new card.
    pub state: Option<PathBuf>,
}

impl CardOptions {
    /// A new card that is kept nowhere.
    pub fn new(serial: u32, firmware: Firmware) -> Self {
        Self { serial, firmware, state: None }
    }
}

/// What goes wrong with answers of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To how many commands.
    pub count: u32,
    /// Only to commands with this instruction byte, such as 0x87 for GENERAL AUTHENTICATE.
    pub instruction: Option<u8>,
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The command is done, the answer is random bytes with a random status.
    Garbage,
    /// The command is done, the data of the answer has lost its second half; the status is that of success or failure.
    Short,
    /// The command is done, of the answer one byte arrives: not even a status.
    Cut,
    /// The command is done, the answer comes after a while.
    Slow(Duration),
    /// The command is not done, this status is the answer.
    Status(u16),
    /// The command is not done, the card is pulled out instead.
    Remove,
    /// The command is done, the card is pulled out before it answers.
    RemoveAfter,
}

/// What can be known of the card at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardState {
    /// The card in the reader's slot, or in the hand of whoever pulled it out.
    pub serial: u32,
    /// Its firmware.
    pub firmware: String,
    /// Whether it is in the slot.
    pub inserted: bool,
    /// Whether the reader has given it power since it was put in.
    pub powered: bool,
    /// Whether it waits for a touch now.
    pub touch_awaited: bool,
    /// Tries left.
    pub pin_tries: u8,
    /// Tries left.
    pub puk_tries: u8,
    /// What has been done on it; a command that waits for a touch is not counted yet.
    #[serde(flatten)]
    pub counters: Counters,
}

/// A card in a reader's slot. It is pulled out when this is dropped.
pub struct VirtualCard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    slot: Slot,
    state: Option<PathBuf>,
    hand: Mutex<Hand>,
    changed: Condvar,
    cards: Mutex<Cards>,
}

/// The card in use, and others that were in the slot before.
struct Cards {
    card: Card,
    others: HashMap<u32, Card>,
    saved: Option<Stored>,
}

/// What the user does, and what the user sees. Held for moments only, unlike the card, which is held while it works.
struct Hand {
    inserted: bool,
    powered: bool,
    quit: bool,
    connection: Option<TcpStream>,
    /// Grows with every removal: a touch that is waited for ends with it.
    insertion: u64,
    removed: Option<Instant>,
    touch_awaited: bool,
    touched: bool,
    auto_touch: Option<Duration>,
    faults: VecDeque<Fault>,
    seen: Seen,
}

#[derive(Clone)]
struct Seen {
    serial: u32,
    firmware: Firmware,
    tries: (u8, u8),
    counters: Counters,
}

impl Seen {
    fn of(card: &Card) -> Self {
        Self {
            serial: card.serial(),
            firmware: card.firmware(),
            tries: card.tries_left(),
            counters: card.counters(),
        }
    }
}

impl VirtualCard {
    /// Puts a card into a slot, as soon as the reader is there.
    pub fn start(slot: Slot, options: CardOptions) -> io::Result<Self> {
        let card = saved::load(&options)?;
        let hand = Hand {
            inserted: true,
            powered: false,
            quit: false,
            connection: None,
            insertion: 0,
            removed: None,
            touch_awaited: false,
            touched: false,
            auto_touch: None,
            faults: VecDeque::new(),
            seen: Seen::of(&card),
        };
        let shared = Arc::new(Shared {
            slot,
            state: options.state,
            hand: Mutex::new(hand),
            changed: Condvar::new(),
            cards: Mutex::new(Cards { card, others: HashMap::new(), saved: None }),
        });
        let served = shared.clone();
        let (entered, result) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(format!("card {}", options.serial)).spawn(move || {
            let outcome = served.slot.enter();
            let failed = outcome.is_err();
            let _ = entered.send(outcome);
            if !failed {
                served.serve();
            }
        })?;
        result.recv().map_err(io::Error::other)??;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A finger on the card. False when no key waits for one; then it changes nothing.
    pub fn touch(&self) -> bool {
        let mut hand = self.shared.hand();
        if hand.touch_awaited {
            hand.touched = true;
            self.shared.changed.notify_all();
        }
        hand.touched
    }

    /// Every touch that a key waits for comes by itself after so long; none ends this.
    pub fn touch_by_itself(&self, after: Option<Duration>) {
        self.shared.hand().auto_touch = after;
    }

    /// Waits until a key waits for a touch, for so long at most.
    pub fn wait_for_touch_request(&self, patience: Duration) -> bool {
        self.wait(patience, |hand| hand.touch_awaited)
    }

    /// Waits until the reader has given power to the card, for so long at most.
    pub fn wait_for_power(&self, patience: Duration) -> bool {
        self.wait(patience, |hand| hand.powered)
    }

    fn wait(&self, patience: Duration, what: impl Fn(&Hand) -> bool) -> bool {
        let hand = self.shared.hand();
        let waited = self.shared.changed.wait_timeout_while(hand, patience, |hand| !what(hand));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Pulls the card out. A command that it works on gets no answer.
    pub fn remove(&self) {
        self.shared.remove();
    }

    /// Puts it in again, 0.6 s after it was pulled out at the soonest, so that the reader has seen it go. When
    /// [`Self::wait_for_power`] and then [`crate::Pcscd::wait_for_cards`] have returned, clients find it.
    pub fn insert(&self) {
        self.shared.hand().inserted = true;
        self.shared.changed.notify_all();
    }

    /// Out and in again: the card has lost its power, and the reader has seen it.
    pub fn reset(&self) {
        self.remove();
        self.insert();
    }

    /// Another card into the same slot: a new one, or the one with this serial number that was here before.
    pub fn swap(&self, serial: u32) {
        self.remove();
        {
            let mut cards = self.shared.cards();
            let firmware = cards.card.firmware();
            let next = cards.others.remove(&serial).unwrap_or_else(|| Card::new(serial, firmware));
            let before = std::mem::replace(&mut cards.card, next);
            cards.others.insert(before.serial(), before);
            self.shared.publish(&cards.card);
        }
        self.insert();
    }

    /// The next commands go wrong.
    pub fn fault(&self, fault: Fault) {
        self.shared.hand().faults.push_back(fault);
    }

    /// No more faults.
    pub fn heal(&self) {
        self.shared.hand().faults.clear();
    }

    /// So many tries are left from now on. Waits until the card has done what it does.
    pub fn set_tries_left(&self, pin: Option<u8>, puk: Option<u8>) {
        let mut cards = self.shared.cards();
        cards.card.set_tries_left(pin, puk);
        self.shared.publish(&cards.card);
    }

    /// What can be known now.
    pub fn state(&self) -> CardState {
        let hand = self.shared.hand();
        CardState {
            serial: hand.seen.serial,
            firmware: hand.seen.firmware.to_string(),
            inserted: hand.inserted,
            powered: hand.powered,
            touch_awaited: hand.touch_awaited,
            pin_tries: hand.seen.tries.0,
            puk_tries: hand.seen.tries.1,
            counters: hand.seen.counters,
        }
    }
}

impl Drop for VirtualCard {
    fn drop(&mut self) {
        self.shared.hand().quit = true;
        self.shared.remove();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cards(&self) -> MutexGuard<'_, Cards> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, card: &Card) {
        self.hand().seen = Seen::of(card);
        self.changed.notify_all();
    }

    fn remove(&self) {
        let mut hand = self.hand();
        hand.inserted = false;
        hand.powered = false;
        hand.insertion += 1;
        hand.removed = Some(Instant::now());
        if let Some(connection) = hand.connection.take() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// The life of the card, in and out of the reader.
    fn serve(&self) {
        loop {
            let hand = self.hand();
            let hand = self.changed.wait_while(hand, |hand| !hand.inserted && !hand.quit);
            let hand = hand.unwrap_or_else(PoisonError::into_inner);
            if hand.quit {
                return;
            }
            let insertion = hand.insertion;
            let absent = hand.removed.map_or(LEAST_ABSENCE, |at| at.elapsed());
            if absent < LEAST_ABSENCE {
                drop(self.changed.wait_timeout(hand, LEAST_ABSENCE.saturating_sub(absent)));
                continue;
            }
            drop(hand);
            match self.slot.connect() {
                Ok(stream) => self.serve_insertion(&stream, insertion),
                // The reader is not there yet, or no more.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// From one connection to its end.
    fn serve_insertion(&self, stream: &TcpStream, insertion: u64) {
        {
            let mut hand = self.hand();
            if !hand.inserted || hand.insertion != insertion {
                return;
            }
            hand.connection = stream.try_clone().ok();
        }
        self.cards().card.power_cycle();
        while let Ok(request) = vpcd::receive(stream) {
            let answer = match request {
                Request::PowerOff | Request::Reset => {
                    self.cards().card.power_cycle();
                    continue;
                }
                Request::PowerOn => {
                    self.powered(insertion);
                    continue;
                }
                Request::Atr => self.cards().card.atr().to_vec(),
                Request::Apdu(apdu) => match self.transmit(&apdu, insertion) {
                    Some(answer) => answer,
                    None => break,
                },
            };
            if vpcd::send(stream, &answer).is_err() {
                break;
            }
        }
        let mut hand = self.hand();
        if hand.insertion == insertion {
            hand.connection = None;
            hand.powered = false;
        }
    }

    fn powered(&self, insertion: u64) {
        let mut hand = self.hand();
        hand.powered = hand.insertion == insertion;
        self.changed.notify_all();
    }

    /// One command with whatever goes wrong with it; none when the card is pulled out meanwhile.
    fn transmit(&self, apdu: &[u8], insertion: u64) -> Option<Vec<u8>> {
        let fault = self.next_fault(apdu);
        match fault {
            Some(FaultKind::Status(status)) => return Some(status.to_be_bytes().to_vec()),
            Some(FaultKind::Remove) => {
                self.remove();
                return None;
            }
            _ => {}
        }
        let mut answer = {
            let mut cards = self.cards();
            let answer = cards.card.transmit(apdu, &Hold { shared: self, insertion });
            self.save(&mut cards);
            self.publish(&cards.card);
            answer
        };
        match fault {
            Some(FaultKind::Garbage) => answer = random(answer.len().max(8)),
            Some(FaultKind::Short) => {
                let status = answer.split_off(answer.len() - 2);
                answer.truncate(answer.len() / 2);
                answer.extend(status);
            }
            Some(FaultKind::Cut) => answer.truncate(1),
            Some(FaultKind::Slow(time)) => {
                let wait = self.changed.wait_timeout_while(self.hand(), time, |h| h.insertion == insertion);
                drop(wait);
            }
            Some(FaultKind::RemoveAfter) => self.remove(),
            _ => {}
        }
        (self.hand().insertion == insertion).then_some(answer)
    }

    fn next_fault(&self, apdu: &[u8]) -> Option<FaultKind> {
        let mut hand = self.hand();
        let at = hand
            .faults
            .iter()
            .position(|fault| fault.instruction.is_none_or(|wanted| apdu.get(1) == Some(&wanted)))?;
        let fault = &mut hand.faults[at];
        let kind = fault.kind;
        fault.count = fault.count.saturating_sub(1);
        if fault.count == 0 {
            hand.faults.remove(at);
        }
        Some(kind)
    }

    /// What a command has changed is written before its answer leaves.
    fn save(&self, cards: &mut Cards) {
        let Some(path) = &self.state else { return };
        if cards.saved.as_ref() == Some(cards.card.stored()) {
            return;
        }
        if let Err(error) = saved::write(path, &cards.card) {
            eprintln!("piv-card: {} cannot be written: {error}", path.display());
        }
        cards.saved = Some(cards.card.stored().clone());
    }
}

/// The finger of the handle.
struct Hold<'a> {
    shared: &'a Shared,
    insertion: u64,
}

impl Finger for Hold<'_> {
    fn wait(&self, limit: Duration) -> bool {
        let mut hand = self.shared.hand();
        hand.touch_awaited = true;
        hand.touched = false;
        self.shared.changed.notify_all();
        let start = Instant::now();
        loop {
            let wait = hand.auto_touch.unwrap_or(limit).min(limit).saturating_sub(start.elapsed());
            if hand.touched || hand.insertion != self.insertion || wait.is_zero() {
                break;
            }
            let woken = self.shared.changed.wait_timeout(hand, wait);
            hand = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let by_itself = hand.auto_touch.is_some_and(|after| start.elapsed() >= after);
        let touched = (hand.touched || by_itself) && hand.insertion == self.insertion;
        hand.touch_awaited = false;
        hand.touched = false;
        self.shared.changed.notify_all();
        touched
    }
}

impl From<Status> for FaultKind {
    fn from(status: Status) -> Self {
        Self::Status(status.0)
    }
}
