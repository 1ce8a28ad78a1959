//! Requests, tried again where that makes sense, until the caller's deadline.

use std::{
    error::Error as StdError,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use signer_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;

use crate::{
    AwsConfig,
    connect::{Connection, PATIENCE},
    fault::{self, Again, Asked},
};

/// The service, as someone with credentials.
pub(crate) struct Client {
    config: AwsConfig,
    connection: OnceCell<Connection>,
    timeout: Duration,
    /// When it answered last, if nothing has failed since.
    answered: Mutex<Option<Instant>>,
}

/// So many tries where the trouble may be of a moment.
const TRIES: u32 = 3;
/// The pause before another try is random, up to twice as long each time, from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
const TIMEOUT: u64 = 10;

impl Client {
    pub(crate) fn new(config: AwsConfig) -> Self {
        let timeout = Duration::from_secs(config.timeout.unwrap_or(TIMEOUT).clamp(1, 600));
        Self { config, connection: OnceCell::new(), timeout, answered: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// The way to the service, made when it is first needed.
    pub(crate) async fn connection(&self) -> Result<&Connection> {
        let made = self.connection.get_or_try_init(|| Connection::make(&self.config));
        tokio::time::timeout(PATIENCE, made).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::DeviceGone,
                "the SDK does not find out about the region and credentials in time",
            )
            .next("set region in the [[backend]] table"))
        })
    }

    /// Whether the service answered a short while ago, and nothing has failed since.
    pub(crate) fn answered_within(&self, recent: Duration) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < recent)
    }

    fn note(&self, answered: bool) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = answered.then(Instant::now);
    }

    /// Sends what `send` makes until it has an answer, or it is too late.
    pub(crate) async fn call<T, E, F>(
        &self,
        asked: Asked<'_>,
        deadline: Option<Instant>,
        send: impl Fn(&aws_sdk_kms::Client) -> F,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + StdError + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let until = deadline.unwrap_or_else(|| Instant::now() + self.timeout);
        if Instant::now() >= until {
            return Err(fault::of_deadline());
        }
        let connecting = tokio::time::timeout_at(until.into(), self.connection());
        let client = &connecting.await.map_err(|_| fault::of_deadline())??.client;
        let mut tries = 0;
        let mut throttled = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(throttled.unwrap_or_else(fault::of_deadline));
            }
            let limit = left.min(PATIENCE);
            let fault = match tokio::time::timeout(limit, send(client)).await {
                Ok(Ok(answer)) => {
                    self.note(true);
                    return Ok(answer);
                }
                Ok(Err(error)) => fault::of_sdk(asked, &error),
                Err(_) => fault::of_silence(asked, Some(limit)),
            };
            // A refusal of the request is an answer, too.
            self.note(matches!(
                fault.error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::AlreadyExists
                    | ErrorKind::BadRequest
                    | ErrorKind::Unsupported
            ));
            tries += 1;
            let pause = match fault.again {
                Again::Soon if tries < TRIES => jitter(tries),
                Again::Throttled(asked) => {
                    throttled = Some(fault.error.clone());
                    asked.unwrap_or_default() + jitter(tries)
                }
                _ => return Err(ended(fault.error, until, throttled)),
            };
            if Instant::now() + pause >= until {
                return Err(ended(fault.error, until, throttled));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The last error; or that it was too late, and for what reason.
fn ended(error: Error, until: Instant, throttled: Option<Error>) -> Error {
    // Silence until the deadline was cut short by it.
    if Instant::now() >= until && error.kind().retry_after().is_none() && !error.is_uncertain() {
        return throttled.unwrap_or_else(|| fault::of_deadline().vendor(error.what()));
    }
    error
}

/// Full jitter: callers that were sent away together do not come back together.
fn jitter(tries: u32) -> Duration {
    let most = (FIRST_PAUSE * 2_u32.saturating_pow(tries.min(10))).min(LAST_PAUSE);
    most.mul_f64(fastrand::f64())
}
