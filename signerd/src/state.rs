//! What the daemon works with at a moment: configuration, grants, backends and the keys that were opened. A reload
//! makes a new one; requests finish on the one that they began with.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use signer_core::{Address, BackendName, Error, ErrorKind, KeyRef, KeySelector, Result};
use tokio::sync::watch;

use crate::{
    audit::{Audit, Event, KeyOf},
    compose::Policed,
    config::Config,
    events::Events,
    grants::{Grants, KeyNames, Operations, denied},
    group::Group,
    health::Board,
    identity::Identity,
    keys::{Entry, KeyTable},
    metrics::Metrics,
    place::Place,
    prompts::Listeners,
};

/// The daemon, as far as it outlives reloads.
pub(crate) struct Daemon {
    state: RwLock<Arc<State>>,
    generation: AtomicU64,
    pub(crate) events: Events,
    /// Watchers that answer for PIN requests.
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) board: Board,
    /// Where the use of keys is recorded, if it is.
    pub(crate) audit: Option<Arc<Audit>>,
    /// Becomes true when the daemon is asked to end.
    pub(crate) stopping: watch::Sender<bool>,
    /// Bytes of long messages that are held.
    pub(crate) memory: Arc<AtomicUsize>,
}

/// One generation of it.
pub(crate) struct State {
    pub(crate) generation: u64,
    pub(crate) config: Config,
    pub(crate) grants: Grants,
    pub(crate) places: BTreeMap<BackendName, Arc<Place>>,
    /// Configured keys that several places hold.
    pub(crate) groups: BTreeMap<BackendName, Arc<Group>>,
    pub(crate) keys: KeyTable,
    /// The daemon's, whatever this configuration says.
    pub(crate) audit: Option<Arc<Audit>>,
}

impl Daemon {
    pub(crate) fn new(state: State, events: Events, metrics: Arc<Metrics>) -> Arc<Self> {
        let audit = state.audit.clone();
        let this = Arc::new(Self {
            audit,
            generation: AtomicU64::new(state.generation),
            state: RwLock::new(Arc::new(state)),
            events,
            listeners: Arc::default(),
            metrics,
            board: Board::default(),
            stopping: watch::Sender::new(false),
            memory: Arc::default(),
        });
        if let Some(audit) = &this.audit {
            audit.belongs_to(&this);
        }
        this
    }

    /// What holds now.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which generation holds now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// From now on this holds. Returns what held before.
    pub(crate) fn replace(&self, state: State) -> Arc<State> {
        let generation = state.generation;
        let before = std::mem::replace(
            &mut *self.state.write().unwrap_or_else(PoisonError::into_inner),
            Arc::new(state),
        );
        self.generation.store(generation, SeqCst);
        before
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl State {
    pub(crate) fn new(
        generation: u64,
        config: Config,
        grants: Grants,
        places: BTreeMap<BackendName, Arc<Place>>,
        audit: Option<Arc<Audit>>,
    ) -> Self {
        let several = config.keys.iter().filter(|(_, key)| key.members.len() > 1);
        let groups = several.map(|(name, key)| {
            let group = Group::new(name, key, |member| match member {
                KeyRef::InBackend { backend, key } => {
                    (key.clone().into(), places.get(backend).cloned().into_iter().collect())
                }
                KeyRef::Address(address) => {
                    (KeySelector::Address(address.clone()), addressed(&places, address).cloned().collect())
                }
                KeyRef::Configured(_) => unreachable!("the configuration has no such members"),
            });
            (name.clone(), group)
        });
        let groups = groups.collect();
        Self { generation, config, grants, places, groups, keys: KeyTable::default(), audit }
    }

    /// A key that a caller may sign with.
    pub(crate) async fn signer(&self, caller: &Arc<Identity>, asked: &str) -> Result<Policed> {
        let entry = match self.keys.fresh(asked) {
            Some(entry) => entry,
            None => self.open(caller, Operations::SIGN, asked).await?,
        };
        let policed = entry.policed(&self.grants, caller, self.audit.as_ref());
        if policed.allowed.is_empty() {
            return Err(policed.deny(None).await);
        }
        if let Some(audit) = &self.audit
            && let Err(error) = audit.key().spare(self, &entry).await
        {
            audit.denied(policed.event());
            return Err(error);
        }
        Ok(policed)
    }

    /// A key that a caller may do something with. Whoever may not is told the same whether or not there is the key.
    pub(crate) async fn key(
        &self,
        caller: &Arc<Identity>,
        operation: Operations,
        asked: &str,
    ) -> Result<Arc<Entry>> {
        let entry = match self.keys.fresh(asked) {
            Some(entry) => entry,
            None => self.open(caller, operation, asked).await?,
        };
        if self.grants.allow(caller, operation, entry.names()) {
            Ok(entry)
        } else {
            Err(self.denied(caller, operation, asked, Some(entry.place())).await)
        }
    }

    /// The audit log's own key.
    pub(crate) async fn own_key(&self, asked: &str) -> Result<Arc<Entry>> {
        if self.keys.fresh(asked).is_none() {
            self.open_configured(asked).await?;
        }
        // Opened a moment ago, and changed since.
        self.keys
            .fresh(asked)
            .ok_or_else(|| Error::new(ErrorKind::DeviceGone, "the key is being changed").key(asked))
    }

    /// The place and the selector of a key that need not exist, for a caller who may do something with it.
    pub(crate) async fn selected(
        &self,
        caller: &Arc<Identity>,
        operation: Operations,
        asked: &str,
    ) -> Result<(Arc<Place>, KeySelector)> {
        let reference: KeyRef = asked.parse()?;
        if !self.grants.allow(caller, operation, &self.grants.names_as_asked(&reference)) {
            // Another way to name a key that the caller may use; that one has to exist.
            if !self.names_another_way(caller, operation, &reference) {
                return Err(self.denied(caller, operation, asked, None).await);
            }
            let entry = self.key(caller, operation, asked).await?;
            return Ok((entry.place().clone(), entry.info().name.clone().into()));
        }
        if let KeyRef::Configured(name) = &reference
            && let Some(group) = self.groups.get(name)
        {
            return Err(group.unchangeable());
        }
        match self.resolved(&reference)? {
            KeyRef::InBackend { backend, key } => Ok((self.place(&backend)?, key.into())),
            KeyRef::Address(_) => {
                let entry = self.key(caller, operation, asked).await?;
                Ok((entry.place().clone(), entry.info().name.clone().into()))
            }
            KeyRef::Configured(name) => Err(no_such_name(&name)),
        }
    }

    /// Opens a key and keeps it. The caller's grants are looked at before any device is; whether they cover the key
    /// that was found is for whoever calls.
    async fn open(&self, caller: &Arc<Identity>, operation: Operations, asked: &str) -> Result<Arc<Entry>> {
        let reference: KeyRef = asked.parse()?;
        let names = self.grants.names_as_asked(&reference);
        let open_to_caller = self.grants.allow(caller, operation, &names);
        if !open_to_caller && !self.names_another_way(caller, operation, &reference) {
            return Err(self.denied(caller, operation, asked, None).await);
        }
        let _turn = self.keys.opening(asked).await;
        if let Some(entry) = self.keys.fresh(asked) {
            return Ok(entry);
        }
        let within = if open_to_caller { None } else { Some((&**caller, operation)) };
        match self.find(within, asked, &reference, &names).await {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.keys.insert(&entry);
                Ok(entry)
            }
            // Who may not use the key by this name is not told that there is none.
            Err(e)
                if e.kind() == ErrorKind::NotFound
                    && !open_to_caller
                    && !self.may_search(caller, operation, &reference) =>
            {
                Err(self.denied(caller, operation, asked, None).await)
            }
            Err(e) => Err(e.key(asked)),
        }
    }

    /// Finds a key; one that is not asked for by name only in the backends that a caller may do something in.
    async fn find(
        &self,
        within: Option<(&Identity, Operations)>,
        asked: &str,
        reference: &KeyRef,
        names: &KeyNames,
    ) -> Result<Entry> {
        if let KeyRef::Configured(name) = reference
            && let Some(group) = self.groups.get(name)
        {
            group.open_any().await?;
            let entry = Entry::of_group(asked, names.clone(), group);
            return entry.ok_or_else(|| Error::internal("a member was opened, and is not known"));
        }
        let (places, selector) = match self.resolved(reference)? {
            KeyRef::InBackend { backend, key } => (vec![self.place(&backend)?], key.into()),
            KeyRef::Address(address) => {
                let open = |p: &&Arc<Place>| {
                    within.is_none_or(|(caller, op)| self.grants.allow_backend(caller, op, p.name()))
                };
                let places = addressed(&self.places, &address).filter(open).cloned().collect();
                (places, KeySelector::Address(address))
            }
            KeyRef::Configured(name) => return Err(no_such_name(&name)),
        };
        let (place, epoch, signer) = Place::find(&places, &selector).await?;
        let names = names.clone().and(self.grants.names(place.name(), &signer.info().name));
        Ok(Entry::new(asked, names, place, epoch, signer))
    }

    /// Opens a configured key, for its health alone.
    pub(crate) async fn open_configured(&self, name: &str) -> Result<()> {
        let reference: KeyRef = name.parse()?;
        let names = self.grants.names_as_asked(&reference);
        let _turn = self.keys.opening(name).await;
        if self.keys.fresh(name).is_none() {
            let entry = self.find(None, name, &reference, &names).await?;
            self.keys.insert(&Arc::new(entry));
        }
        Ok(())
    }

    /// Whether the health of such a name is still of interest.
    pub(crate) fn knows(&self, name: &str) -> bool {
        match name.split_once('/') {
            Some(("backend", name)) => self.places.keys().any(|n| n.as_str() == name),
            Some(("key", asked)) => {
                self.keys.has(asked) || self.config.keys.keys().any(|n| n.as_str() == asked)
            }
            _ => name.is_empty() || name == "audit",
        }
    }

    /// Whether a reference is no name but an identifier or an address, behind which there could be a key that the
    /// caller may use.
    fn names_another_way(&self, caller: &Identity, operation: Operations, reference: &KeyRef) -> bool {
        match reference {
            KeyRef::InBackend { backend, key } => {
                key.as_id().is_some() && self.grants.allow_backend(caller, operation, backend)
            }
            KeyRef::Address(_) => self.grants.allow_anything(caller, operation),
            KeyRef::Configured(_) => false,
        }
    }

    /// Whether a caller may be told that there is no such key: who may use every key of the backends in question.
    fn may_search(&self, caller: &Identity, operation: Operations, reference: &KeyRef) -> bool {
        let whole = |backend| self.grants.allow_whole_backend(caller, operation, backend);
        match reference {
            KeyRef::InBackend { backend, .. } => whole(backend),
            // It could have been in any of them.
            KeyRef::Address(_) => self.places.keys().all(whole),
            KeyRef::Configured(_) => false,
        }
    }

    /// What a configured name of one member stands for; anything else stands for itself.
    fn resolved(&self, reference: &KeyRef) -> Result<KeyRef> {
        match reference {
            KeyRef::Configured(name) => {
                let key = self.config.keys.get(name).and_then(|key| key.members.first());
                key.cloned().ok_or_else(|| no_such_name(name))
            }
            other => Ok(other.clone()),
        }
    }

    /// The backend that lacks its PIN, when a call of this kind with this key has failed for that.
    pub(crate) fn waiting_for_pin(
        &self,
        caller: &Identity,
        operation: Operations,
        asked: &str,
    ) -> Option<Arc<Place>> {
        let reference = self.resolved(&asked.parse().ok()?).ok()?;
        if let KeyRef::InBackend { backend, .. } = &reference {
            return self.places.get(backend).cloned();
        }
        // An address may be in any of them.
        let mut places =
            self.places.values().filter(|p| self.grants.allow_backend(caller, operation, p.name()));
        places.find(|place| place.wanted_pin().is_some()).cloned()
    }

    /// A backend by its name.
    pub(crate) fn place(&self, name: &BackendName) -> Result<Arc<Place>> {
        self.places.get(name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no backend {name}"))
                .next("`signer status` lists the backends that you may use")
        })
    }

    /// What a caller is told who lacks a grant.
    pub(crate) async fn denied(
        &self,
        caller: &Arc<Identity>,
        operation: Operations,
        asked: &str,
        place: Option<&Arc<Place>>,
    ) -> Error {
        if let Some(audit) = &self.audit {
            audit.denied(Event::of_caller(caller, operation, KeyOf::named(asked)));
        }
        let caller = caller.describe().await;
        if let Some(place) = place {
            place.metrics.denied(place.name(), operation);
        }
        tracing::info!(%caller, key = asked, operation = operation.name(), "denied");
        denied(&caller, operation, asked, None)
    }
}

/// The places that a key with such an address may be in.
fn addressed<'a>(
    places: &'a BTreeMap<BackendName, Arc<Place>>,
    address: &Address,
) -> impl Iterator<Item = &'a Arc<Place>> {
    let kind = address.backend_kind();
    places.values().filter(move |p| [kind, "driver"].contains(&p.kind()))
}

fn no_such_name(name: &BackendName) -> Error {
    Error::new(ErrorKind::NotFound, format!("no [[key]] is called {name}"))
        .key(name)
        .next("write backend/key, as `signer keys list` shows them, or add a [[key]] to the configuration")
}
