//! The one place where wrappers are put around backends and keys, and in which order.
//!
//! From the outside in, a signature goes through:
//!
//! 1. [`Policed`]: the caller's grants, and whether the key can do what is asked. One for each caller and key. Where there
//!    is an audit log, it records here what goes in and what comes out ([`crate::audit`]): who asks is known, and nothing
//!    that the rest keeps back has left yet.
//! 2. [`Metered`]: what is counted and timed; what a failure says of the backend's health.
//! 3. [`Queued`]: a place in the backend's bounded queue, or "busy".
//! 4. [`Punctual`]: the deadline, where the backend does not keep it itself.
//! 5. [`Offloaded`]: work that would hold up everybody else goes to another thread.
//! 6. the backend's own signer.

use std::sync::Arc;

use signer_core::{Backend, BackendName, Signer};

use crate::{metrics::KeyMetrics, place::Place};

mod backend;
mod offload;
mod policy;
mod punctual;
mod queue;

pub(crate) use offload::blocking;
pub(crate) use policy::Policed;
pub(crate) use punctual::{Timely, timed_out};

use backend::BlockingBackend;
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

fn key_metrics(place: &Arc<Place>, backend: &BackendName, signer: &dyn Signer) -> KeyMetrics {
    place.metrics.key(backend, &format!("{backend}/{}", signer.info().name))
}
