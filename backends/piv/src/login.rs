//! PINs: the only place where one is tried, and it is tried once.

use signer_core::{Error, ErrorKind, Pin, PinLease, PinOutcome};

use crate::{
    applet::{Applet, PinState},
    fault::Fault,
    status::Status,
};

/// What cards leave the factory with.
const DEFAULT: &str = "123456";
/// Characters of a PIN (SP 800-73-4 part 2, section 2.4.3).
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=8;

/// What is known of the PIN over the transactions with one card.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// How many were left when somebody last looked.
    pub(crate) left: Option<u32>,
    /// A try that the card did not answer, because it went away: how many were left before it.
    unanswered: Option<u32>,
    /// The card took a PIN from here, and nothing since made it doubtful.
    pub(crate) accepted: bool,
    /// Whether the card knows how to take a verified PIN back, once that was tried.
    pub(crate) can_be_taken_back: Option<bool>,
}

impl Tries {
    /// Takes note of what the card says by itself.
    pub(crate) fn noted(&mut self, state: PinState) {
        if let PinState::Left(left) = state {
            if self.left.is_some_and(|before| left < before) {
                self.accepted = false;
            }
            self.left = Some(left);
        }
    }
}

/// A PIN for one request, and the lease that it came with.
pub(crate) struct PinUse {
    pin: Pin,
    use_last_try: bool,
    allow_default: bool,
    /// `None` when how the attempt ended was reported, or is reported by somebody else.
    lease: Option<Box<dyn PinLease>>,
}

impl PinUse {
    /// A PIN that the daemon lent.
    pub(crate) fn lent(lease: Box<dyn PinLease>, allow_default: bool) -> Self {
        Self {
            pin: lease.pin().clone(),
            use_last_try: lease.may_use_last_try(),
            allow_default,
            lease: Some(lease),
        }
    }

    /// A PIN that somebody gave just now.
    pub(crate) fn given(pin: Pin, use_last_try: bool, allow_default: bool) -> Self {
        Self { pin, use_last_try, allow_default, lease: None }
    }

    fn report(&mut self, outcome: PinOutcome) {
        if let Some(lease) = self.lease.take() {
            lease.report(outcome);
        }
    }
}

/// Verifies the PIN: the one call of VERIFY with one.
pub(crate) fn verify(applet: &mut Applet<'_>, pin: &mut PinUse) -> Result<(), Fault> {
    if let Err(error) = may_be_tried(applet, pin) {
        let is_refused = matches!(error.kind(), ErrorKind::WrongPin { .. });
        pin.report(if is_refused { PinOutcome::Refused(error.clone()) } else { PinOutcome::NotTried });
        return Err(error.into());
    }
    applet.is_the_same()?;
    // Should the card go away now, the next one who asks compares the tries before using another.
    if let PinState::Left(left) = applet.pin {
        applet.tries.unanswered = Some(left);
    }
    let status = applet.verify_pin(pin.pin.expose().as_bytes())?;
    applet.tries.unanswered = None;
    if status == Status::OK {
        applet.tries.accepted = true;
        // It was right, so all tries are there again.
        applet.tries.left = None;
        pin.report(PinOutcome::Accepted);
        return Ok(());
    }
    applet.tries.accepted = false;
    let error = status.error("verify the PIN").device(applet.identity);
    match status.tries_left() {
        None => pin.report(PinOutcome::NotTried),
        Some(left) => {
            applet.tries.left = Some(left);
            pin.report(PinOutcome::Refused(error.clone()));
        }
    }
    Err(error.into())
}

/// Whether a try may be spent on this PIN.
fn may_be_tried(applet: &mut Applet<'_>, pin: &PinUse) -> Result<(), Error> {
    let about = |error: Error| error.device(applet.identity);
    let tries_left = match applet.pin {
        PinState::Verified => None,
        PinState::Left(left) => Some(left),
    };
    if tries_left == Some(0) {
        return Err(about(Status::BLOCKED.error("verify the PIN")));
    }
    if !LENGTHS.contains(&pin.pin.expose().len()) {
        let error =
            Error::new(ErrorKind::WrongPin { tries_left }, "the PIN of a PIV card has 6 to 8 characters");
        return Err(about(error).next("this one was not tried; give the right one with `signer keys unlock`"));
    }
    if pin.pin.expose() == DEFAULT && !pin.allow_default {
        let error = Error::new(ErrorKind::Denied, "the PIN is the one that all cards leave the factory with");
        return Err(about(error).next(
            "set another one (`ykman piv access change-pin`), or write allow_defaults = true for a trial",
        ));
    }
    if let (Some(before), Some(left)) = (applet.tries.unanswered, tries_left)
        && left < before
        && !pin.use_last_try
    {
        // Whoever gives the PIN once more is sure of it.
        applet.tries.unanswered = None;
        let error = Error::new(
            ErrorKind::WrongPin { tries_left },
            "the card went away while it looked at the PIN, and has one try less now",
        );
        return Err(about(error)
            .next("it is not tried again by itself; give the right one with `signer keys unlock`"));
    }
    if tries_left == Some(1) && !pin.use_last_try {
        let error = Error::new(ErrorKind::Locked, "one try is left for the PIN: not used unless you say so");
        return Err(
            about(error).next("if you are sure of the PIN, give it with `signer keys unlock --use-last-try`")
        );
    }
    Ok(())
}
