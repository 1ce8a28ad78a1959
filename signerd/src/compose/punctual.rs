//! Deadlines.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, Result, SignRequest, Signature, Signer};
use tokio::time::Sleep;

use super::Offloaded;

/// Gives up at a request's deadline.
pub(crate) struct Punctual(pub(super) Offloaded);

impl Signer for Punctual {
    fn info(&self) -> &KeyInfo {
        self.0.info()
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        let Some(until) = request.until() else { return self.0.sign(request) };
        let timely = Timely::new(self.0.sign(request), until);
        Box::pin(async move { timely.await.unwrap_or_else(|| Err(timed_out().key(&self.info().name))) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.0.health()
    }
}

/// A deadline that has passed.
pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::TimedOut, "there was no answer before the deadline")
        .next("try again, or allow more time")
}

/// A future's output, or `None` once its time is over. There is no timer for what is ready at once.
pub(crate) struct Timely<F> {
    future: F,
    until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F: Future + Unpin> Timely<F> {
    pub(crate) fn new(future: F, until: Instant) -> Self {
        Self { future, until, sleep: None }
    }
}

impl<F: Future + Unpin> Future for Timely<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(output) = Pin::new(&mut this.future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        let until = this.until;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        sleep.as_mut().poll(cx).map(|()| None)
    }
}
