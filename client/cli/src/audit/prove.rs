//! `signer audit prove`

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::json;
use signer_core::Error;
use signer_log_engine::{Format, Hash, leaf_hash, prove_stored, verify_inclusion};
use signerd_api::audit::Record;

use super::{
    log::{Which, unverified, verified},
    row,
};
use crate::{
    atomic,
    context::{Context, print},
    failure::{Exit, Failure},
    key_argument,
};

/// The first line of a proof (C2SP tlog-proof).
const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// The longest proof that is read: a record, 64 hashes and a checkpoint with its signatures.
const MAX_LEN: u64 = 1 << 20;

/// Prove that one record is in the log, to somebody who has neither the log nor the daemon
///
/// The proof is a text: the record, the hashes from it to the root, and the signed checkpoint (C2SP tlog-proof). Whoever has
/// the log's public key verifies it with --verify, or with any other implementation.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer audit prove 4711 --out 4711.proof
  signer audit prove --verify 4711.proof --key audit.pem")]
pub(super) struct Prove {
    /// Which record: its sequence number, the first column of `signer audit show`
    #[arg(value_name = "SEQUENCE", required_unless_present = "verify")]
    sequence: Option<u64>,
    #[command(flatten)]
    which: Which,
    /// Where to write the proof, instead of standard output
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    out: Option<PathBuf>,
    /// Verify this proof
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sequence", "log"], requires = "key")]
    verify: Option<PathBuf>,
    /// The log's public key: a PEM or DER file, or a reference
    #[arg(short, long, value_name = "PEM-OR-REF", requires = "verify")]
    key: Option<String>,
    /// The log's name, if the key may not be the key of another
    #[arg(long, value_name = "NAME", requires = "verify")]
    origin: Option<String>,
}

impl Prove {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        match (&self.verify, &self.key, self.sequence) {
            (Some(file), Some(key), _) => self.verify(file, key, context).await,
            (_, _, Some(sequence)) => self.prove(sequence, context).await,
            _ => Err(Failure::usage("say which record, or which proof to verify")),
        }
    }

    async fn prove(&self, sequence: u64, context: &Context) -> Result<Exit, Failure> {
        let log = self.which.open(context).await?;
        let note = log.note()?;
        let checkpoint = unverified(&note)?;
        if sequence >= checkpoint.size {
            return Err(Failure::failed(Error::new(
                signer_core::ErrorKind::NotFound,
                format!("the checkpoint covers {} records, and {sequence} is none of them", checkpoint.size),
            ))
            .next("`signer audit show` lists them; a new one is covered a second later"));
        }
        let tree = (checkpoint.size, &checkpoint.root);
        let (hashes, entry) =
            prove_stored(&log.objects, Format::Entries, tree, sequence).map_err(Failure::failed)?;
        let record = entry.get(2..).unwrap_or_default();
        let proof = Proof { index: sequence, record: record.to_vec(), hashes, note };
        let text = proof.to_text();
        match &self.out {
            Some(out) => {
                atomic::write(out, text.as_bytes())?;
                let shown = out.display();
                context.result(format_args!("wrote {shown}"), &json!({ "proof": out, "sequence": sequence }));
            }
            None => print(text),
        }
        Ok(Exit::Done)
    }

    async fn verify(&self, file: &Path, key: &str, context: &Context) -> Result<Exit, Failure> {
        let cannot =
            |e: std::io::Error| Failure::io(format!("the proof {} cannot be read", file.display()), &e);
        if std::fs::metadata(file).map_err(cannot)?.len() > MAX_LEN {
            return Err(Failure::failed(
                Error::bad_request("this is too long for a proof").key(file.display()),
            ));
        }
        let text = std::fs::read_to_string(file).map_err(cannot)?;
        // 1. It is a proof.
        let proof = Proof::from_text(&text).ok_or_else(|| {
            Failure::failed(
                Error::bad_request("this is no proof of a record (C2SP tlog-proof)").key(file.display()),
            )
        })?;
        // 2. The checkpoint is by the key.
        let key = key_argument::public_key(key, context).await?;
        let checkpoint = verified(&proof.note, key, self.origin.as_deref())?;
        // 3. The record is in the tree of the checkpoint, at its place.
        let leaf = leaf_hash(&proof.record);
        verify_inclusion(&leaf, proof.index, checkpoint.size, &proof.hashes, &checkpoint.root).map_err(
            |e| Failure::failed(Error::new(e.kind(), "the record is not in the log").vendor(e.what())),
        )?;
        // 4. It is the record that it says it is.
        let record = Record::from_json(&proof.record).map_err(Failure::failed)?;
        if record.sequence != proof.index {
            let what = format!("the record at {} says that it is {}", proof.index, record.sequence);
            return Err(Failure::failed(Error::internal(what)));
        }
        let object: serde_json::Value = serde_json::from_slice(&proof.record).unwrap_or_default();
        context.answer(
            format_args!(
                "record {} is in {} of {} records:\n{}\n",
                proof.index,
                checkpoint.origin,
                checkpoint.size,
                row::line(&record)
            ),
            &json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "record": object }),
        );
        Ok(Exit::Done)
    }
}

/// A proof that needs nothing else.
struct Proof {
    index: u64,
    record: Vec<u8>,
    hashes: Vec<Hash>,
    /// The signed checkpoint.
    note: Vec<u8>,
}

impl Proof {
    fn to_text(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        let (record, note) = (STANDARD.encode(&self.record), String::from_utf8_lossy(&self.note));
        format!("{HEAD}\nextra {record}\nindex {}\n{hashes}\n{note}", self.index)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        if lines.next()? != HEAD {
            return None;
        }
        let record = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
        let index = lines.next()?.strip_prefix("index ")?.parse().ok()?;
        let hashes = lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect::<Option<_>>()?;
        Some(Self { index, record, hashes, note: note.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_back() {
        let proof = Proof {
            index: 7,
            record: b"{}".to_vec(),
            hashes: vec![[1; 32], [2; 32]],
            note: b"log\n8\n\nx".to_vec(),
        };
        let text = proof.to_text();
        let again = Proof::from_text(&text).unwrap();
        assert_eq!(
            (again.index, &again.record, &again.hashes, &again.note),
            (7, &proof.record, &proof.hashes, &proof.note)
        );
        for bad in [
            "",
            HEAD,
            "c2sp.org/tlog-proof@v1\n\n",
            &text.replace("extra", "index"),
            &text.replace("index 7", "index x"),
        ] {
            assert!(Proof::from_text(bad).is_none(), "{bad}");
        }
    }
}
