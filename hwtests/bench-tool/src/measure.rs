//! One measuring window: what every load generator does, and what it hands over.

use std::{
    error::Error,
    sync::Barrier,
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::procfs;

/// What went through in one window. A load generator prints it as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Requests that were begun in the window and answered.
    pub requests: u64,
    /// How long the window was.
    pub seconds: f64,
    /// Half of the requests took at most this long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 requests took at most this long.
    pub p99_ms: f64,
    /// The longest one.
    pub max_ms: f64,
    /// Processor time a request.
    pub cpu: Cpu,
}

/// Processor time in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// Of the load generator; of everything, where the signing is done in the same process.
    pub client: f64,
    /// Of the server.
    pub daemon: f64,
    /// Of the processes that the server has started.
    pub drivers: f64,
}

/// When to measure, and whose processor time beside the own.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Requests begun before this are warm-up.
    pub begin: Instant,
    /// No request is begun after this.
    pub end: Instant,
    /// The server's process.
    pub watch: Option<u32>,
}

impl Window {
    /// A window that opens after `warm_up` seconds.
    pub fn new(warm_up: f64, seconds: f64, watch: Option<u32>) -> Self {
        let begin = Instant::now() + Duration::from_secs_f64(warm_up);
        Self { begin, end: begin + Duration::from_secs_f64(seconds), watch }
    }

    /// Reads the processor times when the window opens and when it closes.
    pub fn observe(self) -> JoinHandle<Cpu> {
        thread::spawn(move || {
            sleep(self.begin.saturating_duration_since(Instant::now()));
            let before = Cpu::now(self.watch);
            sleep(self.end.saturating_duration_since(Instant::now()));
            let after = Cpu::now(self.watch);
            Cpu {
                client: after.client - before.client,
                daemon: after.daemon - before.daemon,
                drivers: after.drivers - before.drivers,
            }
        })
    }

    /// Sums up; `latencies` in nanoseconds.
    pub fn close(
        self,
        observer: JoinHandle<Cpu>,
        mut latencies: Vec<u64>,
    ) -> Result<Load, Box<dyn Error + Send + Sync>> {
        let total = observer.join().map_err(|_| "the observer panicked")?;
        if latencies.is_empty() {
            return Err("not one request was answered in the window".into());
        }
        latencies.sort_unstable();
        let requests = latencies.len();
        let quantile = |q: f64| latencies[((requests - 1) as f64 * q).round() as usize] as f64 / 1e6;
        let each = |us: f64| us / requests as f64;
        Ok(Load {
            requests: requests as u64,
            seconds: (self.end - self.begin).as_secs_f64(),
            p50_ms: quantile(0.50),
            p99_ms: quantile(0.99),
            max_ms: quantile(1.0),
            cpu: Cpu { client: each(total.client), daemon: each(total.daemon), drivers: each(total.drivers) },
        })
    }
}

impl Load {
    /// What went through two load generators that ran at once: the sum of the rates, and the worse latency.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let requests = self.requests + other.requests;
        let each = |a: f64, b: f64| (a * self.requests as f64 + b * other.requests as f64) / requests as f64;
        Self {
            requests,
            seconds: self.seconds.max(other.seconds),
            p50_ms: self.p50_ms.max(other.p50_ms),
            p99_ms: self.p99_ms.max(other.p99_ms),
            max_ms: self.max_ms.max(other.max_ms),
            cpu: Cpu {
                client: each(self.cpu.client, other.cpu.client),
                daemon: each(self.cpu.daemon, other.cpu.daemon),
                drivers: each(self.cpu.drivers, other.cpu.drivers),
            },
        }
    }
}

impl Cpu {
    fn now(watch: Option<u32>) -> Self {
        Self {
            client: procfs::cpu_us(std::process::id()),
            daemon: watch.map_or(0.0, procfs::cpu_us),
            drivers: watch.map_or(0.0, |pid| procfs::descendants(pid).into_iter().map(procfs::cpu_us).sum()),
        }
    }
}

/// Threads that each call their own closure again and again. `make` is called in the thread; the first failure of any
/// closure ends the measurement.
pub fn threads<W>(
    count: usize,
    warm_up: f64,
    seconds: f64,
    watch: Option<u32>,
    make: impl Fn() -> Result<W, Box<dyn Error + Send + Sync>> + Sync,
) -> Result<Load, Box<dyn Error + Send + Sync>>
where
    W: FnMut() -> Result<(), Box<dyn Error + Send + Sync>>,
{
    let ready = Barrier::new(count + 1);
    let window = std::sync::OnceLock::<Window>::new();
    let work = || -> Result<Vec<u64>, Box<dyn Error + Send + Sync>> {
        let call = make();
        ready.wait(); // made by all: whoever fails must not keep the others waiting
        ready.wait(); // the window is set
        let (mut call, window) = (call?, window.get().ok_or("no window")?);
        let mut latencies = Vec::with_capacity(1 << 16);
        loop {
            let start = Instant::now();
            if start >= window.end {
                return Ok(latencies);
            }
            call()?;
            if start >= window.begin {
                latencies.push(start.elapsed().as_nanos() as u64);
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        ready.wait();
        let window = *window.get_or_init(|| Window::new(warm_up, seconds, watch));
        let observer = window.observe();
        ready.wait();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| "a worker panicked")??);
        }
        window.close(observer, all)
    })
}
