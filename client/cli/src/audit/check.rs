//! `signer audit check`

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::json;
use signer_core::PublicKey;
use signer_log_engine::{Checkpoint, Edge, Findings, Format, StoredNodes, check};
use signerd_api::audit::{RECORD_VERSION, Record, utc_millis};

use super::log::{Log, Which, exit, verified};
use crate::{
    atomic,
    context::Context,
    failure::{Exit, Failure},
    key_argument,
};

/// Findings of one kind that are listed; a log of which all is wrong need not be.
const MOST: usize = 100;

/// Prove the whole log: nothing removed, nothing changed, nothing put in another order
///
/// Reads every record and every tile, computes the tree anew and compares it with the checkpoint, whose signature is
/// verified with the key that you name. A whole log that was put back to an older state has a good checkpoint too, an older
/// one: --remember keeps the newest that was seen, and proves that the log still contains what that one covered.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer audit check --key audit.pem
  signer audit check --key hsm/audit --remember ~/.local/state/audit.checkpoint
  signer audit check --key audit.pem --log /backup/audit --output json")]
pub(super) struct Check {
    #[command(flatten)]
    which: Which,
    /// The log's public key: a PEM or DER file, or its reference, if you trust the daemon for that
    #[arg(short, long, value_name = "PEM-OR-REF")]
    key: String,
    /// The log's name, if the key may not be the key of another
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    /// Where the newest checkpoint that was seen is kept
    #[arg(long, value_name = "FILE")]
    remember: Option<PathBuf>,
}

impl Check {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let log = self.which.open(context).await?;
        let key = key_argument::public_key(&self.key, context).await?;
        let began = Instant::now();
        // 1. The checkpoint is by the key.
        let note = log.note()?;
        let checkpoint = verified(&note, key.clone(), self.origin.as_deref())?;
        // 2. Every tile, every hash, every record is what it covers.
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let Findings { entries, tiles, mut wrong } =
            check(&log.objects, Format::Entries, &checkpoint, threads);
        // 3. The records are what a daemon writes. Where tiles are missing, that has been said.
        if wrong.is_empty() {
            wrong.extend(records(&log, checkpoint.size)?);
        }
        // 4. What was seen earlier is still there.
        if let Some(file) = self.remember.as_deref().filter(|_| wrong.is_empty()) {
            wrong.extend(earlier(&log, file, key, &checkpoint)?);
            if wrong.is_empty() {
                atomic::write(file, &note)?;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut text = format!(
            "{}: {entries} records and {tiles} tiles in {} read in {seconds:.1} s\n",
            checkpoint.origin,
            log.folder().display()
        );
        for one in &wrong {
            text = text + "  " + one + "\n";
        }
        let verdict = match wrong.len() {
            0 => format!("everything is as the signed checkpoint of {} records says\n", checkpoint.size),
            n => format!("{n} findings: this is not the log that was signed\n"),
        };
        text.push_str(&verdict);
        context.answer(
            text,
            &json!({ "origin": checkpoint.origin, "size": checkpoint.size, "root": STANDARD.encode(checkpoint.root),
                     "records": entries, "tiles": tiles, "wrong": wrong, "seconds": seconds }),
        );
        Ok(exit(wrong.is_empty()))
    }
}

/// Whether the log still has what the newest checkpoint that was seen covered.
fn earlier(log: &Log, file: &Path, key: PublicKey, now: &Checkpoint) -> Result<Option<String>, Failure> {
    let note = match std::fs::read(file) {
        Ok(note) => note,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io(format!("{} cannot be read", file.display()), &e)),
    };
    let before = verified(&note, key, Some(&now.origin))?;
    if before.size > now.size {
        return Ok(Some(format!(
            "the log had {} records and has {} now: it was put back to an older state",
            before.size, now.size
        )));
    }
    // All tiles have been proven, so what comes out of them is the tree of the new checkpoint.
    let root = Edge::new(before.size, &StoredNodes::new(&log.objects, now.size))?.root();
    Ok((root != before.root)
        .then(|| format!("the first {} records are others than those that were signed earlier", before.size)))
}

/// Whether the records are in order and of the form that they are documented to have.
fn records(log: &Log, size: u64) -> Result<Vec<String>, Failure> {
    let mut wrong = Vec::new();
    let mut last = 0;
    log.each(0, size, |index, text| {
        if let Some(finding) = record(index, text, &mut last)
            && wrong.len() < MOST
        {
            wrong.push(format!("record {index} {finding}"));
        }
        Ok(())
    })?;
    Ok(wrong)
}

fn record(index: u64, text: &[u8], last: &mut u64) -> Option<String> {
    let Ok(record) = Record::from_json(text) else { return Some("is no record of an audit log".to_owned()) };
    if record.sequence != index {
        return Some(format!("says that it is record {}", record.sequence));
    }
    if record.v > RECORD_VERSION {
        return None;
    }
    if record.to_json() != text {
        return Some("is not written as records are".to_owned());
    }
    if record.of.is_some_and(|of| of >= index) {
        return Some("tells the end of a record that comes after it".to_owned());
    }
    let Some(time) = utc_millis(&record.time) else { return Some("has no time".to_owned()) };
    let before = std::mem::replace(last, time.max(*last));
    (time < before).then(|| "is older than the one before it".to_owned())
}
