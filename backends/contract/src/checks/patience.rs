//! Deadlines, and callers that go away.

use std::{
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::future::poll_fn;
use signer_core::{BoxFuture, ErrorKind, SignRequest};

use crate::{
    Fixture, Outcome,
    failure::ensure,
    support::{list_all, make_key, open, quick_type, refused, works},
};

/// A request whose deadline has passed is answered at once with `TimedOut`.
pub(crate) async fn a_deadline_in_the_past(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let made = make_key(&*backend, &profile, "late", quick_type(&profile)?).await?;
    let signer = open(&*backend, &made.name).await?;
    works(&*signer).await?;
    let request = || SignRequest::message(made.default_algorithm(), "late");
    let now = Instant::now();
    for past in [now, now.checked_sub(Duration::from_secs(1)).unwrap_or(now)] {
        let start = Instant::now();
        let kind = refused(signer.sign(request().deadline(Some(past))).await, "a deadline in the past")?;
        ensure!(kind == ErrorKind::TimedOut, "a deadline in the past: {kind:?} instead of TimedOut");
        let took = start.elapsed();
        ensure!(took < Duration::from_millis(500), "a deadline in the past was answered after {took:?}");
    }
    for (what, far) in [("a minute", Duration::from_mins(1)), ("a year", Duration::from_hours(365 * 24))] {
        let signature = signer.sign(request().deadline(Some(Instant::now() + far))).await;
        ensure!(signature.is_ok(), "a deadline in {what}: {signature:?}");
    }
    works(&*signer).await
}

/// A caller that goes away in the middle takes nothing with it.
pub(crate) async fn dropped_futures_harm_nothing(fixture: Arc<dyn Fixture>) -> Outcome {
    let (backend, profile) = (fixture.backend(), fixture.profile());
    let made = make_key(&*backend, &profile, "abandoned", quick_type(&profile)?).await?;
    let signer = open(&*backend, &made.name).await?;
    for round in 0..200_u32 {
        let request = SignRequest::message(made.default_algorithm(), format!("round {round}"));
        if round % 2 == 0 {
            start_and_drop(signer.sign(request)).await;
        } else {
            let wait = Duration::from_micros(u64::from(round) * 5);
            let _ = tokio::time::timeout(wait, signer.sign(request)).await;
        }
    }
    for _ in 0..5 {
        let key = signer_core::KeySelector::Name(made.name.clone());
        start_and_drop(backend.open(&key)).await;
        start_and_drop(backend.list(signer_core::ListRequest::default())).await;
        start_and_drop(backend.health()).await;
        start_and_drop(signer.health()).await;
    }
    works(&*signer).await?;
    works(&*open(&*backend, &made.name).await?).await?;
    ensure!(list_all(&*backend, 0).await?.len() == 1, "there are more keys than were made");
    Ok(())
}

/// Polls once, so that the request is on its way, and gives up.
async fn start_and_drop<T>(mut future: BoxFuture<'_, T>) {
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}
