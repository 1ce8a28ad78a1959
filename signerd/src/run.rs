//! The daemon's life: start, reload, stop.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sd_notify::NotifyState;
use signer_core::BackendName;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    audit::{self, Audit, Event},
    compose,
    config::{AuditConfig, Config, Overrides},
    events::{Events, What},
    grants::Grants,
    health,
    listen::{Listening, lock_state},
    logging,
    metrics::Metrics,
    metrics_server,
    place::{Place, Settings},
    server,
    state::{Daemon, State},
};

/// Backends that are not up by then are waited for in the background.
const START: Duration = Duration::from_secs(5);

/// How long the members of a key have at the start to show that they are the same.
const COMPARE: Duration = Duration::from_secs(5);

/// Why the daemon does not run, as a sentence for people.
pub(crate) enum Failed {
    /// The configuration is not what there is: two members of a key are not the same key.
    Configuration(String),
    Otherwise(String),
}

impl From<String> for Failed {
    fn from(what: String) -> Self {
        Self::Otherwise(what)
    }
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(config: Config, overrides: &Overrides) -> Result<(), Failed> {
    logging::start(&config.log);
    crate::hardening::harden();
    // One thread for calls and drivers' links: each more costs wake-ups. Others only for what blocks.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * cores + 8)
        .thread_keep_alive(Duration::from_secs(10))
        .thread_name("signerd-work")
        .build()
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let result = runtime.block_on(daemon(config, overrides.clone()));
    // What still blocks on a device is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn daemon(config: Config, overrides: Overrides) -> Result<(), Failed> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::new().map_err(|e| format!("signals cannot be received: {e}"))?;
    let _lock = lock_state(&config.state).map_err(|e| e.to_string())?;
    let audit = open_audit(&config).await?;
    let listening = Listening::start(&config).await.map_err(|e| e.to_string())?;
    let metrics_listener = match config.metrics.listen {
        Some(address) => Some(metrics_server::bind(address).await?),
        None => None,
    };

    let metrics = Arc::new(Metrics::new(config.metrics.key_labels));
    let events = Events::new();
    let socket = config.socket.clone();
    let hash = config.text_hash.clone();
    let state = make_state(config, 1, &BTreeMap::new(), audit.as_ref(), &events, &metrics).await;
    if let Err(what) = compare_members(&state).await {
        join_all(state.places.values().map(|place| place.stop())).await;
        return Err(Failed::Configuration(what));
    }
    let daemon = Daemon::new(state, events, metrics);
    let auditing = match &audit {
        Some(audit) => {
            audit.tell(Event::of_daemon("start").with_config(&hash)).await.map_err(|e| e.to_string())?;
            Some(tokio::spawn(audit::watch_over(daemon.clone(), audit.clone())))
        }
        None => None,
    };
    let mut watchers = Watchers::default();
    watchers.follow(&daemon);
    let scraping =
        metrics_listener.map(|listener| tokio::spawn(metrics_server::serve(daemon.clone(), listener)));
    let watchdog = tokio::spawn(feed_watchdog());

    let own = listening.is_own();
    let (listener, socket_guard) = listening.split();
    let serving = tokio::spawn(server::serve(daemon.clone(), listener, own));
    notify(&[NotifyState::Ready]);
    tracing::info!(pid = std::process::id(), "ready: listening on {}", socket.display());

    while let Signal::Reload = signals.next().await {
        reload(&daemon, &overrides, &mut watchers).await;
    }

    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    // Nobody finds the socket any more; those who have are served to the end.
    drop(socket_guard);
    daemon.stopping.send_replace(true);
    let _ = serving.await;
    watchers.stop();
    watchdog.abort();
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    // The last checkpoint wants its key.
    if let Some(audit) = &audit {
        audit.close().await;
    }
    if let Some(auditing) = auditing {
        auditing.abort();
    }
    let until = Instant::now() + Duration::from_secs(1);
    join_all(daemon.state().places.values().map(|place| async move {
        place.drained(until).await;
        place.stop().await;
    }))
    .await;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the audit log, where one is configured. Without it the daemon does not begin.
async fn open_audit(config: &Config) -> Result<Option<Arc<Audit>>, String> {
    let Some(audit) = config.audit.clone() else { return Ok(None) };
    let opened = compose::blocking(move || Audit::open(&audit)).await;
    opened.map(Some).map_err(|e| e.to_string())
}

/// Puts a generation together: backends that are as they were go on, the others are started.
pub(crate) async fn make_state(
    config: Config,
    generation: u64,
    before: &BTreeMap<BackendName, Arc<Place>>,
    audit: Option<&Arc<Audit>>,
    events: &Events,
    metrics: &Arc<Metrics>,
) -> State {
    // Names of users may come over the network.
    let (grants, keys) = (config.grants.clone(), config.keys.clone());
    let compiled = tokio::task::spawn_blocking(move || Grants::compile(&grants, &keys)).await;
    let (grants, warnings) = compiled.unwrap_or_else(|_| Grants::compile(&[], &config.keys));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut places = BTreeMap::new();
    let mut new = Vec::new();
    for backend in &config.backends {
        let queue = backend.queue.unwrap_or(config.limits.queue);
        let settings = Settings { queue, state: config.state.clone().into_boxed_path() };
        let place = if let Some(place) = before.get(&backend.name).filter(|p| p.is_for(backend, &settings)) {
            place.clone()
        } else {
            let place = Place::new(backend.clone(), settings, events.clone(), metrics.clone());
            new.push(place.clone());
            place
        };
        places.insert(backend.name.clone(), place);
    }
    join_all(new.iter().map(|place| async move {
        match timeout(START, place.start()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(backend = %place.name(), "not started: {error}"),
            Err(_) => tracing::warn!(backend = %place.name(), "not started yet"),
        }
    }))
    .await;
    State::new(generation, config, grants, places, audit.cloned())
}

/// Whether the members of each key are the same key, as far as they can be reached. The error is a sentence for people.
pub(crate) async fn compare_members(state: &State) -> Result<(), String> {
    let compared = join_all(state.groups.values().map(|group| group.compare(COMPARE))).await;
    let wrong: Vec<_> = compared.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Reads the configuration again. A broken one changes nothing.
async fn reload(daemon: &Arc<Daemon>, overrides: &Overrides, watchers: &mut Watchers) {
    let now = NotifyState::monotonic_usec_now();
    notify(&now.into_iter().chain([NotifyState::Reloading]).collect::<Vec<_>>());
    let before = daemon.state();
    let Some(file) = before.config.file.clone() else {
        tracing::info!("there is no configuration file to read again");
        notify(&[NotifyState::Ready]);
        return;
    };
    match Config::read(&file, overrides) {
        Err(faults) => {
            tracing::error!("the configuration is not taken over, the one before goes on: {faults}");
        }
        Ok(config) => {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
            tell_what_needs_a_restart(&before.config, &config);
            let state = make_state(
                config,
                before.generation + 1,
                &before.places,
                daemon.audit.as_ref(),
                &daemon.events,
                &daemon.metrics,
            )
            .await;
            if let Err(what) = compare_members(&state).await {
                tracing::error!("the configuration is not taken over, the one before goes on: {what}");
                retire(&state, &before);
            } else {
                record_reload(daemon, &state.config).await;
                daemon.replace(state);
                watchers.follow(daemon);
                retire(&before, &daemon.state());
                daemon.events.tell(None, What::Reloaded);
                tracing::info!("the configuration is read again: {}", file.display());
            }
        }
    }
    notify(&[NotifyState::Ready]);
}

/// What the audit log has to know of a configuration before it holds: what comes after this record was decided by it, or by
/// the one before.
async fn record_reload(daemon: &Daemon, config: &Config) {
    let Some(audit) = &daemon.audit else { return };
    if let Some(config) = &config.audit {
        audit.reconfigure(config);
    }
    if let Err(error) = audit.tell(Event::of_daemon("reload").with_config(&config.text_hash)).await {
        tracing::error!("the new configuration is not in the audit log: {error}");
    }
}

fn tell_what_needs_a_restart(before: &Config, now: &Config) {
    let changed = [
        ("socket", before.socket != now.socket),
        ("socket_mode", before.socket_mode != now.socket_mode),
        ("socket_group", before.socket_group != now.socket_group),
        ("state", before.state != now.state),
        ("[log]", before.log != now.log),
        ("[metrics]", before.metrics != now.metrics),
        (
            "[audit]",
            before.audit.as_ref().map(AuditConfig::fixed) != now.audit.as_ref().map(AuditConfig::fixed),
        ),
    ];
    for (setting, _) in changed.into_iter().filter(|(_, changed)| *changed) {
        tracing::warn!("{setting} has changed: that takes effect when the daemon is started again");
    }
}

/// Ends backends that no configuration has any more, once what they were asked is answered.
fn retire(before: &State, now: &State) {
    for (name, place) in &before.places {
        if now.places.get(name).is_some_and(|p| Arc::ptr_eq(p, place)) {
            continue;
        }
        let place = place.clone();
        tokio::spawn(async move {
            place.drained(Instant::now() + server::GRACE).await;
            place.stop().await;
        });
    }
}

/// The tasks that watch over backends.
#[derive(Default)]
struct Watchers(Vec<(Arc<Place>, JoinHandle<()>)>);

impl Watchers {
    /// One for each backend that there is now.
    fn follow(&mut self, daemon: &Arc<Daemon>) {
        let state = daemon.state();
        let is_there = |place: &Arc<Place>| state.places.values().any(|p| Arc::ptr_eq(p, place));
        self.0.retain(|(place, task)| {
            let keep = is_there(place);
            if !keep {
                task.abort();
            }
            keep
        });
        for place in state.places.values() {
            if !self.0.iter().any(|(p, _)| Arc::ptr_eq(p, place)) {
                let task = tokio::spawn(health::watch_over(daemon.clone(), place.clone()));
                self.0.push((place.clone(), task));
            }
        }
    }

    fn stop(&mut self) {
        self.0.drain(..).for_each(|(_, task)| task.abort());
    }
}

enum Signal {
    Reload,
    Stop,
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// Tells systemd, where that started the daemon.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("systemd could not be told: {e}");
    }
}

/// Tells systemd's watchdog that calls are still served: from the very thread that serves them.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval(limit / 3);
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}
