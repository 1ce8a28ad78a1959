//! Events for those who may know of them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt};
use signer_core::{BackendName, Event, Result};
use signerd_api::pb;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::Service;
use crate::{
    call::Call,
    events::{Occurrence, What},
    grants::Operations,
    identity::Identity,
    prompts::{Interest, Listener},
    state::Daemon,
};

/// The events that one watcher gets.
pub(crate) struct Watching {
    daemon: Arc<Daemon>,
    caller: Arc<Identity>,
    /// The only backend of interest.
    backend: Option<BackendName>,
    prompts: pb::Prompts,
    /// Its place among those who answer for PIN requests.
    _listener: Option<Listener>,
    /// What was under way when it came.
    before: VecDeque<Occurrence>,
    events: BroadcastStream<Arc<Occurrence>>,
    lost: u64,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Service {
    pub(super) async fn watching(&self, call: &Call, request: pb::WatchRequest) -> Result<Watching> {
        let prompts = pb::Prompts::try_from(request.prompts).unwrap_or_default();
        let state = self.daemon.state();
        let backend: Option<BackendName> =
            if request.backend.is_empty() { None } else { Some(request.backend.parse()?) };
        // Whoever calls may hear of what becomes of the call; whoever answers for PINs, of these.
        let needed = match prompts {
            pb::Prompts::None => Some(Operations::WATCH),
            pb::Prompts::All => Some(Operations::WATCH | Operations::UNLOCK),
            pb::Prompts::Own => None,
        };
        let allowed = needed.is_none_or(|needed| match &backend {
            Some(backend) => state.grants.allow_backend(&call.caller, needed, backend),
            None => state.grants.allow_anything(&call.caller, needed),
        });
        if !allowed {
            let what = backend.as_ref().map_or_else(|| "anything".to_owned(), ToString::to_string);
            return Err(state.denied(&call.caller, Operations::WATCH, &what, None).await);
        }
        if let Some(backend) = &backend
            && needed.is_some()
        {
            state.place(backend)?;
        }
        let mut stopping = self.daemon.stopping.subscribe();
        // Nothing is missed between the two: what is told twice is told in its newest form.
        let events = self.daemon.events.watch();
        let before = state.places.values().filter_map(|place| {
            let (news, about) = place.desk.news()?;
            Some(Occurrence::new(Some(place.name()), What::PinRequest(Arc::new(news)), about))
        });
        let listener = (prompts != pb::Prompts::None).then(|| {
            self.daemon.listeners.add(Interest {
                caller: call.caller.clone(),
                backend: backend.clone(),
                own: prompts == pb::Prompts::Own,
            })
        });
        Ok(Watching {
            daemon: self.daemon.clone(),
            caller: call.caller.clone(),
            prompts,
            _listener: listener,
            before: before.collect(),
            backend,
            events: BroadcastStream::new(events),
            lost: 0,
            stopping: Box::pin(async move {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }),
        })
    }
}

impl Watching {
    /// Whether the watcher may know of it, by the grants that hold now.
    fn concerns(&self, event: &Occurrence) -> bool {
        let grants = &self.daemon.state().grants;
        let own = self.prompts == pb::Prompts::Own;
        let Some(backend) = &event.backend else { return !own };
        if self.backend.as_ref().is_some_and(|wanted| wanted != backend) {
            return false;
        }
        let yours = event.is_about(&self.caller);
        match &event.what {
            What::PinRequest(_) | What::PinRequestEnded { .. } => {
                (yours || !own) && grants.allow_backend(&self.caller, Operations::UNLOCK, backend)
            }
            What::Backend(Event::TouchRequired { .. } | Event::TouchEnded { .. }) if yours => true,
            _ if own => false,
            _ => {
                grants.allow_backend(&self.caller, Operations::WATCH, backend)
                    && event.key().is_none_or(|key| grants.see(&self.caller, &grants.names(backend, &key)))
            }
        }
    }

    fn told(&self, event: &Occurrence, lost: u64) -> pb::Event {
        event.to_pb(lost, &self.daemon.state().grants, &self.caller)
    }
}

impl Stream for Watching {
    type Item = Result<pb::Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        while let Some(event) = this.before.pop_front() {
            if this.concerns(&event) {
                return Poll::Ready(Some(Ok(this.told(&event, 0))));
            }
        }
        loop {
            match std::task::ready!(this.events.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(BroadcastStreamRecvError::Lagged(lost))) => this.lost += lost,
                Some(Ok(event)) if this.concerns(&event) => {
                    let lost = std::mem::take(&mut this.lost);
                    return Poll::Ready(Some(Ok(this.told(&event, lost))));
                }
                Some(Ok(_)) => {}
            }
        }
    }
}
