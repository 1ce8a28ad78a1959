//! The one place where wrappers are put around backends and keys, and in which order.
//!
//! From the outside in, a signature goes through:
//!
//! 1. [`Policed`]: the caller's grants, and whether the key can do what is asked. One for each caller and key. Where there
//!    is an audit log, it records here what goes in and what comes out ([`crate::audit`]): who asks is known, and nothing
//!    that the rest keeps back has left yet.
//! 2. [`Failover`]: where several places hold the key, which of them signs. What follows is around each of them.
//! 3. [`Metered`]: what is counted and timed; what a failure says of the backend's health.
//! 4. [`Queued`]: a place in the backend's bounded queue, or "busy".
//! 5. [`Punctual`]: the deadline, where the backend does not keep it itself.
//! 6. [`Offloaded`]: work that would hold up everybody else goes to another thread.
//! 7. the backend's own signer.

use std::sync::Arc;

use signer_core::{Backend, BackendName, Signer};

use crate::{
    group::Group,
    metrics::{KeyMetrics, Metrics},
    place::Place,
};

mod backend;
mod failover;
mod offload;
mod policy;
mod punctual;
mod queue;

pub(crate) use offload::blocking;
pub(crate) use policy::Policed;
pub(crate) use punctual::{Timely, timed_out};

use backend::BlockingBackend;
use failover::Failover;
use offload::Offloaded;
use punctual::Punctual;
use queue::{Metered, Queued};

/// A backend as the daemon uses it.
pub(crate) fn backend(inside: bool, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    if inside { Arc::new(BlockingBackend(backend)) } else { backend }
}

/// A key as the daemon uses it, apart from who may use it.
pub(crate) fn signer(place: &Arc<Place>, signer: Arc<dyn Signer>) -> Arc<dyn Signer> {
    let metrics = key_metrics(place, place.name(), &*signer);
    let signer: Arc<dyn Signer> = if place.is_inside() {
        Arc::new(Punctual(Offloaded::all(signer)))
    } else {
        // A driver's signer keeps deadlines itself, and works elsewhere but for the hashing.
        Arc::new(Offloaded::hashing(signer))
    };
    let signer = Queued { place: place.clone(), inner: signer };
    Arc::new(Metered { place: place.clone(), metrics, inner: signer })
}

/// A key that several places hold, with each of its members as the daemon uses them. `None` before one was opened.
pub(crate) fn failover(group: &Arc<Group>, metrics: &Arc<Metrics>) -> Option<Arc<dyn Signer>> {
    let info = group.info()?;
    Some(Arc::new(Failover { group: group.clone(), info, metrics: metrics.clone() }))
}

fn key_metrics(place: &Arc<Place>, backend: &BackendName, signer: &dyn Signer) -> KeyMetrics {
    place.metrics.key(backend, &format!("{backend}/{}", signer.info().name))
}
