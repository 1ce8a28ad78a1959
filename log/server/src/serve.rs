//! A log being served: everything put together in one place.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::StatusCode;
use signer_core::{Error, ErrorKind, PublicKey, Result, Signer};
use signer_log_engine::{CheckpointSigner, Limits, Log};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    certificate::{CertificateLog, Roots, Usages},
    http::{self, Bodies, answer},
    limits::Rate,
    location::Opened,
    page::Page,
    place::{Description, Kind},
    route::{App, Personality},
    signature::{self, Algorithms, Options, SignatureLog},
    witness::Panel,
};

/// What an operator may choose. `Default` is what `signer-log serve` does when nothing is said.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where HTTP and, for a signature log, gRPC are answered.
    pub listen: Vec<SocketAddr>,
    /// Where figures are given, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Entries that may wait.
    pub waiting: usize,
    /// Requests a second by one address; `None` for any number.
    pub rate: Option<u32>,
    /// How long a caller waits at most.
    pub patience: Duration,
    /// The accepted roots of a certificate log, PEM.
    pub roots: Option<PathBuf>,
    /// Extended key usages, one of which a certificate must have; `Any` for all.
    pub usages: Vec<String>,
    /// What may have signed what is in a signature log; empty for the usual.
    pub algorithms: Vec<String>,
    /// Whether a signature log takes on `dsseRequestV002`.
    pub dsse: bool,
    /// Whether a signature log answers what it has already with the proof instead of 409.
    pub answer_duplicates: bool,
    /// Whether there is a page for people, at `/` and below `/ui/`.
    pub page: bool,
    /// Whether the page finds entries by hash and identity, which takes an index beside the log.
    pub search: bool,
    /// Who cosigns the checkpoints.
    pub witnesses: Option<Arc<Panel>>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 3000))],
            metrics: None,
            waiting: Limits::default().waiting,
            rate: None,
            patience: Duration::from_secs(20),
            roots: None,
            usages: vec!["CodeSigning".to_owned()],
            algorithms: Vec::new(),
            dsse: true,
            answer_duplicates: false,
            page: true,
            search: true,
            witnesses: None,
        }
    }
}

/// A log that is being served. It ends when it is told to, or dropped.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    log: Log,
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The log itself.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Ends it: what is at work is finished, and the folder is free afterwards.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.log.close().await;
    }
}

/// Opens the log of a folder and serves it. The signer must be the key that the log was made with, wherever it is.
pub async fn serve(folder: &Path, signer: Arc<dyn Signer>, options: ServeOptions) -> Result<Running> {
    Description::read(folder)?;
    serve_at(&Opened::folder(folder)?, signer, options).await
}

/// The same for a place that is open already.
pub(crate) async fn serve_at(
    place: &Opened,
    signer: Arc<dyn Signer>,
    options: ServeOptions,
) -> Result<Running> {
    let description = place.description()?;
    let limits = Limits { waiting: options.waiting, frozen: place.is_frozen()?, ..Limits::default() };
    let mut checkpoints = checkpoint_signer(&description, signer.clone())?;
    if let Some(panel) = &options.witnesses {
        checkpoints = checkpoints.witnessed(panel.clone());
    }
    let storage = place.storage.clone();
    let log = Log::open(storage, description.kind.format(), checkpoints, limits).await?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let personality = match description.kind {
        Kind::Signature => signature_log(&log, &options, &mut tasks, stopped.clone())?,
        Kind::Certificate => certificate_log(&log, signer, &options, &mut tasks, stopped.clone())?,
    };
    let page = if options.page {
        let witnesses = options.witnesses.as_ref().map(|panel| panel.keys()).unwrap_or_default();
        let (page, ended) = Page::new(&log, description.kind, options.search, witnesses, stopped.clone())?;
        tasks.spawn(async move {
            if let Some(ended) = ended {
                let _ = ended.await;
            }
        });
        Some(page)
    } else {
        None
    };
    let app = Arc::new(App {
        log: log.clone(),
        personality,
        page,
        rate: Rate::new(options.rate),
        bodies: Bodies::default(),
        metrics: Arc::default(),
    });
    let mut addresses = Vec::new();
    for address in &options.listen {
        let listener = listen(*address)?;
        addresses.push(listener.local_addr().unwrap_or(*address));
        let app = app.clone();
        tasks.spawn(http::accept(listener, stopped.clone(), move |peer, request| {
            app.clone().handle(peer, request)
        }));
    }
    if let Some(address) = options.metrics {
        let listener = listen(address)?;
        let (metrics, log) = (app.metrics.clone(), log.clone());
        let text = move || answer(StatusCode::OK, "text/plain; version=0.0.4", metrics.to_text(&log));
        tasks.spawn(http::accept(listener, stopped, move |_, _| std::future::ready(text())));
    }
    Ok(Running { addresses, stop, tasks, log })
}

/// The code that signs for a log, with the key that the log was made with.
pub(crate) fn checkpoint_signer(
    description: &Description,
    signer: Arc<dyn Signer>,
) -> Result<CheckpointSigner> {
    let expected = PublicKey::from_pem(&description.public_key)?;
    if signer.info().public_key != expected {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("the key {} is not the one that the log was made with", description.key),
        )
        .next("give --key the right one, or make a new log: a log keeps its key for life"));
    }
    CheckpointSigner::new(&description.origin, signer, description.kind == Kind::Certificate)
}

fn signature_log(
    log: &Log,
    options: &ServeOptions,
    tasks: &mut JoinSet<()>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Personality> {
    let chosen = Options {
        algorithms: Algorithms::named(&options.algorithms)?,
        dsse: options.dsse,
        answer_duplicates: options.answer_duplicates,
        patience: options.patience,
    };
    let signature_log = SignatureLog { log: log.clone(), options: Arc::new(chosen) };
    let (reporter, health) = tonic_health::server::health_reporter();
    let healthy = log.clone();
    tasks.spawn(async move {
        const SERVICE: &str = "dev.sigstore.rekor.v2.Rekor";
        loop {
            let status = match healthy.health() {
                Ok(()) => tonic_health::ServingStatus::Serving,
                Err(_) => tonic_health::ServingStatus::NotServing,
            };
            reporter.set_service_status("", status).await;
            reporter.set_service_status(SERVICE, status).await;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                _ = stopped.changed() => return,
            }
        }
    });
    let routes =
        tonic::service::Routes::new(signature::service(signature_log.clone())).add_service(health).prepare();
    Ok(Personality::Signature(signature_log, routes))
}

fn certificate_log(
    log: &Log,
    signer: Arc<dyn Signer>,
    options: &ServeOptions,
    tasks: &mut JoinSet<()>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Personality> {
    let roots = options.roots.as_ref().ok_or_else(|| {
        Error::bad_request("a certificate log needs the roots that it accepts")
            .next("give --roots a PEM file with them")
    })?;
    let roots = Roots::read(roots)?;
    let follow = roots.clone().follow();
    tasks.spawn(async move {
        tokio::select! {
            () = follow => {}
            _ = stopped.changed() => {}
        }
    });
    Ok(Personality::Certificate(CertificateLog {
        log: log.clone(),
        signer,
        roots,
        usages: Arc::new(Usages::named(&options.usages)?),
        patience: options.patience,
        issuers: Arc::new(Mutex::new(HashSet::new())),
    }))
}

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let cannot = |e: std::io::Error| {
        Error::new(ErrorKind::DeviceGone, format!("the log cannot listen on {address}"))
            .vendor(e)
            .next("choose another with --listen")
    };
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
    let socket = socket.map_err(cannot)?;
    socket.set_reuseaddr(true).map_err(cannot)?;
    socket.bind(address).map_err(cannot)?;
    // Thousands may come at once.
    socket.listen(4096).map_err(cannot)
}
