//! Keys that were asked for: opened once, found again in a table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use signer_core::{KeyInfo, Signer};

use crate::{
    audit::Audit,
    compose::{self, Policed},
    grants::{AlgorithmSet, Grants, KeyNames, Permission},
    group::Group,
    identity::Identity,
    place::Place,
};

/// A key that was opened for one way of asking for it.
pub(crate) struct Entry {
    /// As asked.
    asked: Arc<str>,
    /// `backend/key`, version included; the configured name of a key of several members.
    reference: String,
    /// Of the public key, `sha256:…`.
    fingerprint: String,
    names: KeyNames,
    /// Where it is; of several members, that of the first.
    place: Arc<Place>,
    /// Its members, where several places hold it.
    group: Option<Arc<Group>>,
    /// The change of the backend's keys, or the news of the members, that was the last one when it was opened.
    epoch: u64,
    signer: Arc<dyn Signer>,
    /// What was decided for callers, most recent last.
    decisions: Mutex<Vec<(Arc<Identity>, Permissions)>>,
}

/// What a caller may sign with, and by which grants.
pub(crate) type Permissions = Arc<[Permission]>;

/// So many decisions are kept for a key.
const MAX_DECISIONS: usize = 32;

impl Entry {
    pub(crate) fn new(
        asked: &str,
        names: KeyNames,
        place: Arc<Place>,
        epoch: u64,
        signer: Arc<dyn Signer>,
    ) -> Self {
        let signer = compose::signer(&place, signer);
        Self {
            asked: asked.into(),
            reference: format!("{}/{}", place.name(), signer.info().name),
            fingerprint: format!("{:?}", signer.info().public_key.fingerprint()),
            names,
            place,
            group: None,
            epoch,
            signer,
            decisions: Mutex::default(),
        }
    }

    /// A key that several places hold. `None` when none of them was opened yet.
    pub(crate) fn of_group(asked: &str, names: KeyNames, group: &Arc<Group>) -> Option<Self> {
        let place = group.place()?.clone();
        let epoch = group.epoch();
        let signer = compose::failover(group, &place.metrics)?;
        Some(Self {
            asked: asked.into(),
            reference: group.name().to_string(),
            fingerprint: format!("{:?}", signer.info().public_key.fingerprint()),
            names,
            signer,
            place,
            group: Some(group.clone()),
            epoch,
            decisions: Mutex::default(),
        })
    }

    pub(crate) fn reference(&self) -> &str {
        &self.reference
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn asked(&self) -> &Arc<str> {
        &self.asked
    }

    pub(crate) fn names(&self) -> &KeyNames {
        &self.names
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Its members, where several places hold it.
    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// Where a device waits to be touched, and for which of its keys. Of several members the prompt says which.
    pub(crate) fn touched(&self, key: &str) -> (Arc<Place>, String) {
        let found = self.group.as_ref().and_then(|group| {
            let (backend, key) = key.split_once('/')?;
            Some((group.place_of(backend)?.clone(), key.to_owned()))
        });
        found.unwrap_or_else(|| (self.place.clone(), key.to_owned()))
    }

    /// The key with everything but grants around it.
    pub(crate) fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    pub(crate) fn info(&self) -> &KeyInfo {
        self.signer.info()
    }

    /// Whether no key of its backend was changed since it was opened.
    pub(crate) fn is_fresh(&self) -> bool {
        self.epoch == self.group.as_ref().map_or_else(|| self.place.epoch(), |group| group.epoch())
    }

    /// The key as a caller may use it; with an empty set of algorithms if not at all.
    pub(crate) fn policed(
        self: &Arc<Self>,
        grants: &Grants,
        caller: &Arc<Identity>,
        audit: Option<&Arc<Audit>>,
    ) -> Policed {
        let permissions = self.permissions(grants, caller);
        let allowed = permissions.iter().fold(AlgorithmSet::NONE, |set, p| set | p.algorithms);
        Policed {
            entry: self.clone(),
            caller: caller.clone(),
            allowed,
            permissions,
            audit: audit.cloned(),
            label: None,
        }
    }

    fn permissions(&self, grants: &Grants, caller: &Arc<Identity>) -> Permissions {
        let mut decisions = lock(&self.decisions);
        if let Some((_, allowed)) =
            decisions.iter().rev().find(|(c, _)| Arc::ptr_eq(c, caller) || c == caller)
        {
            return allowed.clone();
        }
        let allowed: Permissions = grants.permissions(caller, &self.names).into();
        if decisions.len() >= MAX_DECISIONS {
            decisions.remove(0);
        }
        decisions.push((caller.clone(), allowed.clone()));
        allowed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys by what was asked for.
#[derive(Default)]
pub(crate) struct KeyTable {
    entries: RwLock<HashMap<Arc<str>, Arc<Entry>>>,
    /// One opens a key, the others who want it wait.
    opening: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
}

/// So many ways of asking are kept; after that the table begins anew.
const MAX_ENTRIES: usize = 8192;

impl KeyTable {
    /// The key that was opened for this before, if it still is the one.
    pub(crate) fn fresh(&self, asked: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(asked).filter(|entry| entry.is_fresh()).cloned()
    }

    pub(crate) fn has(&self, asked: &str) -> bool {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).contains_key(asked)
    }

    pub(crate) fn insert(&self, entry: &Arc<Entry>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(entry.asked.clone(), entry.clone());
    }

    pub(crate) fn remove(&self, asked: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(asked);
    }

    /// Keys of one backend that were used, apart from those that several places hold.
    pub(crate) fn of(&self, place: &Arc<Place>) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let here = |entry: &&Arc<Entry>| entry.group.is_none() && Arc::ptr_eq(&entry.place, place);
        entries.values().filter(here).cloned().collect()
    }

    /// The right to open a key, for one at a time.
    pub(crate) async fn opening(&self, asked: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut opening = lock(&self.opening);
            // What nobody holds any more goes.
            if opening.len() > 64 {
                opening.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            opening.entry(asked.into()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
