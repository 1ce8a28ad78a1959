//! A key that several places hold: whichever can signs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use signer_core::{
    BoxFuture, Error, ErrorKind, KeyInfo, Result, SignRequest, Signature, Signer, TouchListener, TouchPrompt,
};

use super::{Timely, timed_out};
use crate::{
    group::{Group, Verdict},
    metrics::Metrics,
};

/// A member that takes longer is not waited for alone: another one is asked as well, and whichever signs first has signed.
/// A signature that is made twice harms nobody.
const PATIENCE: Duration = Duration::from_secs(2);

/// A member that had less time than this is not called slow: a caller's short deadline must not cost others a member.
const FAIR: Duration = Duration::from_secs(1);

/// Signs with the first member that can, within the request's deadline.
pub(crate) struct Failover {
    pub(super) group: Arc<Group>,
    /// As far as its members were known when this was put together.
    pub(super) info: KeyInfo,
    pub(super) metrics: Arc<Metrics>,
}

/// A member that was asked did not sign, and what that means for the request.
struct Failure(Error, Verdict);

impl Failure {
    fn of(error: Error) -> Self {
        let verdict = Verdict::of(error.kind());
        Self(error, verdict)
    }
}

impl Failover {
    async fn sign_somewhere(&self, request: SignRequest) -> Result<Signature> {
        let until = request.until();
        let mut waiting = self.group.candidates(request.algorithm()).into_iter();
        // Whether somebody was told to touch a device for this request.
        let touched = Arc::new(AtomicBool::new(false));
        let mut asked = FuturesUnordered::new();
        // Who has not answered, and since when.
        let mut unanswered: Vec<(usize, Instant)> = Vec::new();
        let mut failures = Vec::new();
        let mut end = None;
        loop {
            if asked.is_empty() {
                if let Some(error) = end {
                    return Err(error);
                }
                let Some(at) = self.next(&mut waiting, &touched) else {
                    return Err(self.group.nobody(failures));
                };
                unanswered.push((at, Instant::now()));
                asked.push(self.ask(at, request.clone(), &touched));
            }
            // Whoever waits for a finger is not overtaken: nobody is asked to touch two devices.
            let alone = end.is_some()
                || waiting.len() == 0
                || touched.load(Relaxed)
                || unanswered.iter().any(|(at, _)| self.group.is_touched(*at));
            let now = Instant::now();
            // The next one needs some of the time that there is.
            let left = until.map_or(PATIENCE, |until| until.saturating_duration_since(now) / 2);
            let patience = (!alone).then(|| now + PATIENCE.min(left));
            let answer = match [patience, until].into_iter().flatten().min() {
                Some(moment) => Timely::new(asked.next(), moment).await,
                None => Some(asked.next().await),
            };
            match answer {
                Some(Some((at, Ok(signature)))) => {
                    self.group.succeeded(at);
                    for (slow, since) in unanswered.into_iter().filter(|(u, _)| *u != at) {
                        if since.elapsed() >= FAIR {
                            self.group.slow(slow);
                        }
                        self.metrics.failed_over(self.group.backend(slow));
                    }
                    for (failed, _) in failures {
                        self.metrics.failed_over(self.group.backend(failed));
                    }
                    return Ok(signature);
                }
                Some(Some((at, Err(Failure(error, verdict))))) => {
                    let since = unanswered.iter().find(|(u, _)| *u == at).map_or(now, |(_, since)| *since);
                    unanswered.retain(|(u, _)| *u != at);
                    if error.kind() != ErrorKind::TimedOut || since.elapsed() >= FAIR {
                        self.group.failed(at, &error);
                    }
                    match verdict {
                        Verdict::Next => failures.push((at, error)),
                        Verdict::End => end = Some(error.key(self.group.reference(at))),
                    }
                }
                Some(None) => {}
                None if until.is_some_and(|until| Instant::now() >= until) => {
                    let late = |(at, _)| (at, timed_out());
                    failures.extend(unanswered.into_iter().map(late));
                    return Err(self.group.nobody(failures));
                }
                None => {
                    if let Some(at) = self.next(&mut waiting, &touched) {
                        unanswered.push((at, Instant::now()));
                        asked.push(self.ask(at, request.clone(), &touched));
                    }
                }
            }
        }
    }

    /// Who is asked next: nobody who waits for a finger, once another one has asked for it.
    fn next(&self, waiting: &mut impl Iterator<Item = usize>, touched: &AtomicBool) -> Option<usize> {
        waiting.find(|at| !(touched.load(Relaxed) && self.group.is_touched(*at)))
    }

    async fn ask(
        &self,
        at: usize,
        request: SignRequest,
        touched: &Arc<AtomicBool>,
    ) -> (usize, Result<Signature, Failure>) {
        let opened = match self.group.open(at).await {
            Ok(opened) => opened,
            Err(error) => return (at, Err(Failure::of(error))),
        };
        // What is no fault of the request: another member may sign like this.
        if let Err(error) = opened.signer.info().check(request.algorithm()) {
            return (at, Err(Failure(error, Verdict::Next)));
        }
        let request = match request.touch_listener().cloned() {
            Some(listener) => {
                let (touched, backend) = (touched.clone(), opened.place.name().clone());
                request.on_touch(TouchListener::new(move |prompt| {
                    touched.store(true, Relaxed);
                    let key = format!("{backend}/{}", prompt.key);
                    listener.tell(&TouchPrompt { key, ..prompt.clone() });
                }))
            }
            None => request,
        };
        (at, opened.signer.sign(request).await.map_err(Failure::of))
    }
}

impl Signer for Failover {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(self.sign_somewhere(request))
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.group.probe_any())
    }
}
