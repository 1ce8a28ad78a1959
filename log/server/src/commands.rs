//! What each command does.

use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use signer_core::{Error, ErrorKind, PublicKey, Result, Signer};
use signer_log_engine::{
    Checkpoint, Findings, Folder, LocalStorage, Log, Mirror as Copy, NoteKey, Objects, check, freeze,
    prove_stored,
};
use signerd_api::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    certificate,
    cli::{Check, Command, Daemon, Freeze, Init, Mirror, Output, Prove, Serve, Which},
    fetch::{Http, Remote},
    place::{Description, Kind, note_key},
    serve::{checkpoint_signer, serve},
};

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(command) => init(command).await,
        Command::Serve(command) => run_server(*command).await,
        Command::Check(command) => check_log(command).await,
        Command::Prove(command) => prove(command).await,
        Command::Freeze(command) => freeze_log(command).await,
        Command::Mirror(command) => mirror(command).await,
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
    let storage = Arc::new(LocalStorage::open(&command.storage)?);
    if storage.read("checkpoint")?.is_some() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a log in {} already", command.storage.display()),
        )
        .next("choose another folder, or serve this one"));
    }
    description.write(&command.storage)?;
    let log =
        Log::open(storage, description.kind.format(), checkpoints, signer_log_engine::Limits::default())
            .await?;
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
    let description = Description::read(&command.storage)?;
    let signer = key(&command.daemon, command.key.as_deref().unwrap_or(&description.key)).await?;
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let running = serve(&command.storage, signer, command.options()).await?;
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
struct Readable {
    objects: Box<dyn Objects>,
    key: NoteKey,
    kind: Kind,
}

impl Readable {
    fn open(which: &Which) -> Result<Self> {
        let is_url = which.log.contains("://");
        let folder = Path::new(&which.log);
        let description = if is_url { None } else { Description::read(folder).ok() };
        let missing = |what: &str| {
            Error::bad_request(format!("{} does not say what it is", which.log)).next(format!("give {what}"))
        };
        let kind = which.kind.or(description.as_ref().map(|d| d.kind)).ok_or_else(|| missing("--kind"))?;
        let key = match (&which.public_key, &description) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    Error::bad_request(format!("{} cannot be read", file.display())).vendor(e)
                })?;
                if text.contains("-----BEGIN") {
                    let origin = which.origin.as_deref().or(description.as_ref().map(|d| &*d.origin));
                    note_key(kind, origin.ok_or_else(|| missing("--origin"))?, PublicKey::from_pem(&text)?)?
                } else {
                    NoteKey::from_vkey(&text)?
                }
            }
            (None, Some(description)) => description.note_key()?,
            (None, None) => return Err(missing("--public-key")),
        };
        let objects: Box<dyn Objects> = if is_url {
            Box::new(Remote::new(&which.log, Http::new(which.ca_file.as_deref())?)?)
        } else {
            Box::new(Folder::new(folder))
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
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::internal("the work panicked")))
}

async fn check_log(command: Check) -> Result<ExitCode> {
    let log = Readable::open(&command.which)?;
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
    let log = Readable::open(&command.which)?;
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
    let description = Description::read(&command.storage)?;
    let signer = key(&command.daemon, command.key.as_deref().unwrap_or(&description.key)).await?;
    let storage = Arc::new(LocalStorage::open(&command.storage)?);
    let checkpoint =
        freeze(storage, description.kind.format(), checkpoint_signer(&description, signer)?).await?;
    Description::freeze(&command.storage)?;
    println!("{} is frozen with {} entries", checkpoint.origin, checkpoint.size);
    Ok(ExitCode::SUCCESS)
}

async fn mirror(command: Mirror) -> Result<ExitCode> {
    let log = Arc::new(Readable::open(&command.which)?);
    let copy = Arc::new(Copy::open(&command.storage, log.key.clone(), log.kind.format())?);
    loop {
        let (log, copy) = (log.clone(), copy.clone());
        match blocking(move || copy.follow(&*log.objects)).await {
            Ok(now) => {
                if command.follow.is_none() || now.checkpoint.size != now.before {
                    println!(
                        "{}: {} entries, {} of them new",
                        now.checkpoint.origin,
                        now.checkpoint.size,
                        now.checkpoint.size - now.before
                    );
                }
            }
            // The log may be back soon; that it has forked does not pass.
            Err(e) if command.follow.is_some() && e.is_retryable() => tracing::warn!("{e}"),
            Err(e) => return Err(e),
        }
        match command.follow {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.max(1))).await,
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}
