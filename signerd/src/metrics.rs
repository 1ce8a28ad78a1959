//! What is measured, in Prometheus' terms.

use std::{
    fmt,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use signer_core::{BackendName, Error, Result};

use crate::{grants::Operations, group::Standing, state::State};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    backend: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    backend: String,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    key: String,
    member: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    key: String,
    outcome: &'static str,
}

/// Everything that is measured.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<OperationLabels, Histogram, fn() -> Histogram>,
    keys: Option<Family<KeyLabels, Counter>>,
    in_flight: Family<BackendLabels, Gauge>,
    queue: Family<BackendLabels, Gauge>,
    up: Family<BackendLabels, Gauge>,
    restarts: Family<BackendLabels, Counter>,
    failovers: Family<BackendLabels, Counter>,
    members: Option<Family<MemberLabels, Gauge>>,
    degraded: Gauge,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Connections that were closed at once, because there were too many.
    pub(crate) refused: Counter,
    /// Bytes of long messages that are held.
    memory: Gauge,
    audit_up: Gauge,
    audit_records: Counter,
    audit_unsigned: Gauge,
}

/// The word for success among outcomes; all others are names of kinds of errors.
const OK: &str = "OK";

/// 25 µs to 26 s.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_025, 2.0, 21))
}

impl Metrics {
    pub(crate) fn new(key_labels: bool) -> Self {
        let mut registry = Registry::with_prefix("signerd");
        let mut this = Self {
            registry: Registry::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(buckets),
            keys: key_labels.then(Family::default),
            in_flight: Family::default(),
            queue: Family::default(),
            up: Family::default(),
            restarts: Family::default(),
            failovers: Family::default(),
            members: key_labels.then(Family::default),
            degraded: Gauge::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
            memory: Gauge::default(),
            audit_up: Gauge::default(),
            audit_records: Counter::default(),
            audit_unsigned: Gauge::default(),
        };
        registry.register(
            "requests",
            "Requests by backend, operation and outcome (OK or the kind of error)",
            this.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From the decision that a request may be made to its answer",
            this.latency.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests that wait for or are worked on by a backend",
            this.in_flight.clone(),
        );
        registry.register(
            "queue_limit",
            "How many of them there may be before others are answered BUSY",
            this.queue.clone(),
        );
        registry.register("backend_up", "1 when the backend's last health check went well", this.up.clone());
        registry.register(
            "driver_restarts",
            "How often a driver process was started again",
            this.restarts.clone(),
        );
        registry.register(
            "failovers",
            "Signatures that another member of their key made, because this backend failed or was slow",
            this.failovers.clone(),
        );
        registry.register(
            "keys_degraded",
            "Keys of several members of which at least one cannot be used",
            this.degraded.clone(),
        );
        if let Some(members) = &this.members {
            let what = "1 when this member of the key can be used";
            registry.register("key_member_up", what, members.clone());
        }
        registry.register("connections", "Connections that are open", this.connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once, because there were too many",
            this.refused.clone(),
        );
        registry.register(
            "message_bytes",
            "Bytes of long messages that are held in memory",
            this.memory.clone(),
        );
        registry.register(
            "audit_up",
            "0 when nothing is signed because it could not be recorded",
            this.audit_up.clone(),
        );
        registry.register("audit_records", "Records in the audit log", this.audit_records.clone());
        registry.register(
            "audit_unsigned",
            "Records that no checkpoint covers yet",
            this.audit_unsigned.clone(),
        );
        if let Some(keys) = &this.keys {
            registry.register("key_signatures", "Signatures by key and outcome", keys.clone());
        }
        this.registry = registry;
        this
    }

    /// Notes how a request ended.
    pub(crate) fn observe<T>(
        &self,
        backend: &BackendName,
        operation: Operations,
        began: Instant,
        result: &Result<T>,
    ) {
        let outcome = result.as_ref().map_or_else(|e| e.kind().name(), |_| OK);
        self.count(backend, operation, outcome);
        let labels = OperationLabels { backend: backend.to_string(), operation: name(operation) };
        self.latency.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    }

    /// Notes that a caller lacked a grant.
    pub(crate) fn denied(&self, backend: &BackendName, operation: Operations) {
        self.count(backend, operation, signer_core::ErrorKind::Denied.name());
    }

    /// Notes that a key was signed with elsewhere, because this backend did not.
    pub(crate) fn failed_over(&self, backend: Option<&BackendName>) {
        let backend = backend.map(ToString::to_string).unwrap_or_default();
        self.failovers.get_or_create(&BackendLabels { backend }).inc();
    }

    fn count(&self, backend: &BackendName, operation: Operations, outcome: &'static str) {
        let labels = RequestLabels { backend: backend.to_string(), operation: name(operation), outcome };
        self.requests.get_or_create(&labels).inc();
    }

    /// The instruments of one key, found once.
    pub(crate) fn key(&self, backend: &BackendName, reference: &str) -> KeyMetrics {
        let sign = OperationLabels { backend: backend.to_string(), operation: name(Operations::SIGN) };
        let ok = RequestLabels { backend: backend.to_string(), operation: sign.operation, outcome: OK };
        let of_key = |outcome| KeyLabels { key: reference.to_owned(), outcome };
        KeyMetrics {
            backend: backend.clone(),
            reference: reference.to_owned(),
            ok: self.requests.get_or_create_owned(&ok),
            latency: self.latency.get_or_create_owned(&sign),
            requests: self.requests.clone(),
            key_ok: self.keys.as_ref().map(|keys| keys.get_or_create_owned(&of_key(OK))),
            keys: self.keys.clone(),
        }
    }

    /// All of it as text.
    pub(crate) fn encode(&self, state: &State, memory: usize) -> Result<String, fmt::Error> {
        self.memory.set(gauge(memory));
        self.audit_up.set(1);
        if let Some(audit) = &state.audit {
            let condition = audit.condition();
            self.audit_up.set(i64::from(audit.trouble().is_none()));
            self.audit_records.inner().store(condition.durable, Relaxed);
            let unsigned = condition.durable - condition.signed.unwrap_or_default();
            self.audit_unsigned.set(i64::try_from(unsigned).unwrap_or(i64::MAX));
        }
        for family in [&self.in_flight, &self.queue, &self.up] {
            family.clear();
        }
        self.members.iter().for_each(Family::clear);
        for place in state.places.values() {
            let labels = BackendLabels { backend: place.name().to_string() };
            self.in_flight.get_or_create(&labels).set(gauge(place.in_flight()));
            self.queue.get_or_create(&labels).set(gauge(place.queue_limit()));
            self.up.get_or_create(&labels).set(i64::from(place.trouble().is_none()));
            self.restarts.get_or_create(&labels).inner().store(place.restarts(), Relaxed);
        }
        let mut degraded = 0;
        for group in state.groups.values() {
            let standings = group.standings();
            let is_up = |standing: &Standing| matches!(standing, Standing::Ok);
            degraded += usize::from(!standings.iter().all(|(_, s)| is_up(s)));
            let Some(members) = &self.members else { continue };
            for (member, standing) in &standings {
                let labels = MemberLabels { key: group.name().to_string(), member: (*member).to_owned() };
                members.get_or_create(&labels).set(i64::from(is_up(standing)));
            }
        }
        self.degraded.set(gauge(degraded));
        let mut buffer = String::new();
        text::encode(&mut buffer, &self.registry)?;
        Ok(buffer)
    }
}

/// What is measured for each signature, ready at hand.
pub(crate) struct KeyMetrics {
    backend: BackendName,
    reference: String,
    ok: Counter,
    latency: Histogram,
    requests: Family<RequestLabels, Counter>,
    key_ok: Option<Counter>,
    keys: Option<Family<KeyLabels, Counter>>,
}

impl KeyMetrics {
    pub(crate) fn signed(&self, took: Duration) {
        self.ok.inc();
        self.latency.observe(took.as_secs_f64());
        if let Some(key_ok) = &self.key_ok {
            key_ok.inc();
        }
    }

    pub(crate) fn failed(&self, took: Duration, error: &Error) {
        let outcome = error.kind().name();
        self.latency.observe(took.as_secs_f64());
        let labels =
            RequestLabels { backend: self.backend.to_string(), operation: name(Operations::SIGN), outcome };
        self.requests.get_or_create(&labels).inc();
        if let Some(keys) = &self.keys {
            keys.get_or_create(&KeyLabels { key: self.reference.clone(), outcome }).inc();
        }
    }
}

fn name(operation: Operations) -> &'static str {
    operation.name()
}

fn gauge(value: usize) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
