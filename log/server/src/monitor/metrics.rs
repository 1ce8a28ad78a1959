//! Figures of a monitor for Prometheus, in its text form.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use signer_log_engine::now_millis;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Entries that were read and proven.
    pub(super) entries: AtomicU64,
    pub(super) reports: AtomicU64,
    pub(super) unreadable: AtomicU64,
    /// Rounds that went wrong and may be over by themselves.
    pub(super) troubles: AtomicU64,
    /// How far the log was read, and how long it is.
    pub(super) position: AtomicU64,
    pub(super) size: AtomicU64,
    /// Milliseconds since 1970: see [`super::state::Position`].
    pub(super) fresh: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) inconsistent: AtomicU64,
    sinks: Mutex<BTreeMap<String, Sink>>,
}

#[derive(Debug, Default)]
struct Sink {
    delivered: u64,
    failures: u64,
    waiting: u64,
}

/// A figure that each place has: its name, its kind, and itself.
type OfSink = (&'static str, &'static str, fn(&Sink) -> u64);

impl Metrics {
    fn sink(&self, name: &str, change: impl FnOnce(&mut Sink)) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        change(sinks.entry(name.to_owned()).or_default());
    }

    pub(super) fn delivered(&self, sink: &str, count: u64) {
        self.sink(sink, |s| {
            s.delivered += count;
            s.waiting = s.waiting.saturating_sub(count);
        });
    }

    pub(super) fn failed(&self, sink: &str) {
        self.sink(sink, |s| s.failures += 1);
    }

    pub(super) fn waiting(&self, sink: &str, count: u64) {
        self.sink(sink, |s| s.waiting = count);
    }

    /// All figures as text.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let fresh = self.fresh.load(Relaxed);
        let age = if fresh == 0 { 0 } else { now_millis().saturating_sub(fresh) / 1000 };
        let figures = [
            ("entries_total", "counter", self.entries.load(Relaxed)),
            ("reports_total", "counter", self.reports.load(Relaxed)),
            ("unreadable_entries_total", "counter", self.unreadable.load(Relaxed)),
            ("failed_rounds_total", "counter", self.troubles.load(Relaxed)),
            ("position", "gauge", self.position.load(Relaxed)),
            ("tree_size", "gauge", self.size.load(Relaxed)),
            ("checkpoint_age_seconds", "gauge", age),
            ("stale", "gauge", self.stale.load(Relaxed)),
            ("inconsistent", "gauge", self.inconsistent.load(Relaxed)),
        ];
        for (name, kind, value) in figures {
            let _ =
                writeln!(out, "# TYPE signer_log_monitor_{name} {kind}\nsigner_log_monitor_{name} {value}");
        }
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let of_sinks: [OfSink; 3] = [
            ("delivered_total", "counter", |s| s.delivered),
            ("delivery_failures_total", "counter", |s| s.failures),
            ("waiting_reports", "gauge", |s| s.waiting),
        ];
        for (name, kind, figure) in of_sinks {
            let _ = writeln!(out, "# TYPE signer_log_monitor_{name} {kind}");
            for (sink, figures) in &*sinks {
                let sink = sink.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(out, "signer_log_monitor_{name}{{sink=\"{sink}\"}} {}", figure(figures));
            }
        }
        out
    }
}
