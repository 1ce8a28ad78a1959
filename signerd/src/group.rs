//! A key that several places hold: which of them may be used now, and how each is.
//!
//! A member is used only once its public key was compared with that of the others, and is opened and compared again
//! after its device was away: what came back may hold another key of that name. A member that failed is left alone for a
//! moment, longer each time, and a health check that finds the key again ends that sooner.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use signer_core::{
    BackendName, Error, ErrorKind, KeyInfo, KeyName, KeyOrigin, KeyPolicy, KeyRef, KeySelector, PublicKey,
    Result, SignatureAlgorithm, Signer, TouchPolicy,
};
use tokio::time::timeout;

use crate::{
    compose,
    config::{KeyConfig, Order},
    place::Place,
};

mod member;

use member::{Class, Member, Rest};
pub(crate) use member::{Opened, Standing};

/// How long a member is left alone after its first failure.
const FIRST_REST: Duration = Duration::from_millis(250);
/// How long after many.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A configured key of several members.
pub(crate) struct Group {
    name: BackendName,
    order: Order,
    members: Vec<Member>,
    /// What all members must have: as configured, or as the first one has that was opened.
    public_key: OnceLock<PublicKey>,
    /// Counts what became known of the members' keys.
    epoch: AtomicU64,
    /// Whose turn it is.
    turn: AtomicUsize,
}

/// What a member's failure means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another member may sign: nothing was signed, and the reason lies in this member.
    Next,
    /// The reason lies in the request, or the device has refused: another one would be asked to go behind its back.
    End,
}

impl Verdict {
    /// The one place where it is decided which failures go to another member.
    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::DeviceGone
            | ErrorKind::Busy { .. }
            | ErrorKind::Throttled { .. }
            | ErrorKind::TimedOut
            | ErrorKind::PinRequired
            | ErrorKind::Locked
            // The key is not there any more.
            | ErrorKind::NotFound
            // A defect of a device or its library; the next one may have another.
            | ErrorKind::Internal => Self::Next,
            // A disabled key, a missing permission: somebody meant it.
            ErrorKind::Denied
            // The PIN may be the next member's as well: no second try is burnt for one request.
            | ErrorKind::WrongPin { .. }
            // Nobody was there, and would be there for another card.
            | ErrorKind::TouchTimedOut
            | ErrorKind::AlreadyExists
            | ErrorKind::Unsupported
            | ErrorKind::BadRequest => Self::End,
        }
    }
}

impl Group {
    /// The group of a `[[key]]` table. `places` says where a member is looked for.
    pub(crate) fn new(
        name: &BackendName,
        config: &KeyConfig,
        places: impl Fn(&KeyRef) -> (KeySelector, Vec<Arc<Place>>),
    ) -> Arc<Self> {
        let member = |reference: &KeyRef| {
            let (selector, places) = places(reference);
            let reference = reference.to_string();
            Member {
                reference,
                selector,
                places,
                now: Mutex::default(),
                opening: tokio::sync::Mutex::default(),
            }
        };
        Arc::new(Self {
            name: name.clone(),
            order: config.order,
            members: config.members.iter().map(member).collect(),
            public_key: config.public_key.clone().map_or_else(OnceLock::new, OnceLock::from),
            epoch: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
        })
    }

    pub(crate) fn name(&self) -> &BackendName {
        &self.name
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// The member as configured.
    pub(crate) fn reference(&self, member: usize) -> &str {
        &self.members[member].reference
    }

    fn references(&self) -> String {
        let all: Vec<_> = self.members.iter().map(|m| m.reference.as_str()).collect();
        all.join(", ")
    }

    /// A place for what has to have one although it concerns no member: of the first that has one.
    pub(crate) fn place(&self) -> Option<&Arc<Place>> {
        self.members.iter().find_map(|m| m.places.first())
    }

    /// The place of that name among those of the members.
    pub(crate) fn place_of(&self, backend: &str) -> Option<&Arc<Place>> {
        self.members.iter().flat_map(|m| &m.places).find(|p| p.name().as_str() == backend)
    }

    /// The backend of a member, for what is counted.
    pub(crate) fn backend(&self, member: usize) -> Option<&BackendName> {
        self.members[member].places.first().map(|p| p.name())
    }

    /// Whether a member is looked for there.
    pub(crate) fn is_in(&self, place: &Arc<Place>) -> bool {
        (0..self.members.len()).any(|at| self.members[at].is_in(place))
    }

    /// The number of the last news of its members.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// What is known of the key: what its members have in common, and the algorithms of all of them, those first that
    /// every one has. `None` before one was opened.
    pub(crate) fn info(&self) -> Option<KeyInfo> {
        let known: Vec<_> = self.members.iter().filter_map(|m| m.lock().known.clone()).collect();
        let first = known.first()?;
        let mut algorithms: Vec<SignatureAlgorithm> = Vec::new();
        let all = known.iter().flat_map(|k| &k.algorithms);
        let everywhere = |a: &&SignatureAlgorithm| known.iter().all(|k| k.algorithms.contains(a));
        for algorithm in first.algorithms.iter().filter(everywhere).chain(all) {
            if !algorithms.contains(algorithm) {
                algorithms.push(*algorithm);
            }
        }
        let same_origin = known.iter().all(|k| k.origin == first.origin);
        Some(KeyInfo {
            name: KeyName::label(self.name.as_str()).ok()?,
            public_key: self.public_key.get()?.clone(),
            algorithms,
            origin: if same_origin { first.origin } else { KeyOrigin::Unknown },
            extractable: if known.iter().any(|k| k.extractable == Some(true)) {
                Some(true)
            } else {
                known.iter().map(|k| k.extractable).reduce(Option::and).flatten()
            },
            // Whoever asks has to be ready for the most that one of them demands.
            policy: KeyPolicy {
                pin: known.iter().filter_map(|k| k.policy.pin).max_by_key(|p| *p as u8),
                touch: known.iter().filter_map(|k| k.policy.touch).max_by_key(|t| *t as u8),
                ..KeyPolicy::default()
            },
            created: None,
            id: None,
            address: None,
            certificate: known.iter().find_map(|k| k.certificate.clone()),
        })
    }

    /// How each member is, in the configured order.
    pub(crate) fn standings(&self) -> Vec<(&str, Standing)> {
        self.members.iter().map(|m| (m.reference.as_str(), m.standing())).collect()
    }

    /// Whether each member was opened and is the right key, and why not.
    pub(crate) fn compared(&self) -> Vec<(&str, Result<(), Option<Error>>)> {
        let compared = self.members.iter().map(|member| {
            let now = member.lock();
            let why = now.refused.clone().or_else(|| now.reason.clone());
            (member.reference.as_str(), if now.opened.is_some() { Ok(()) } else { Err(why) })
        });
        compared.collect()
    }

    /// Whether some member can sign.
    pub(crate) fn is_healthy(&self) -> bool {
        self.members.iter().any(|m| match m.standing() {
            Standing::Ok => true,
            // It is there, and has too much to do.
            Standing::Resting(e) => matches!(e.kind(), ErrorKind::Busy { .. } | ErrorKind::Throttled { .. }),
            _ => false,
        })
    }

    /// What a caller is told who wants to change the key.
    pub(crate) fn unchangeable(&self) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is one key in {} places, and a change in one would part them",
                self.name,
                self.members.len()
            ),
        )
        .key(&self.name)
        .next(format!("name the key of one place: {}", self.references()))
    }

    /// What a caller is told who wants a device's statement on the key.
    pub(crate) fn unattested(&self) -> Error {
        let what = format!("{} is in several places, and each can only attest its own", self.name);
        Error::new(ErrorKind::Unsupported, what)
            .key(&self.name)
            .next(format!("name the key of one place: {}", self.references()))
    }

    /// Opens every member and compares their keys; what cannot be reached in time stays unchecked. The error is a sentence
    /// for people: one of them is another key.
    pub(crate) async fn compare(&self, patience: Duration) -> Result<(), String> {
        let found = join_all(self.members.iter().map(|m| timeout(patience, m.find()))).await;
        let mut wrong = Vec::new();
        // In their order, so that it does not depend on who answers first which of them is the wrong one.
        for (member, found) in self.members.iter().zip(found) {
            match found {
                Ok(Ok((place, epoch, signer))) => {
                    if let Err(error) = self.adopt(member, place, epoch, signer) {
                        wrong.push(error.to_string());
                    }
                }
                Ok(Err(error)) => {
                    member.lock().reason = Some(error.clone());
                    tracing::warn!(key = %self.name, member = member.reference, "unchecked: {error}");
                }
                Err(_) => {
                    tracing::warn!(key = %self.name, member = member.reference, "unchecked: it does not answer");
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("[[key]] {}: {}", self.name, wrong.join("; "))) }
    }

    /// Makes sure that one member was opened, whichever is first.
    pub(crate) async fn open_any(&self) -> Result<()> {
        if self.info().is_some() {
            return Ok(());
        }
        let mut opening: FuturesUnordered<_> =
            (0..self.members.len()).map(|at| async move { (at, self.open(at).await) }).collect();
        let mut failures = Vec::new();
        while let Some((at, opened)) = opening.next().await {
            match opened {
                Ok(_) => return Ok(()),
                Err(error) => failures.push((at, error)),
            }
        }
        Err(self.nobody(failures))
    }

    /// A member, opened and compared.
    pub(crate) async fn open(&self, at: usize) -> Result<Opened> {
        let member = &self.members[at];
        if let Some(opened) = member.fresh() {
            return Ok(opened);
        }
        let _turn = member.opening.lock().await;
        if let Some(opened) = member.fresh() {
            return Ok(opened);
        }
        let found = member.find().await;
        if let Err(error) = &found {
            let mut now = member.lock();
            (now.opened, now.reason) = (None, Some(error.clone()));
        }
        let (place, epoch, signer) = found?;
        self.adopt(member, place, epoch, signer)
    }

    /// Takes a member in whose key is the right one.
    fn adopt(
        &self,
        member: &Member,
        place: Arc<Place>,
        epoch: u64,
        signer: Arc<dyn Signer>,
    ) -> Result<Opened> {
        let info = signer.info().clone();
        let right = self.public_key.get_or_init(|| info.public_key.clone());
        let mut now = member.lock();
        if *right != info.public_key {
            let (is, wanted) = (info.public_key.fingerprint(), right.fingerprint());
            let error = Error::new(
                ErrorKind::NotFound,
                format!("{} is another key: its public key is {is:?}, and not {wanted:?}", member.reference),
            )
            .device(place.name())
            .next("bring the same key into all places, or take this member out of the [[key]]");
            if now.refused.is_none() {
                tracing::error!(key = %self.name, "not used: {error}");
            }
            now.opened = None;
            now.refused = Some(error.clone());
            return Err(error);
        }
        let opened = Opened { epoch, signer: compose::signer(&place, signer), place };
        now.opened = Some(opened.clone());
        (now.refused, now.reason) = (None, None);
        let is_news = now.known.as_ref() != Some(&info);
        now.known = Some(info);
        drop(now);
        if is_news {
            self.epoch.fetch_add(1, Relaxed);
        }
        Ok(opened)
    }

    // Requests.

    /// The members to ask for a signature, the best first: those that are well in their order, then those that were never
    /// compared, then those that failed.
    pub(crate) fn candidates(&self, algorithm: SignatureAlgorithm) -> Vec<usize> {
        let (mut well, mut unchecked, mut unwell) = (Vec::new(), Vec::new(), Vec::new());
        for (at, member) in self.members.iter().enumerate() {
            match member.class(algorithm) {
                Class::Well => well.push(at),
                Class::Unchecked => unchecked.push(at),
                Class::Unwell => unwell.push(at),
                Class::Never => {}
            }
        }
        if self.order == Order::RoundRobin && well.len() > 1 {
            let turn = self.turn.fetch_add(1, Relaxed) % well.len();
            well.rotate_left(turn);
        }
        well.append(&mut unchecked);
        well.append(&mut unwell);
        well
    }

    /// Whether a member waits for a finger before it signs.
    pub(crate) fn is_touched(&self, at: usize) -> bool {
        let touch = self.members[at].lock().known.as_ref().and_then(|k| k.policy.touch);
        touch.is_some_and(|t| t != TouchPolicy::Never)
    }

    /// A member has signed.
    pub(crate) fn succeeded(&self, at: usize) {
        let rest = self.members[at].lock().rest.take();
        if rest.is_some() {
            tracing::info!(key = %self.name, member = self.members[at].reference, "used again");
        }
    }

    /// A member has failed: it is left alone for a moment, where the reason is its own.
    pub(crate) fn failed(&self, at: usize, error: &Error) {
        let rest = match error.kind() {
            ErrorKind::Busy { retry_after } | ErrorKind::Throttled { retry_after } => retry_after,
            ErrorKind::DeviceGone
            | ErrorKind::TimedOut
            | ErrorKind::PinRequired
            | ErrorKind::WrongPin { .. }
            | ErrorKind::Locked
            | ErrorKind::NotFound => Duration::ZERO,
            // Others must not lose a member for what is in one request.
            _ => return,
        };
        let member = &self.members[at];
        let mut now = member.lock();
        if matches!(error.kind(), ErrorKind::DeviceGone | ErrorKind::NotFound) {
            now.opened = None;
        }
        let moment = Instant::now();
        let times = match &now.rest {
            // Others met the same failure at the same time.
            Some(rest) if rest.until > moment && !rest.on_trial => return,
            Some(rest) => rest.times + 1,
            None => 0,
        };
        let growing = (FIRST_REST * 2_u32.pow(times.min(8))).min(LONGEST_REST);
        let rest = if rest.is_zero() { growing } else { rest.clamp(FIRST_REST / 5, LONGEST_REST * 3) };
        if times == 0 {
            tracing::warn!(key = %self.name, member = member.reference, ?rest, "left alone: {error}");
        }
        now.rest = Some(Rest { until: moment + rest, times, error: error.clone(), on_trial: false });
    }

    /// A member took so long that another one was asked as well.
    pub(crate) fn slow(&self, at: usize) {
        self.failed(at, &Error::new(ErrorKind::TimedOut, "it did not answer in time"));
    }

    /// Nobody could sign.
    pub(crate) fn nobody(&self, mut failures: Vec<(usize, Error)>) -> Error {
        for at in 0..self.members.len() {
            if !failures.iter().any(|(failed, _)| *failed == at)
                && let Some(refused) = self.members[at].lock().refused.clone()
            {
                failures.push((at, refused));
            }
        }
        failures.sort_by_key(|(at, _)| *at);
        // What passes by itself first: then it makes sense to try again.
        let rank = |e: &Error| match e.kind() {
            ErrorKind::Busy { .. } | ErrorKind::Throttled { .. } => 0,
            ErrorKind::DeviceGone => 1,
            ErrorKind::TimedOut => 2,
            ErrorKind::PinRequired => 3,
            ErrorKind::Locked => 4,
            ErrorKind::Internal => 5,
            _ => 6,
        };
        let kind =
            failures.iter().min_by_key(|(_, e)| rank(e)).map_or(ErrorKind::DeviceGone, |(_, e)| e.kind());
        let told = |(at, e): &(usize, Error)| format!("{}: {e}", self.reference(*at));
        let all: Vec<_> = failures.iter().map(told).collect();
        let what = format!("none of the {} members can sign now", self.members.len());
        let what = if all.is_empty() { what } else { format!("{what}: {}", all.join("; ")) };
        Error::new(kind, what).key(&self.name).next(format!("signer keys show {}", self.name))
    }

    // Health.

    /// Looks at the members that are in a place, after the place itself.
    pub(crate) async fn check(&self, place: &Arc<Place>, healthy: bool, patience: Duration) {
        for at in 0..self.members.len() {
            if !healthy {
                // What comes back is compared before it is used.
                self.members[at].lock().opened.take_if(|opened| Arc::ptr_eq(&opened.place, place));
            } else if self.members[at].is_in(place) {
                let found = timeout(patience, self.probe(at)).await;
                let found = found.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::TimedOut, "the key did not answer a health check"))
                });
                if let Err(error) = found {
                    tracing::debug!(key = %self.name, member = self.reference(at), "health: {error}");
                }
            }
        }
    }

    /// Finds a member's key.
    pub(crate) async fn probe(&self, at: usize) -> Result<()> {
        let opened = self.open(at).await.inspect_err(|error| self.failed(at, error))?;
        let signed_before = opened.place.successes();
        match opened.signer.health().await {
            Ok(()) => {
                let mut now = self.members[at].lock();
                let busy = |rest: &mut Rest| {
                    matches!(rest.error.kind(), ErrorKind::Busy { .. } | ErrorKind::Throttled { .. })
                };
                if now.rest.take_if(|rest| !busy(rest)).is_some() {
                    tracing::info!(key = %self.name, member = self.reference(at), "found again");
                }
                Ok(())
            }
            // It signs, and has no time for questions.
            Err(e)
                if matches!(e.kind(), ErrorKind::Busy { .. } | ErrorKind::TimedOut)
                    && opened.place.successes() > signed_before =>
            {
                Ok(())
            }
            Err(error) => {
                self.failed(at, &error);
                Err(error)
            }
        }
    }

    /// Whether some member's key is found now.
    pub(crate) async fn probe_any(&self) -> Result<()> {
        let mut probing: FuturesUnordered<_> =
            (0..self.members.len()).map(|at| async move { (at, self.probe(at).await) }).collect();
        let mut failures = Vec::new();
        while let Some((at, found)) = probing.next().await {
            match found {
                Ok(()) => return Ok(()),
                Err(error) => failures.push((at, error)),
            }
        }
        Err(self.nobody(failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_the_next_member_and_what_does_not() {
        let ends: Vec<_> = ErrorKind::ALL.into_iter().filter(|k| Verdict::of(*k) == Verdict::End).collect();
        assert_eq!(
            ends,
            [
                ErrorKind::AlreadyExists,
                ErrorKind::Denied,
                ErrorKind::WrongPin { tries_left: None },
                ErrorKind::TouchTimedOut,
                ErrorKind::Unsupported,
                ErrorKind::BadRequest,
            ]
        );
    }
}
