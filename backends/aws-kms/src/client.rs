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
use signer_remote::Patience;
use tokio::sync::OnceCell;

use crate::{
    AwsConfig,
    connect::{self, Connection},
    fault::{self, Asked},
};

/// The service, as someone with credentials.
pub(crate) struct Client {
    config: AwsConfig,
    connection: OnceCell<Connection>,
    patience: Patience,
    /// When it answered last, if nothing has failed since.
    answered: Mutex<Option<Instant>>,
}

/// Seconds that a request without a deadline may take.
const TIMEOUT: u64 = 10;
/// The limits of connection and SDK come first: they say more of what was waited for.
const GRACE: Duration = Duration::from_secs(1);

impl Client {
    pub(crate) fn new(config: AwsConfig) -> Self {
        let total = Duration::from_secs(config.timeout.unwrap_or(TIMEOUT).clamp(1, 600));
        let patience = Patience { attempt: 2 * connect::PATIENCE + GRACE, total };
        Self { config, connection: OnceCell::new(), patience, answered: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// The way to the service, made when it is first needed.
    pub(crate) async fn connection(&self) -> Result<&Connection> {
        let made = self.connection.get_or_try_init(|| Connection::make(&self.config));
        tokio::time::timeout(connect::PATIENCE, made).await.unwrap_or_else(|_| {
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

    /// Sends what `send` makes until it has an answer, or it is too late. A connection is part of an attempt: the
    /// region may be asked of the machine.
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
        let attempt = || async {
            let client = &self.connection().await?.client;
            let answer = send(client).await.map_err(|error| fault::of_sdk(asked, &error));
            // A refusal of the request is an answer, too.
            self.note(answer.as_ref().err().is_none_or(|failure| {
                matches!(
                    failure.error.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::AlreadyExists
                        | ErrorKind::BadRequest
                        | ErrorKind::Unsupported
                )
            }));
            answer
        };
        if asked.repeatable {
            self.patience.persist(deadline, attempt).await
        } else {
            self.patience.change(deadline, attempt).await
        }
    }
}
