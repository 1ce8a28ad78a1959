//! PIN leases over the link: the daemon decides who may try a PIN, and when.

use std::{
    sync::{Arc, TryLockError, atomic::Ordering},
    time::Duration,
};

use signer_core::{BoxFuture, Error, ErrorKind, Pin, PinLease, PinOutcome, PinPrompt, PinSource, Result};

use super::{Link, lock};
use crate::{convert, pb};

pub(super) struct LinkPins {
    link: Arc<Link>,
}

impl LinkPins {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Asks the daemon and waits for its answer. The thread that asks may be the only one there is, so while nobody
    /// else reads from the socket, it does; requests that come meanwhile are kept for later.
    fn ask(&self, prompt: &PinPrompt) -> Result<Box<dyn PinLease>> {
        let number = self.link.next_lease.fetch_add(1, Ordering::Relaxed);
        let request = pb::PinRequest {
            lease: number,
            device: prompt.device.clone(),
            key: prompt.key.clone(),
            tries_left: prompt.tries_left,
        };
        self.link.answer(0, pb::from_driver::Body::PinRequest(request));
        let lease = loop {
            if let Some(lease) = lock(&self.link.leases).remove(&number) {
                break lease;
            }
            match self.link.input.try_lock() {
                Ok(mut input) => {
                    // It may have come between the look above and the lock.
                    if lock(&self.link.leases).contains_key(&number) {
                        continue;
                    }
                    self.link.read(&mut input).ok_or_else(gone)?;
                }
                Err(TryLockError::Poisoned(_)) => return Err(gone()),
                Err(TryLockError::WouldBlock) => {
                    let leases = lock(&self.link.leases);
                    let arrived = self.link.lease_arrived.wait_timeout(leases, Duration::from_millis(5));
                    drop(arrived);
                }
            }
        };
        match lease.answer {
            Some(pb::pin_lease::Answer::Pin(pin)) => {
                let text = String::from_utf8(pin).map_err(|_| Error::bad_request("the PIN is not UTF-8"))?;
                let pin = Pin::new(text)?;
                let use_last_try = lease.use_last_try;
                Ok(Box::new(LinkLease {
                    link: self.link.clone(),
                    number,
                    pin,
                    use_last_try,
                    reported: false,
                }))
            }
            Some(pb::pin_lease::Answer::Refused(error)) => Err(convert::error_from_pb(error)),
            None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::DeviceGone, "the daemon is gone")
}

impl PinSource for LinkPins {
    fn lease<'a>(&'a self, prompt: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>> {
        Box::pin(async move { self.ask(prompt) })
    }
}

struct LinkLease {
    link: Arc<Link>,
    number: u64,
    pin: Pin,
    use_last_try: bool,
    reported: bool,
}

impl LinkLease {
    fn send(&mut self, outcome: pb::pin_outcome::Outcome) {
        self.reported = true;
        let outcome = pb::PinOutcome { lease: self.number, outcome: Some(outcome) };
        self.link.answer(0, pb::from_driver::Body::PinOutcome(outcome));
    }
}

impl PinLease for LinkLease {
    fn pin(&self) -> &Pin {
        &self.pin
    }

    fn may_use_last_try(&self) -> bool {
        self.use_last_try
    }

    fn report(mut self: Box<Self>, outcome: PinOutcome) {
        self.send(match outcome {
            PinOutcome::Accepted => pb::pin_outcome::Outcome::Accepted(pb::Done {}),
            PinOutcome::Refused(error) => pb::pin_outcome::Outcome::Refused(convert::error_to_pb(&error)),
            PinOutcome::NotTried => pb::pin_outcome::Outcome::NotTried(pb::Done {}),
        });
    }
}

impl Drop for LinkLease {
    fn drop(&mut self) {
        if !self.reported {
            self.send(pb::pin_outcome::Outcome::NotTried(pb::Done {}));
        }
    }
}
