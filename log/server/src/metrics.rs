//! Figures for Prometheus, in its text form.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use signer_log_engine::Log;

/// The upper ends of the buckets of how long an entry takes, in milliseconds.
const BUCKETS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20_000];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Requests by the status they were answered with: 2xx, 4xx but 409 and 429, 409, 429, 5xx.
    answers: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

const CLASSES: [&str; 5] = ["accepted", "malformed", "duplicate", "throttled", "unavailable"];

impl Metrics {
    /// An answer to a submission.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        let class = match status {
            200..=299 => 0,
            409 => 2,
            429 => 3,
            400..=499 => 1,
            _ => 4,
        };
        self.answers[class].fetch_add(1, Relaxed);
        if class != 0 {
            return;
        }
        let millis = took.as_secs_f64() * 1000.0;
        if let Some(at) = BUCKETS.iter().position(|end| millis <= *end as f64) {
            self.buckets[at].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// All figures as text.
    pub(crate) fn to_text(&self, log: &Log) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "# TYPE signer_log_requests_total counter");
        for (class, count) in CLASSES.iter().zip(&self.answers) {
            let _ = writeln!(out, "signer_log_requests_total{{outcome=\"{class}\"}} {}", count.load(Relaxed));
        }
        let _ = writeln!(out, "# TYPE signer_log_entry_seconds histogram");
        let mut sum = 0;
        for (end, count) in BUCKETS.iter().zip(&self.buckets) {
            sum += count.load(Relaxed);
            let _ = writeln!(out, "signer_log_entry_seconds_bucket{{le=\"{}\"}} {sum}", *end as f64 / 1000.0);
        }
        let count = self.count.load(Relaxed);
        let _ = writeln!(out, "signer_log_entry_seconds_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "signer_log_entry_seconds_sum {}", self.micros.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "signer_log_entry_seconds_count {count}");
        let figures = [
            ("tree_size", "gauge", log.published().checkpoint.size),
            ("batches_total", "counter", log.batches()),
            ("waiting", "gauge", log.waiting() as u64),
            ("healthy", "gauge", u64::from(log.health().is_ok())),
        ];
        for (name, kind, value) in figures {
            let _ = writeln!(out, "# TYPE signer_log_{name} {kind}\nsigner_log_{name} {value}");
        }
        out
    }
}
