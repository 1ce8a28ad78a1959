//! What a caller may know of: backends and keys.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use signer_core::{Ability, BackendName, Error, ErrorKind, KeyRef, KeySelector, ListRequest, Result};
use signerd_api::{backend_to_pb, error_to_pb, evidence_to_pb, group_to_pb, key_to_pb, pb};
use tokio::time::{timeout, timeout_at};

use super::Service;
use crate::{
    audit::{Event, KeyOf},
    call::Call,
    compose::timed_out,
    grants::Operations,
    group::Group,
    place::Place,
};

/// A backend that takes longer to describe itself is described as it was last.
const DESCRIBE: Duration = Duration::from_secs(2);
/// A backend that takes longer for a page of its keys is left out of a list.
const LIST: Duration = Duration::from_secs(10);

impl Service {
    pub(super) async fn backends(&self, call: &Call) -> pb::ListBackendsResponse {
        self.looked(call, KeyOf::named("*"));
        let state = self.daemon.state();
        let seen = state.places.values().filter(|p| state.grants.see_backend(&call.caller, p.name()));
        let backends = join_all(seen.map(|place| async move {
            let trouble = place.trouble();
            let patience = if trouble.is_some() { DESCRIBE / 4 } else { DESCRIBE };
            let info = place.describe(patience).await;
            backend_to_pb(place.name().as_str(), &info, &place.abilities(), trouble.as_ref())
        }))
        .await;
        let seen = |group: &&Arc<Group>| {
            let names = state.grants.names_as_asked(&KeyRef::Configured(group.name().clone()));
            state.grants.see(&call.caller, &names)
        };
        let named_keys = state.groups.values().filter(seen).map(|group| pb::NamedKey {
            name: group.name().to_string(),
            order: group.order().name().to_owned(),
            members: members(group),
        });
        let named_keys = named_keys.collect();
        let granted = state.grants.allow_anything(&call.caller, Operations::ALL);
        let audit = self.daemon.audit.as_ref().filter(|_| granted).map(|audit| audit.status());
        pb::ListBackendsResponse { backends, audit, named_keys }
    }

    /// A page of keys. The token of a page is `backend/`, and that backend's own token after it.
    pub(super) async fn keys(
        &self,
        call: &Call,
        request: pb::ListKeysRequest,
    ) -> Result<pb::ListKeysResponse> {
        let state = self.daemon.state();
        let size = match request.page_size {
            0 => 100,
            n => n.min(1000) as usize,
        };
        let only: Option<BackendName> =
            if request.backend.is_empty() { None } else { Some(request.backend.parse()?) };
        let (first, mut token) = match request.page_token.split_once('/') {
            Some((backend, token)) => {
                (Some(backend.parse::<BackendName>()?), Some(token).filter(|t| !t.is_empty()))
            }
            None if request.page_token.is_empty() => (None, None),
            None => return Err(Error::bad_request("this is not a page token of this daemon")),
        };
        let places: Vec<_> = state
            .places
            .values()
            .filter(|p| only.as_ref().is_none_or(|only| only == p.name()))
            .filter(|p| state.grants.see_backend(&call.caller, p.name()))
            .filter(|p| first.as_ref().is_none_or(|first| first <= p.name()))
            .collect();
        if let Some(only) = &only
            && !state.grants.see_backend(&call.caller, only)
        {
            return Err(state.denied(&call.caller, Operations::LIST, only.as_str(), None).await);
        }
        self.looked(call, KeyOf::named(only.as_ref().map_or("*", |only| only.as_str())));
        if let Some(only) = &only {
            state.place(only)?;
        }
        if first.as_ref() != places.first().map(|p| p.name()) {
            token = None;
        }
        let mut token = token.map(str::to_owned);
        let mut keys = Vec::new();
        let mut unavailable = HashMap::new();
        for place in places {
            loop {
                if keys.len() == size {
                    let next_page_token = format!("{}/{}", place.name(), token.unwrap_or_default());
                    return Ok(pb::ListKeysResponse { keys, next_page_token, unavailable });
                }
                let page = ListRequest { page_size: size - keys.len(), page_token: token.take() };
                match page_of(place, page).await {
                    Ok(page) => {
                        let seen = page.keys.iter().filter(|key| {
                            state.grants.see(&call.caller, &state.grants.names(place.name(), &key.name))
                        });
                        keys.extend(seen.map(|key| key_to_pb(place.name().as_str(), key)));
                        token = page.next;
                    }
                    Err(error) => {
                        unavailable.insert(place.name().to_string(), error_to_pb(&error));
                    }
                }
                if token.is_none() {
                    break;
                }
            }
        }
        Ok(pb::ListKeysResponse { keys, next_page_token: String::new(), unavailable })
    }

    /// Whoever may do anything with a key may have the device's statement on it: it proves, and permits nothing.
    pub(super) async fn evidence(&self, call: &Call, key: &str) -> Result<pb::Evidence> {
        let state = self.daemon.state();
        let entry = state.key(&call.caller, Operations::ALL, key).await?;
        if let Some(group) = entry.group() {
            return Err(group.unattested());
        }
        let place = entry.place();
        let _ticket = place.enter()?;
        let backend = place.backend()?;
        let attest = Ability::Attest.require(backend.attest(), place.name().as_str())?;
        let selector = KeySelector::Name(entry.info().name.clone());
        let work = async {
            let evidence = timeout_at(call.deadline.into(), attest.attest(&selector)).await;
            evidence.unwrap_or_else(|_| Err(timed_out()))
        };
        let evidence = match &self.daemon.audit {
            Some(audit) => {
                let event = Event::of_caller(&call.caller, Operations::LIST, KeyOf::Opened(entry.clone()));
                let grant = state.grants.which(&call.caller, Operations::ALL, entry.names());
                audit.around(event.called("attest").by_grant(grant.as_ref()), Box::pin(work)).await
            }
            None => work.await,
        };
        evidence.map(evidence_to_pb).map_err(|e| e.key(key).device(place.name()))
    }

    pub(super) async fn one_key(&self, call: &Call, key: &str) -> Result<pb::Key> {
        let state = self.daemon.state();
        // Whoever may do anything with a key may see it; whoever may not is told so.
        let entry = state.key(&call.caller, Operations::ALL, key).await?;
        self.looked(call, KeyOf::Opened(entry.clone()));
        Ok(match entry.group() {
            Some(group) => group_to_pb(group.order().name(), entry.info(), members(group)),
            None => key_to_pb(entry.place().name().as_str(), entry.info()),
        })
    }

    /// Somebody looks at keys.
    fn looked(&self, call: &Call, key: KeyOf) {
        if let Some(audit) = &self.daemon.audit {
            audit.read(Event::of_caller(&call.caller, Operations::LIST, key));
        }
    }
}

/// How each member of a key is.
fn members(group: &Group) -> Vec<pb::Member> {
    let members = group.standings().into_iter().map(|(reference, standing)| {
        let (state, error) = standing.told();
        pb::Member { reference: reference.to_owned(), state: state.to_owned(), error: error.map(error_to_pb) }
    });
    members.collect()
}

async fn page_of(place: &Place, request: ListRequest) -> Result<signer_core::KeyPage> {
    let backend = place.backend()?;
    let Ok(page) = timeout(LIST, backend.list(request)).await else {
        let error = Error::new(ErrorKind::TimedOut, "the backend did not list its keys in time");
        return Err(error.device(place.name()));
    };
    page.map_err(|e| {
        let error = e.device(place.name());
        place.failed(&error);
        error
    })
}
