//! Watchers that put prompts before a person.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use signer_core::BackendName;
use tokio::sync::watch;

use crate::{
    grants::{Grants, Operations},
    identity::Identity,
};

/// All of them.
#[derive(Default)]
pub(crate) struct Listeners {
    all: Mutex<Vec<(u64, Interest)>>,
    next: AtomicU64,
    changed: watch::Sender<()>,
}

/// What a listener answers for.
#[derive(Clone)]
pub(crate) struct Interest {
    pub(crate) caller: Arc<Identity>,
    /// The only backend of interest.
    pub(crate) backend: Option<BackendName>,
    /// Only calls on its own connection.
    pub(crate) own: bool,
}

/// A listener's place in the list, for as long as it listens.
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    number: u64,
}

impl Listeners {
    pub(crate) fn add(self: &Arc<Self>, interest: Interest) -> Listener {
        let number = self.next.fetch_add(1, Relaxed);
        self.lock().push((number, interest));
        self.changed.send_replace(());
        Listener { listeners: self.clone(), number }
    }

    /// Whether somebody answers for a call of this caller, and may unlock the backend.
    pub(crate) fn answers(&self, grants: &Grants, backend: &BackendName, caller: &Arc<Identity>) -> bool {
        self.lock().iter().any(|(_, interest)| {
            interest.backend.as_ref().is_none_or(|wanted| wanted == backend)
                && (!interest.own || Arc::ptr_eq(&interest.caller, caller))
                && grants.allow_backend(&interest.caller, Operations::UNLOCK, backend)
        })
    }

    /// Hears of listeners that come and go.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Interest)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.lock().retain(|(number, _)| *number != self.number);
        self.listeners.changed.send_replace(());
    }
}
