//! Events for those who may know of them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt};
use signer_core::{BackendName, Result};
use signerd_api::pb;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::Service;
use crate::{call::Call, events::Occurrence, grants::Operations, identity::Identity, state::Daemon};

/// The events that one watcher gets.
pub(crate) struct Watching {
    daemon: Arc<Daemon>,
    caller: Arc<Identity>,
    /// The only backend of interest.
    backend: Option<BackendName>,
    events: BroadcastStream<Arc<Occurrence>>,
    lost: u64,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Service {
    pub(super) async fn watching(&self, call: &Call, backend: &str) -> Result<Watching> {
        let state = self.daemon.state();
        let backend: Option<BackendName> = if backend.is_empty() { None } else { Some(backend.parse()?) };
        let allowed = match &backend {
            Some(backend) => state.grants.allow_backend(&call.caller, Operations::WATCH, backend),
            None => state.grants.allow_anything(&call.caller, Operations::WATCH),
        };
        if !allowed {
            let what = backend.as_ref().map_or_else(|| "anything".to_owned(), ToString::to_string);
            return Err(state.denied(&call.caller, Operations::WATCH, &what, None).await);
        }
        if let Some(backend) = &backend {
            state.place(backend)?;
        }
        let mut stopping = self.daemon.stopping.subscribe();
        Ok(Watching {
            daemon: self.daemon.clone(),
            caller: call.caller.clone(),
            backend,
            events: BroadcastStream::new(self.daemon.events.watch()),
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
        let Some(backend) = &event.backend else { return true };
        self.backend.as_ref().is_none_or(|wanted| wanted == backend)
            && grants.allow_backend(&self.caller, Operations::WATCH, backend)
            && event.key().is_none_or(|key| grants.see(&self.caller, &grants.names(backend, key)))
    }
}

impl Stream for Watching {
    type Item = Result<pb::Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            match std::task::ready!(this.events.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(BroadcastStreamRecvError::Lagged(lost))) => this.lost += lost,
                Some(Ok(event)) if this.concerns(&event) => {
                    let lost = std::mem::take(&mut this.lost);
                    return Poll::Ready(Some(Ok(event.to_pb(lost))));
                }
                Some(Ok(_)) => {}
            }
        }
    }
}
