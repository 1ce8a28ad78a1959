//! The witnesses that a log asks: all at a time, until a deadline; the policy says which of them are enough.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use signer_core::{BoxFuture, Error, ErrorKind, Result};
use signer_log_engine::{MAX_NOTE, Note, NoteKey, Prove, Witnesses};

use super::{
    policy::{Policy, Witness},
    request,
};
use crate::fetch::{Http, below};

/// A policy, and what is known of its witnesses.
#[derive(Debug)]
pub struct Panel {
    policy: Policy,
    http: Http,
    timeout: Duration,
    standing: Mutex<Vec<Standing>>,
}

/// What is known of a witness.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// The size that it cosigned last.
    size: u64,
    failures: u32,
    /// Whoever failed is left alone for a while if the quorum can do without.
    away_until: Option<Instant>,
    why: Option<String>,
}

/// How long a witness that failed is left alone: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Panel {
    /// Reads a policy for the log of this key.
    pub fn read(file: &Path, log: &NoteKey, timeout: Duration, ca_file: Option<&Path>) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::bad_request(format!("{} cannot be read", file.display())).vendor(e))?;
        let policy = Policy::parse(&text)?;
        if !policy.logs.is_empty() && !policy.logs.contains(log) {
            return Err(Error::bad_request(format!("{} is for other logs", file.display()))
                .next(format!("give it a line \"log {}\", or none", log.to_vkey().unwrap_or_default())));
        }
        let reachable =
            (0..policy.witnesses.len()).filter(|at| policy.witnesses[*at].url.is_some()).collect();
        if !policy.is_met(&reachable) {
            return Err(Error::bad_request(format!(
                "the quorum of {} cannot be met: too few witnesses have a URL",
                file.display()
            )));
        }
        let standing = vec![Standing::default(); policy.witnesses.len()];
        Ok(Self { policy, http: Http::new(ca_file)?, timeout, standing: Mutex::new(standing) })
    }

    /// The keys of all witnesses.
    pub(crate) fn keys(&self) -> Vec<NoteKey> {
        self.policy.witnesses.iter().map(|witness| witness.key.clone()).collect()
    }

    fn standing(&self) -> MutexGuard<'_, Vec<Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask this time: all that are not away, and the others too if the quorum needs them.
    fn asked(&self) -> Vec<usize> {
        let now = Instant::now();
        let standing = self.standing();
        let all: Vec<_> = (0..standing.len()).filter(|at| self.policy.witnesses[*at].url.is_some()).collect();
        let here: Vec<_> = all
            .iter()
            .copied()
            .filter(|at| standing[*at].away_until.is_none_or(|until| until <= now))
            .collect();
        if self.policy.is_met(&here.iter().copied().collect()) { here } else { all }
    }

    /// Asks one. Its state may be another than we think: then once more, from there.
    async fn ask(&self, at: usize, note: &str, size: u64, prove: Prove<'_>) -> Result<String> {
        let witness = &self.policy.witnesses[at];
        let url = witness.url.as_ref().ok_or_else(|| Error::internal("the witness has no URL"))?;
        let url = below(url, "add-checkpoint")?;
        let mut old = self.standing()[at].size.min(size);
        for _ in 0..2 {
            let body = request(old, &prove(old)?, note);
            let reply = self.http.post(url.clone(), "text/plain; charset=utf-8", body, self.timeout).await?;
            let text = String::from_utf8_lossy(&reply.body);
            match reply.status.as_u16() {
                200 => {
                    let line = verified(&text, note, witness)?;
                    self.standing()[at].size = size;
                    return Ok(line);
                }
                409 => {
                    let there = text.trim().parse::<u64>().ok().filter(|n| *n <= size && *n != old);
                    let Some(there) = there else {
                        return Err(Error::new(
                            ErrorKind::Denied,
                            format!("witness {} has cosigned another tree: it says {:?}", witness.name, text.trim()),
                        )
                        .next("somebody else signs with this log's key, or the log was restored from an old backup"));
                    };
                    old = there;
                }
                status => {
                    let said: String = text.trim().chars().take(200).collect();
                    return Err(Error::new(
                        ErrorKind::DeviceGone,
                        format!("witness {} does not cosign: {status} {said}", witness.name),
                    ));
                }
            }
        }
        Err(Error::new(ErrorKind::DeviceGone, format!("witness {} changes its mind", witness.name)))
    }

    fn note_result(&self, at: usize, result: &Result<String>) {
        let mut standing = self.standing();
        let standing = &mut standing[at];
        match result {
            Ok(_) => {
                if standing.failures > 0 {
                    tracing::info!("witness {} is back", self.policy.witnesses[at].name);
                }
                (standing.failures, standing.away_until, standing.why) = (0, None, None);
            }
            Err(e) => {
                if standing.failures == 0 {
                    tracing::warn!("witness {}: {e}", self.policy.witnesses[at].name);
                }
                let pause = FIRST_PAUSE * 2_u32.pow(standing.failures.min(5));
                standing.failures += 1;
                standing.away_until = Some(Instant::now() + pause.min(LONGEST_PAUSE));
                standing.why = Some(e.to_string());
            }
        }
    }

    async fn collect(&self, note: &str, size: u64, prove: Prove<'_>) -> Result<Vec<String>> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let mut asked: FuturesUnordered<_> = self
            .asked()
            .into_iter()
            .map(|at| async move {
                let late = || Error::new(ErrorKind::TimedOut, "it does not answer in time");
                let answer = tokio::time::timeout_at(deadline, self.ask(at, note, size, prove)).await;
                (at, answer.unwrap_or_else(|_| Err(late())))
            })
            .collect();
        let (mut lines, mut signed, mut why) = (Vec::new(), BTreeSet::new(), Vec::new());
        while let Some((at, result)) = asked.next().await {
            self.note_result(at, &result);
            match result {
                Ok(line) => {
                    signed.insert(at);
                    lines.push(line);
                }
                Err(e) => why.push(format!("{}: {}", self.policy.witnesses[at].name, e.what())),
            }
        }
        if self.policy.is_met(&signed) {
            return Ok(lines);
        }
        Err(Error::new(
            ErrorKind::DeviceGone,
            format!(
                "{} of {} witnesses have cosigned, which is no quorum",
                signed.len(),
                self.policy.witnesses.len()
            ),
        )
        .vendor(why.join("; "))
        .next("look after the witnesses, or change the policy; the log goes on by itself"))
    }
}

impl Witnesses for Panel {
    fn cosign<'a>(
        &'a self,
        note: &'a str,
        size: u64,
        prove: Prove<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.collect(note, size, prove))
    }
}

/// The cosignature line of an answer, if it is one of this witness for this checkpoint.
fn verified(answer: &str, note: &str, witness: &Witness) -> Result<String> {
    let sent = Note::parse(note.as_bytes())?;
    if answer.len() > MAX_NOTE {
        return Err(Error::bad_request("the answer is too long"));
    }
    let theirs = Note::parse(format!("{}\n{answer}", sent.text()).as_bytes())?;
    let lines = theirs.lines_by(&witness.key)?;
    // A witness with several keys may send more; the first line by this one is enough.
    match lines.split_inclusive('\n').next() {
        Some(line) => Ok(line.to_owned()),
        None => Err(Error::new(
            ErrorKind::Denied,
            format!("the answer of witness {} is not signed by its key", witness.name),
        )),
    }
}
