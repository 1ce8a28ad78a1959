//! One of the places that hold a key: how it is found, what became known of it, and whether it is asked now.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{Error, KeyInfo, KeySelector, Result, SignatureAlgorithm, Signer};

use crate::place::Place;

/// While one request finds out whether a rested member works again, others go elsewhere for so long.
const TRIAL: Duration = Duration::from_secs(1);

/// One of the places that hold the key.
pub(super) struct Member {
    /// As configured.
    pub(super) reference: String,
    pub(super) selector: KeySelector,
    /// Where it is looked for: one place for a name, all of its kind for an address.
    pub(super) places: Vec<Arc<Place>>,
    pub(super) now: Mutex<Now>,
    /// One opens it, the others wait.
    pub(super) opening: tokio::sync::Mutex<()>,
}

/// What is known of a member.
#[derive(Default)]
pub(super) struct Now {
    pub(super) opened: Option<Opened>,
    /// What it was when it was compared last.
    pub(super) known: Option<KeyInfo>,
    /// That it is another key, and so is not used.
    pub(super) refused: Option<Error>,
    /// Why it could not be opened.
    pub(super) reason: Option<Error>,
    pub(super) rest: Option<Rest>,
}

/// A member that can sign.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) place: Arc<Place>,
    /// The change of the backend's keys that was the last one when it was opened.
    pub(super) epoch: u64,
    pub(crate) signer: Arc<dyn Signer>,
}

/// A member that failed, and is left alone.
pub(super) struct Rest {
    pub(super) until: Instant,
    pub(super) times: u32,
    pub(super) error: Error,
    /// One request finds out whether it works again.
    pub(super) on_trial: bool,
}

/// How a member is, for people and for health.
pub(crate) enum Standing {
    Ok,
    /// Its backend is in trouble.
    Down(Error),
    /// It failed, and is left alone for a moment.
    Resting(Error),
    /// Its public key was not compared yet; why not, where that was tried.
    Unchecked(Option<Error>),
    /// It holds another key.
    Different(Error),
}

/// Who is asked before whom.
pub(super) enum Class {
    Well,
    Unchecked,
    Unwell,
    /// It holds another key, or one that does not sign like this.
    Never,
}

impl Member {
    pub(super) fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_in(&self, place: &Arc<Place>) -> bool {
        // An address is in one place only, once it was found.
        match &self.lock().opened {
            Some(opened) => Arc::ptr_eq(&opened.place, place),
            None => self.places.iter().any(|p| Arc::ptr_eq(p, place)),
        }
    }

    /// As it was opened, if no key of its backend was changed since.
    pub(super) fn fresh(&self) -> Option<Opened> {
        self.lock().opened.clone().filter(|o| o.epoch == o.place.epoch())
    }

    pub(super) async fn find(&self) -> Result<(Arc<Place>, u64, Arc<dyn Signer>)> {
        Place::find(&self.places, &self.selector).await.map_err(|e| e.key(&self.reference))
    }

    /// The trouble of the place where it is.
    fn trouble(&self) -> Option<Error> {
        let opened = self.lock().opened.as_ref().map(|o| o.place.clone());
        match opened {
            Some(place) => place.trouble(),
            None if self.places.len() == 1 => self.places[0].trouble(),
            None => None,
        }
    }

    pub(super) fn class(&self, algorithm: SignatureAlgorithm) -> Class {
        let mut now = self.lock();
        if now.known.as_ref().is_some_and(|known| !known.algorithms.contains(&algorithm)) {
            return Class::Never;
        }
        if now.refused.is_some() && now.opened.is_none() {
            return Class::Never;
        }
        let place = now.opened.as_ref().map(|o| &o.place).or(self.places.first());
        if place.is_some_and(|place| !place.is_healthy()) {
            return Class::Unwell;
        }
        let moment = Instant::now();
        if let Some(rest) = &mut now.rest {
            if rest.until > moment {
                return Class::Unwell;
            }
            // One finds out; the others go elsewhere meanwhile.
            (rest.until, rest.on_trial) = (moment + TRIAL, true);
            return Class::Well;
        }
        if now.known.is_some() { Class::Well } else { Class::Unchecked }
    }

    pub(super) fn standing(&self) -> Standing {
        let trouble = self.trouble();
        let now = self.lock();
        if let Some(error) = &now.refused {
            return Standing::Different(error.clone());
        }
        if let Some(error) = trouble {
            return Standing::Down(error);
        }
        match (&now.opened, &now.rest) {
            (None, _) if now.known.is_none() => Standing::Unchecked(now.reason.clone()),
            (_, Some(rest)) => Standing::Resting(rest.error.clone()),
            (Some(_), None) => Standing::Ok,
            (None, None) => Standing::Unchecked(now.reason.clone()),
        }
    }
}

impl Standing {
    /// The word for it, and why.
    pub(crate) fn told(&self) -> (&'static str, Option<&Error>) {
        match self {
            Self::Ok => ("ok", None),
            Self::Down(e) => ("down", Some(e)),
            Self::Resting(e) => ("resting", Some(e)),
            Self::Unchecked(e) => ("unchecked", e.as_ref()),
            Self::Different(e) => ("different", Some(e)),
        }
    }
}
