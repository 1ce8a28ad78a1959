//! What each command does.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use signer_core::{Error, ErrorKind, PublicKey, Result, Signer};
use signer_log_engine::{
    Checkpoint, Findings, Log, Mirror as Copy, NoteKey, Objects, Witness, check, freeze, prove_stored,
};
use signerd_api::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    certificate,
    cli::{Check, Command, Daemon, Freeze, Init, Mirror, Output, Prove, Serve, Which},
    fetch::{Http, Remote},
    location::Location,
    place::{Description, Kind, note_key},
    serve::{checkpoint_signer, serve_at},
    witness::{self, Panel},
};

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(command) => init(command).await,
        Command::Serve(command) => run_server(*command).await,
        Command::Check(command) => check_log(command).await,
        Command::Prove(command) => prove(command).await,
        Command::Freeze(command) => freeze_log(command).await,
        Command::Mirror(command) => mirror(command).await,
        Command::Monitor(command) => crate::monitor::run(*command).await,
    }
}

/// The key behind the daemon.
async fn key(daemon: &Daemon, reference: &str) -> Result<Arc<dyn Signer>> {
    let socket = daemon.socket.clone().unwrap_or_else(signerd_api::find_socket);
    let client = Client::new(socket).retrying();
    Ok(Arc::new(client.key(reference).await?))
}

async fn init(command: Init) -> Result<ExitCode> {
    let signer = key(&command.daemon, &command.key).await?;
    let description = Description {
        kind: command.kind,
        origin: command.origin,
        key: command.key,
        public_key: signer.info().public_key.to_pem(),
    };
    let checkpoints = checkpoint_signer(&description, signer)?;
    let place = command.storage.open(&command.s3, None).await?;
    if place.storage.read("checkpoint")?.is_some() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a log in {} already", command.storage),
        )
        .next("choose another place, or serve this one"));
    }
    place.describe(&description)?;
    let limits = signer_log_engine::Limits::default();
    let log = Log::open(place.storage.clone(), description.kind.format(), checkpoints, limits).await?;
    let key = log.key().clone();
    log.close().await;
    println!("origin      {}", description.origin);
    println!("log ID      {}", STANDARD.encode(log_id(description.kind, &key)));
    if let Some(vkey) = key.to_vkey() {
        println!("verifier    {vkey}");
    }
    print!("{}", description.public_key);
    Ok(ExitCode::SUCCESS)
}

/// How a trusted root names the log.
fn log_id(kind: Kind, key: &NoteKey) -> [u8; 32] {
    match kind {
        Kind::Signature => *key.id(),
        Kind::Certificate => certificate::log_id(key),
    }
}

async fn run_server(command: Serve) -> Result<ExitCode> {
    let state = match &command.state {
        Some(folder) => Some(folder.clone()),
        None => command.storage.default_state(&command.s3)?,
    };
    let place = command.storage.open_log(&command.s3, state).await?;
    let description = place.description()?;
    let signer = key(&command.daemon, command.key.as_deref().unwrap_or(&description.key)).await?;
    let mut options = command.options();
    if let Some(file) = &command.witness_policy {
        let timeout = Duration::from_millis(command.witness_timeout.max(1));
        let panel = Panel::read(file, &description.note_key()?, timeout, command.witness_ca_file.as_deref())?;
        options.witnesses = Some(Arc::new(panel));
    }
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let running = serve_at(&place, signer, options).await?;
    let size = running.log().published().checkpoint.size;
    let addresses: Vec<_> = running.addresses().iter().map(ToString::to_string).collect();
    tracing::info!("{} with {size} entries is served on {}", description.origin, addresses.join(", "));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).map_err(|e| Error::internal("signals cannot be received").vendor(e))
}

/// A log to read, wherever it is.
pub(crate) struct Readable {
    pub(crate) objects: Box<dyn Objects>,
    pub(crate) key: NoteKey,
    pub(crate) kind: Kind,
}

impl Readable {
    pub(crate) async fn open(which: &Which) -> Result<Self> {
        let (objects, description): (Box<dyn Objects>, _) =
            if which.log.starts_with("http://") || which.log.starts_with("https://") {
                (Box::new(Remote::new(&which.log, Http::new(which.expected.ca_file.as_deref())?)?), None)
            } else {
                which.log.parse::<Location>()?.read(&which.s3).await?
            };
        let missing = |what: &str| {
            Error::bad_request(format!("{} does not say what it is", which.log)).next(format!("give {what}"))
        };
        let kind =
            which.expected.kind.or(description.as_ref().map(|d| d.kind)).ok_or_else(|| missing("--kind"))?;
        let key = match (&which.expected.public_key, &description) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    Error::bad_request(format!("{} cannot be read", file.display())).vendor(e)
                })?;
                if text.contains("-----BEGIN") {
                    let origin =
                        which.expected.origin.as_deref().or(description.as_ref().map(|d| &*d.origin));
                    note_key(kind, origin.ok_or_else(|| missing("--origin"))?, PublicKey::from_pem(&text)?)?
                } else {
                    NoteKey::from_vkey(&text)?
                }
            }
            (None, Some(description)) => description.note_key()?,
            (None, None) => return Err(missing("--public-key")),
        };
        Ok(Self { objects, key, kind })
    }

    /// The checkpoint, verified, and as it is signed.
    fn checkpoint(&self) -> Result<(Checkpoint, String)> {
        let note = self
            .objects
            .read("checkpoint")?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no checkpoint"))?;
        let checkpoint = Checkpoint::verified(&note, &self.key)?;
        Ok((checkpoint, String::from_utf8(note).unwrap_or_default()))
    }
}

/// Runs what reads a log in a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::internal("the work panicked")))
}

async fn check_log(command: Check) -> Result<ExitCode> {
    let log = Readable::open(&command.which).await?;
    let threads = command.threads;
    let began = Instant::now();
    let (checkpoint, findings) = blocking(move || {
        let checkpoint = log.checkpoint()?.0;
        let findings = check(&*log.objects, log.kind.format(), &checkpoint, threads);
        Ok((checkpoint, findings))
    })
    .await?;
    let Findings { entries, tiles, wrong } = &findings;
    let seconds = began.elapsed().as_secs_f64();
    match command.output {
        Output::Json => println!(
            "{}",
            json!({ "origin": checkpoint.origin, "size": checkpoint.size, "root": STANDARD.encode(checkpoint.root),
                    "entries": entries, "tiles": tiles, "wrong": wrong, "seconds": seconds })
        ),
        Output::Text => {
            println!("{}: {entries} entries and {tiles} tiles read in {seconds:.1} s", checkpoint.origin);
            for one in wrong {
                println!("  {one}");
            }
            match wrong.len() {
                0 => println!("everything is as the checkpoint of {} entries says", checkpoint.size),
                n => println!("{n} findings: restore these files from a mirror or a backup"),
            }
        }
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn prove(command: Prove) -> Result<ExitCode> {
    let log = Readable::open(&command.which).await?;
    let index = command.index;
    let (checkpoint, note, proof, entry) = blocking(move || {
        let (checkpoint, note) = log.checkpoint()?;
        let tree = (checkpoint.size, &checkpoint.root);
        let (proof, entry) = prove_stored(&*log.objects, log.kind.format(), tree, index)?;
        Ok((checkpoint, note, proof, entry))
    })
    .await?;
    let hashes: Vec<_> = proof.iter().map(|h| STANDARD.encode(h)).collect();
    match command.output {
        Output::Json => println!(
            "{}",
            json!({ "index": index, "size": checkpoint.size, "root": STANDARD.encode(checkpoint.root), "hashes": hashes,
                    "checkpoint": note, "entry": STANDARD.encode(entry) })
        ),
        // C2SP tlog-proof: an offline proof in a text file.
        Output::Text => print!(
            "c2sp.org/tlog-proof@v1\nindex {index}\n{}\n{note}",
            hashes.iter().map(|h| format!("{h}\n")).collect::<String>()
        ),
    }
    Ok(ExitCode::SUCCESS)
}

async fn freeze_log(command: Freeze) -> Result<ExitCode> {
    let place = command.storage.open_log(&command.s3, None).await?;
    let description = place.description()?;
    let signer = key(&command.daemon, command.key.as_deref().unwrap_or(&description.key)).await?;
    let checkpoints = checkpoint_signer(&description, signer)?;
    let checkpoint = freeze(place.storage.clone(), description.kind.format(), checkpoints).await?;
    place.freeze()?;
    println!("{} is frozen with {} entries", checkpoint.origin, checkpoint.size);
    Ok(ExitCode::SUCCESS)
}

async fn mirror(command: Mirror) -> Result<ExitCode> {
    let log = Arc::new(Readable::open(&command.which).await?);
    let copy = Arc::new(Copy::open(&command.storage, log.key.clone(), log.kind.format())?);
    let witness = match (&command.cosign, &command.witness_name) {
        (Some(reference), Some(name)) => {
            let signer = key(&command.daemon, reference).await?;
            let witness = Witness::open(copy.clone(), name, signer)?;
            Some(witness::Served::start(witness, command.listen)?)
        }
        _ => None,
    };
    // A witness goes on for ever.
    let follow = command.follow.or(witness.as_ref().map(|_| 10));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    loop {
        let (log, copy) = (log.clone(), copy.clone());
        let seen = witness.as_ref().map(|w| w.witness().clone());
        let look = move || {
            let now = copy.follow(&*log.objects)?;
            // What the log shows to readers must be what it had cosigned.
            seen.map_or(Ok(()), |witness| witness.compare())?;
            Ok(now)
        };
        let looked = tokio::select! {
            looked = blocking(look) => looked,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match looked {
            Ok(now) => {
                if follow.is_none() || now.checkpoint.size != now.before {
                    println!(
                        "{}: {} entries, {} of them new",
                        now.checkpoint.origin,
                        now.checkpoint.size,
                        now.checkpoint.size - now.before
                    );
                }
            }
            // The log may be back soon, or have its first entry; that it has forked does not pass.
            Err(e)
                if follow.is_some()
                    && (e.is_retryable()
                        || matches!(e.kind(), ErrorKind::NotFound | ErrorKind::TimedOut)) =>
            {
                tracing::warn!("{e}");
            }
            Err(e) => return Err(e),
        }
        let Some(seconds) = follow else { return Ok(ExitCode::SUCCESS) };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds.max(1))) => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    if let Some(witness) = witness {
        witness.stop().await;
    }
    Ok(ExitCode::SUCCESS)
}
