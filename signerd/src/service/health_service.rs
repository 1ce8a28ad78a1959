//! The standard gRPC health service, as far as each caller may know.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use signer_core::BackendName;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::{call::Call, grants::Operations, health, state::Daemon};

/// The health service as one connection sees it.
#[derive(Clone)]
pub(crate) struct HealthService {
    pub(crate) daemon: Arc<Daemon>,
}

/// The names that stand for the daemon itself.
const DAEMON: [&str; 2] = ["", "signerd.v1.SignerService"];

impl HealthService {
    /// The status of a name, and what becomes of it; `None` for what is not there, or not for this caller to know.
    async fn status(&self, call: &Call, name: &str) -> Option<watch::Receiver<ServingStatus>> {
        let state = self.daemon.state();
        if DAEMON.contains(&name) {
            let recording = self.daemon.audit.as_ref().is_none_or(|audit| audit.trouble().is_none());
            self.daemon.board.set(name, recording && !self.daemon.is_stopping());
            return self.daemon.board.watch(name);
        }
        if name == "audit" {
            return self.daemon.board.watch(name);
        }
        match name.split_once('/')? {
            ("backend", backend) => {
                let backend: BackendName = backend.parse().ok()?;
                let known =
                    state.grants.see_backend(&call.caller, &backend) && state.places.contains_key(&backend);
                if known { self.daemon.board.watch(name) } else { None }
            }
            ("key", asked) => {
                let reference = asked.parse().ok()?;
                let names = state.grants.names_as_asked(&reference);
                match state.key(&call.caller, Operations::ALL, asked).await {
                    Ok(entry) => {
                        let known = self.daemon.board.watch(name);
                        if known.is_none() {
                            health::check_now(&self.daemon, &state, &entry, call.deadline).await;
                        }
                        known.or_else(|| self.daemon.board.watch(name))
                    }
                    // A key that the caller may use, and that cannot be reached.
                    Err(e)
                        if state.grants.see(&call.caller, &names)
                            && e.kind() != signer_core::ErrorKind::NotFound =>
                    {
                        self.daemon.board.set(name, false);
                        self.daemon.board.watch(name)
                    }
                    Err(_) => None,
                }
            }
            _ => None,
        }
    }

    /// Whether a caller may wait for a name that is not there yet.
    fn may_wait(&self, call: &Call, name: &str) -> bool {
        let state = self.daemon.state();
        match name.split_once('/') {
            Some(("backend", backend)) => {
                backend.parse().is_ok_and(|backend| state.grants.see_backend(&call.caller, &backend))
            }
            Some(("key", asked)) => asked
                .parse()
                .is_ok_and(|key| state.grants.see(&call.caller, &state.grants.names_as_asked(&key))),
            _ => false,
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let call = Call::of(&request);
        match self.status(&call, &request.into_inner().service).await {
            Some(status) => Ok(Response::new(response(*status.borrow()))),
            None => Err(Status::not_found("there is nothing of that name, or no grant lets you know of it")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let call = Call::of(&request);
        let name = request.into_inner().service;
        let status = match self.status(&call, &name).await {
            Some(status) => status,
            None if self.may_wait(&call, &name) => self.daemon.board.watch_unknown(&name),
            None => watch::channel(ServingStatus::ServiceUnknown).1,
        };
        let mut stopping = self.daemon.stopping.subscribe();
        let stopped = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let statuses = WatchStream::new(status).map(|status| Ok(response(status)));
        Ok(Response::new(Box::pin(statuses.take_until(Box::pin(stopped)))))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
