//! Makes a log long without a server: entries as the signature log writes them, straight into the engine.

use std::{path::Path, sync::Arc, time::Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use signer_core::Signer;
use signer_log_engine::{CheckpointSigner, Entry, Format, Limits, LocalStorage, Log, Submitted, leaf_hash};

/// Entries that wait at a time.
const AT_A_TIME: u64 = 4096;

/// Appends so many entries to the signature log in a folder, which nobody serves at the moment.
pub(crate) async fn fill(folder: &Path, key: &str, count: u64) {
    let client = signerd_api::Client::new(signerd_api::find_socket());
    let signer: Arc<dyn Signer> = Arc::new(client.key(key).await.expect("the daemon has the key"));
    let origin = origin(folder);
    let signer = CheckpointSigner::new(&origin, signer, false).expect("the key signs checkpoints");
    let storage = Arc::new(LocalStorage::open(folder).expect("nobody serves the log"));
    let log = Log::open(storage, Format::Entries, signer, Limits::default()).await.expect("the log opens");
    let (began, from) = (Instant::now(), log.published().checkpoint.size);
    let (mut next, mut tickets) = (from, Vec::new());
    while next < from + count || !tickets.is_empty() {
        while next < from + count && (tickets.len() as u64) < AT_A_TIME {
            let (entry, hash) = entry(next);
            let build = Box::new(move |_, _| entry.clone());
            match log.submit(hash, build).await.expect("the log takes it on") {
                Submitted::New(ticket) => tickets.push(ticket),
                Submitted::Duplicate(index) => panic!("the entry is there already, at {index}"),
            }
            next += 1;
        }
        for ticket in tickets.drain(..) {
            ticket.published().await.expect("the log publishes it");
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!("{count} entries from {from} on in {took:.1} s: {:.0} a second", count as f64 / took);
    log.close().await;
}

fn origin(folder: &Path) -> String {
    let note = std::fs::read_to_string(folder.join("checkpoint")).expect("there is a log in the folder");
    note.lines().next().expect("a checkpoint has an origin").to_owned()
}

/// A hashedrekord entry of the usual length, by a key; each is another one.
fn entry(index: u64) -> (Entry, [u8; 32]) {
    let digest = leaf_hash(&index.to_be_bytes());
    let signature = [&digest[..], &leaf_hash(&digest)[..], &digest[..7]].concat();
    let key = [&digest[..], &leaf_hash(&signature)[..], &digest[..27]].concat();
    let body = format!(
        r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"data":{{"algorithm":"SHA2_256","digest":"{}"}},"signature":{{"content":"{}","verifier":{{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{{"rawBytes":"{}"}}}}}}}}}}}}"#,
        STANDARD.encode(digest),
        STANDARD.encode(signature),
        STANDARD.encode(key)
    );
    let hash = leaf_hash(body.as_bytes());
    let mut data = (body.len() as u16).to_be_bytes().to_vec();
    data.extend(body.as_bytes());
    (Entry { data: data.into(), leaf_hash: hash }, hash)
}
