//! What a backend's author brings: a real engine, and what is expected of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use signer_core::{Ability, Backend, BoxFuture, KeyType, Pin, Result, SignatureAlgorithm};

use crate::Names;

/// A real engine on temporary state, empty of keys at first. Each check gets a fixture of its own; dropping it ends the
/// engine and deletes its state.
pub trait Fixture: Send + Sync {
    /// What is expected. A backend cannot pass by offering less.
    fn profile(&self) -> Profile;

    /// The backend as it runs now: after [`Fixture::restart`], the new one.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Stops everything that serves the keys and starts it again on the same state, with the PIN configured as asked.
    /// Signers and backends from before may fail or go on, but must not hang.
    fn restart(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>>;

    /// The right PIN or passphrase, where the device has one.
    fn pin(&self) -> Option<Pin> {
        None
    }

    /// How many logins the device has seen so far, where the fixture can count them.
    fn logins(&self) -> Option<u64> {
        None
    }
}

/// How the PIN is configured when a backend is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinSetup {
    /// The right one.
    Right,
    /// None at all.
    Missing,
    /// A wrong one.
    Wrong,
}

/// What is expected of a backend, explicitly.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Every kind of key that it generates.
    pub generates: Vec<KeyType>,
    /// Every kind of key that it imports.
    pub imports: Vec<KeyType>,
    /// What a key of each kind signs with, in any order; the default of the kind is always the first.
    pub algorithms: BTreeMap<KeyType, Vec<SignatureAlgorithm>>,
    /// What its keys may be called.
    pub names: Names,
    /// Every ability.
    pub abilities: Vec<Ability>,
    /// Whether a caller can choose and use the device's identifier of a key (`CKA_ID`).
    pub identifiers: bool,
    /// Whether it knows keys by an address of another world (`pkcs11:…`).
    pub addresses: bool,
    /// Whether a key with an address that fits nowhere is `Denied` instead of `NotFound`: a daemon cannot tell which
    /// grant it would need.
    pub denies_unknown_addresses: bool,
    /// Whether it can be configured without a PIN or with a wrong one: [`Fixture::restart`] then honours [`PinSetup`].
    pub pins: bool,
    /// Whether the name of a deleted key is free again at once; elsewhere it is `AlreadyExists` to a new one.
    pub frees_names: bool,
    /// Whether one of several versions can be deleted; elsewhere that is `Unsupported`.
    pub deletes_versions: bool,
    /// Whether algorithms that sign the message itself sign an empty one; elsewhere that is `BadRequest`.
    pub signs_nothing: bool,
    /// How many keys the check of many keys makes.
    pub many_keys: usize,
    /// How long opening one key among them may take.
    pub open_within: Duration,
    /// How many signatures each of sixteen tasks makes in the check of concurrent use.
    pub signatures_a_task: usize,
}

impl Profile {
    /// A place that can do everything that the house knows.
    pub fn full() -> Self {
        Self {
            generates: KeyType::ALL.to_vec(),
            imports: KeyType::ALL.to_vec(),
            algorithms: KeyType::ALL.into_iter().map(|t| (t, t.algorithms().to_vec())).collect(),
            names: Names::free(),
            abilities: vec![
                Ability::Generate,
                Ability::Import,
                Ability::Delete,
                Ability::Rotate,
                Ability::StoreCertificate,
                Ability::Unlock,
            ],
            identifiers: true,
            addresses: true,
            denies_unknown_addresses: false,
            pins: true,
            frees_names: true,
            deletes_versions: true,
            signs_nothing: true,
            many_keys: 1000,
            open_within: Duration::from_secs(1),
            signatures_a_task: 200,
        }
    }

    /// The same without some kinds of keys.
    #[must_use]
    pub fn without_types(mut self, types: &[KeyType]) -> Self {
        self.generates.retain(|t| !types.contains(t));
        self.imports.retain(|t| !types.contains(t));
        self.algorithms.retain(|t, _| !types.contains(t));
        self
    }

    /// The same without an algorithm, whatever the key.
    #[must_use]
    pub fn without_algorithm(mut self, algorithm: SignatureAlgorithm) -> Self {
        for algorithms in self.algorithms.values_mut() {
            algorithms.retain(|a| *a != algorithm);
        }
        self
    }

    /// The same without an ability.
    #[must_use]
    pub fn without(mut self, ability: Ability) -> Self {
        self.abilities.retain(|a| *a != ability);
        self
    }

    pub(crate) fn has(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability)
    }

    pub(crate) fn algorithms_of(&self, key_type: KeyType) -> &[SignatureAlgorithm] {
        self.algorithms.get(&key_type).map_or(&[], Vec::as_slice)
    }

    /// Kinds of keys that are there by generation or import.
    pub fn types(&self) -> Vec<KeyType> {
        KeyType::ALL.into_iter().filter(|t| self.generates.contains(t) || self.imports.contains(t)).collect()
    }
}
