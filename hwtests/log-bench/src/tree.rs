//! A large log, filled through the engine: what a server would take hours for.

use std::{path::PathBuf, sync::Arc, time::Instant};

use clap::Args;
use signer_log_engine::{CheckpointSigner, Entry, Format, Limits, LocalStorage, Log, Submitted, leaf_hash};
use tokio::sync::Semaphore;

#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// The folder of the log.
    #[arg(long)]
    storage: PathBuf,
    /// Its name.
    #[arg(long, default_value = "localhost")]
    origin: String,
    /// Its key, as the daemon knows it.
    #[arg(long)]
    key: String,
    /// How many entries it is to have.
    #[arg(long)]
    entries: u64,
    /// How many bytes an entry has: a hashedrekord entry with a P-256 key has about 650.
    #[arg(long, default_value_t = 650)]
    size: usize,
}

/// Entries on their way at a time.
const IN_FLIGHT: usize = 4096;

pub(crate) async fn run(command: Tree) {
    let client = signerd_api::Client::new(signerd_api::find_socket()).retrying();
    let signer = Arc::new(client.key(&command.key).await.expect("the daemon knows the key"));
    let signer = CheckpointSigner::new(&command.origin, signer, false).expect("the key signs checkpoints");
    let storage = Arc::new(LocalStorage::open(&command.storage).expect("the folder is free"));
    let limits = Limits { waiting: IN_FLIGHT * 2, ..Limits::default() };
    let log = Log::open(storage, Format::Entries, signer, limits).await.expect("the log can be opened");
    let begin = log.published().checkpoint.size;
    let (began, mut shown) = (Instant::now(), Instant::now());
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    for index in begin..command.entries {
        let permit = room.clone().acquire_owned().await.expect("it is never closed");
        let mut body = vec![b'.'; command.size];
        body[..8].copy_from_slice(&index.to_be_bytes());
        let hash = leaf_hash(&body);
        let mut data = (body.len() as u16).to_be_bytes().to_vec();
        data.extend(&body);
        let build = Box::new(move |_, _| Entry { data: data.clone(), leaf_hash: hash });
        let Submitted::New(ticket) = log.submit(hash, build).await.expect("there is room") else { continue };
        tokio::spawn(async move {
            ticket.published().await.expect("it is published");
            drop(permit);
        });
        if shown.elapsed().as_secs() >= 10 {
            shown = Instant::now();
            let rate = (index - begin) as f64 / began.elapsed().as_secs_f64();
            println!("{index} of {} entries, {rate:.0}/s", command.entries);
        }
    }
    let _all = room.acquire_many(IN_FLIGHT as u32).await;
    let took = began.elapsed().as_secs_f64();
    let size = log.published().checkpoint.size;
    log.close().await;
    println!("{size} entries; {} new in {took:.1} s, {:.0}/s", size - begin, (size - begin) as f64 / took);
}
