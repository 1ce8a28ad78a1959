//! A monitor at work.

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::json;
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{Checkpoint, now_millis};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    config::{Config, Destination},
    evidence::Broken,
    follow::{Follower, Round, Trouble, lock},
    metrics::Metrics,
    report::{self, Event, Report},
    sinks::{Bell, Delivery, Sink},
    state::State,
    webhook::Webhook,
};
use crate::{
    cli::Monitor,
    commands::{Readable, blocking},
    http::{self, answer},
    serve::listen,
};

/// The log, or a place for reports, cannot be reached.
const AWAY: u8 = 3;
/// The log cannot be believed any more: the same code as `mirror`'s.
const INCONSISTENT: u8 = 4;
/// `--once`: the checkpoint is older than `--max-age`.
const STALE: u8 = 5;
/// `--once --fail-on-match`: something was reported.
const MATCHED: u8 = 6;

/// Reports that may wait at one place; when there are more, nothing more is read.
const BACKLOG: u64 = 100_000;
/// How long the last reports may take at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(command: Monitor) -> Result<ExitCode> {
    let config = Config::load(&command)?;
    let log = Readable::open(&config.which).await?;
    let sinks = config.reports.iter().map(sink).collect::<Result<Vec<_>>>()?;
    if command.check_config {
        println!("{} rules, {} places for reports: all is in order", config.rules.len(), sinks.len());
        return Ok(ExitCode::SUCCESS);
    }
    let names = sinks.iter().map(Sink::name).collect();
    let state = Arc::new(Mutex::new(State::open(&config.state, &log.key, names)?));
    let metrics = Arc::new(Metrics::default());
    let bell = Arc::new(Bell::default());
    let delivery = Arc::new(Delivery {
        state: state.clone(),
        metrics: metrics.clone(),
        bell: bell.clone(),
        ending: AtomicBool::new(false),
        end: Mutex::new(None),
        hopeless: Mutex::new(None),
    });
    warn_of_the_forgotten(&state, &sinks)?;
    let threads = sinks.into_iter().map(|sink| deliver(&delivery, sink)).collect::<Result<Vec<_>>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (served, end_of_metrics) = watch::channel(false);
    if let Some(address) = config.metrics {
        let (listener, metrics) = (listen(address)?, metrics.clone());
        let text = move || answer(StatusCode::OK, "text/plain; version=0.0.4", metrics.to_text());
        tokio::spawn(http::accept(listener, end_of_metrics, move |_, _| std::future::ready(text())));
    }
    let follower = Follower {
        objects: log.objects,
        format: log.kind.format(),
        rules: config.rules.clone(),
        unreadable: config.unreadable,
        start: config.start,
        target: None,
        key: log.key,
    };
    let at_work = Arc::new(AtWork {
        config,
        follower: Mutex::new(follower),
        state,
        metrics,
        bell,
        stop: stop.clone(),
        once: command.once,
        trouble: Mutex::new(None),
    });
    let outcome = rounds(&at_work, &delivery).await;
    // What was found is told before the end, as far as it can be.
    let once = at_work.once;
    let told = blocking(move || Ok(finish(&delivery, threads, once))).await?;
    let _ = served.send(true);
    let outcome = outcome?;
    match told {
        // The log comes first.
        Some(e) if matches!(outcome, Outcome::Broken) => eprintln!("signer-log: {e}"),
        Some(e) => return Err(e),
        None => {}
    }
    Ok(match outcome {
        Outcome::Broken => ExitCode::from(INCONSISTENT),
        Outcome::Stale => ExitCode::from(STALE),
        Outcome::Away(error) => {
            eprintln!("signer-log: {error}");
            ExitCode::from(AWAY)
        }
        Outcome::Done { reports } if reports > 0 && command.fail_on_match => ExitCode::from(MATCHED),
        Outcome::Done { .. } => ExitCode::SUCCESS,
    })
}

fn sink(destination: &Destination) -> Result<Sink> {
    Ok(match destination {
        Destination::Stdout => Sink::Stdout,
        Destination::File(path) => Sink::File(path.clone()),
        Destination::Webhook { url, secret, ca_file } => {
            Sink::Webhook(Box::new(Webhook::new(url, secret.as_deref(), ca_file.as_deref())?))
        }
    })
}

fn warn_of_the_forgotten(state: &Mutex<State>, sinks: &[Sink]) -> Result<()> {
    for (name, count) in lock(state).backlog()? {
        if sinks.iter().all(|sink| sink.name() != name) {
            tracing::warn!("{count} reports wait for {name}, which nobody asks for any more");
        }
    }
    Ok(())
}

fn deliver(delivery: &Arc<Delivery>, sink: Sink) -> Result<JoinHandle<()>> {
    let delivery = delivery.clone();
    std::thread::Builder::new()
        .name("monitor-report".into())
        .spawn(move || delivery.run(&sink))
        .map_err(|e| Error::internal("a thread cannot be started").vendor(e))
}

/// Waits for the last reports. What could not be told, if anything.
fn finish(delivery: &Delivery, threads: Vec<JoinHandle<()>>, once: bool) -> Option<Error> {
    delivery.end(if once { LAST_PATIENCE } else { LAST_PATIENCE / 4 }, once);
    for thread in threads {
        let _ = thread.join();
    }
    let hopeless = delivery.hopeless.lock().unwrap_or_else(PoisonError::into_inner).take();
    let waiting = lock(&delivery.state).backlog().unwrap_or_default();
    hopeless.or_else(|| {
        let waiting: u64 = waiting.iter().map(|(_, count)| count).sum();
        (waiting > 0).then(|| {
            Error::new(ErrorKind::DeviceGone, format!("{waiting} reports have not arrived yet"))
                .next("they are kept, and sent at the next start")
        })
    })
}

/// How it ended.
enum Outcome {
    Done {
        reports: u64,
    },
    Stale,
    Broken,
    /// The log could not be followed, for a reason that may pass.
    Away(Error),
}

/// What the rounds need.
struct AtWork {
    config: Config,
    follower: Mutex<Follower>,
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    once: bool,
    /// What was wrong in the last round, so that it is said once.
    trouble: Mutex<Option<String>>,
}

/// Round after round, until it is enough.
async fn rounds(at_work: &Arc<AtWork>, delivery: &Arc<Delivery>) -> Result<Outcome> {
    let on = |kind| signal(kind).map_err(|e| Error::internal("signals cannot be received").vendor(e));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut reports = 0;
    loop {
        let this = at_work.clone();
        let mut turn = Box::pin(blocking(move || this.turn()));
        let turn = tokio::select! {
            turn = &mut turn => turn?,
            _ = terminate.recv() => { at_work.stop.store(true, Ordering::Relaxed); turn.await? }
            _ = interrupt.recv() => { at_work.stop.store(true, Ordering::Relaxed); turn.await? }
        };
        reports += turn.reports;
        if turn.broken {
            return Ok(Outcome::Broken);
        }
        let hopeless = delivery.hopeless.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = hopeless {
            return Err(error);
        }
        if at_work.stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Done { reports });
        }
        if at_work.once {
            return match turn.error {
                _ if turn.stale => Ok(Outcome::Stale),
                Some(error) => Ok(Outcome::Away(error)),
                None => Ok(Outcome::Done { reports }),
            };
        }
        tokio::select! {
            () = tokio::time::sleep(at_work.config.interval) => {}
            _ = terminate.recv() => return Ok(Outcome::Done { reports }),
            _ = interrupt.recv() => return Ok(Outcome::Done { reports }),
        }
    }
}

/// What one turn has brought.
#[derive(Default)]
struct Turn {
    reports: u64,
    stale: bool,
    broken: bool,
    error: Option<Error>,
}

impl AtWork {
    /// One turn: the newest checkpoint, and all entries up to it. Blocks.
    fn turn(&self) -> Result<Turn> {
        let mut turn = Turn::default();
        let outcome = self.follow(&mut turn);
        self.watch_backlog()?;
        match outcome {
            Ok(()) => {
                if let Some(before) = self.trouble().take() {
                    tracing::info!("the log can be followed again, after: {before}");
                }
            }
            Err(Trouble::Passing(e)) => {
                self.metrics.troubles.fetch_add(1, Ordering::Relaxed);
                let text = e.to_string();
                if !self.once && self.trouble().replace(text.clone()) != Some(text) {
                    tracing::warn!("the log cannot be followed at the moment: {e}");
                }
                turn.error = Some(e);
            }
            Err(Trouble::Broken(broken)) => {
                self.keep(&broken)?;
                turn.broken = true;
            }
        }
        turn.stale = self.look_at_the_age(turn.error.as_ref())?;
        Ok(turn)
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, turn: &mut Turn) -> Result<(), Trouble> {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let first = lock(&self.state).position()?.is_none();
        let round = follower.checkpoint(&self.state)?;
        if round.older {
            tracing::warn!(
                "the log gives an older checkpoint than before, which it can still prove; a cache?"
            );
        }
        let begin = lock(&self.state).position()?.map_or(0, |p| p.tree.size());
        let size = follower.target.as_ref().map_or(0, |c| c.size);
        self.metrics.size.store(size, Ordering::Relaxed);
        if first {
            tracing::info!("{} has {size} entries; reading from entry {begin} on", follower.key.name());
        }
        let mut said = Instant::now();
        loop {
            let round = follower.entries(&self.state)?;
            self.count(&round);
            turn.reports += round.reports;
            if !round.more || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.watch_backlog()?;
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                tracing::info!("{} of {size} entries read", self.metrics.position.load(Ordering::Relaxed));
            }
        }
    }

    fn count(&self, round: &Round) {
        let metrics = &self.metrics;
        metrics.entries.fetch_add(round.entries, Ordering::Relaxed);
        metrics.reports.fetch_add(round.reports, Ordering::Relaxed);
        metrics.unreadable.fetch_add(round.unreadable, Ordering::Relaxed);
        if let Ok(Some(position)) = lock(&self.state).position() {
            metrics.position.store(position.tree.size(), Ordering::Relaxed);
            metrics.fresh.store(position.fresh, Ordering::Relaxed);
        }
        if round.reports > 0 {
            self.bell.ring();
        }
    }

    /// Waits while too many reports wait: nothing is forgotten, and nothing grows without end.
    fn watch_backlog(&self) -> Result<()> {
        let mut said = false;
        loop {
            let backlog = lock(&self.state).backlog()?;
            for (sink, count) in &backlog {
                self.metrics.waiting(sink, *count);
            }
            let Some((sink, count)) = backlog.iter().find(|(_, count)| *count > BACKLOG) else {
                return Ok(());
            };
            if self.stop.load(Ordering::Relaxed) || self.once {
                return Ok(());
            }
            if !said {
                tracing::warn!("{count} reports wait for {sink}: nothing more is read until it takes them");
                said = true;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Keeps the evidence, and says what has happened.
    fn keep(&self, broken: &Broken) -> Result<()> {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let key = &follower.key;
        self.metrics.inconsistent.store(1, Ordering::Relaxed);
        let kept = broken.keep(&self.config.evidence, key);
        let folder = match &kept {
            Ok(folder) => {
                tracing::error!("INCONSISTENT: {}; the evidence is in {}", broken.reason, folder.display());
                Some(folder.as_path())
            }
            Err(e) => {
                tracing::error!(
                    "INCONSISTENT: {}; the evidence cannot be kept in {}: {e}; it is in the report",
                    broken.reason,
                    self.config.evidence.display()
                );
                None
            }
        };
        let report = Report::of_log(
            key.name(),
            Event::Inconsistent,
            &[&broken.identity()],
            &format!("{} is not consistent: {}", key.name(), broken.reason),
            broken.details(folder),
        );
        lock(&self.state).tell(&report)?;
        self.bell.ring();
        Ok(())
    }

    /// Whether the newest checkpoint is older than it may be; says so once, and once when that is over.
    fn look_at_the_age(&self, error: Option<&Error>) -> Result<bool> {
        let Some(position) = lock(&self.state).position()? else { return Ok(false) };
        self.metrics.fresh.store(position.fresh, Ordering::Relaxed);
        let Some(most) = self.config.max_age else { return Ok(false) };
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let checkpoint = Checkpoint::verified(&position.note, &follower.key)?;
        let origin = follower.key.name();
        let age = Duration::from_millis(now_millis().saturating_sub(position.fresh));
        let stale = age > most;
        self.metrics.stale.store(u64::from(stale), Ordering::Relaxed);
        let what = position.fresh.to_be_bytes();
        let details = json!({ "checkpoint": report::checkpoint(&checkpoint), "age_seconds": age.as_secs() });
        let report = if stale {
            let why = error.map(|e| format!("; the log cannot be read: {e}")).unwrap_or_default();
            let message = format!(
                "the newest checkpoint of {origin} is {} s old, more than {} s{why}",
                age.as_secs(),
                most.as_secs()
            );
            Report::of_log(origin, Event::Stale, &[&what], &message, details)
        } else {
            // Over is only what was said before.
            let mut state = lock(&self.state);
            let Some(before) = state.stale_since()? else { return Ok(false) };
            let message = format!("{origin} has a fresh checkpoint again");
            let report = Report::of_log(origin, Event::Fresh, &[&before], &message, details);
            state.tell(&report)?;
            state.set_stale_since(None)?;
            self.bell.ring();
            return Ok(false);
        };
        let mut state = lock(&self.state);
        state.set_stale_since(Some(&what))?;
        if state.tell(&report)? {
            tracing::warn!(
                "the newest checkpoint is {} s old, more than {} s",
                age.as_secs(),
                most.as_secs()
            );
            self.bell.ring();
        }
        Ok(true)
    }
}
