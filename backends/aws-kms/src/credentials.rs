//! Whether the credentials will last: found out before a request fails for it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use signer_core::{Error, ErrorKind, Result};

use crate::{connect::PATIENCE, fault};

/// Asks for new credentials a while before those in use expire.
#[derive(Default)]
pub(crate) struct Lookout(Mutex<Seen>);

#[derive(Clone, Default)]
struct Seen {
    /// When the credentials of the last look expire.
    expires: Option<SystemTime>,
    at: Option<Instant>,
    /// What came of the last look.
    trouble: Option<Error>,
}

/// So long before the end new ones must be had.
const AHEAD: Duration = Duration::from_mins(5);
/// Between two looks: each may be a request to another service, or a program.
const PAUSE: Duration = Duration::from_mins(1);
/// Between two looks while there is trouble.
const EAGER: Duration = Duration::from_secs(5);

impl Lookout {
    /// Whether credentials can be had that last.
    pub(crate) async fn check(&self, provider: Option<&SharedCredentialsProvider>) -> Result<()> {
        let Some(provider) = provider else { return Ok(()) };
        let seen = self.seen();
        let pause = if seen.trouble.is_some() { EAGER } else { PAUSE };
        let due = match seen.at {
            None => true,
            Some(at) => {
                at.elapsed() >= pause && (seen.trouble.is_some() || seen.expires.is_some_and(is_near))
            }
        };
        if due {
            let now = look(provider).await;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        self.seen().trouble.map_or(Ok(()), Err)
    }

    fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(provider: &SharedCredentialsProvider) -> Seen {
    let at = Some(Instant::now());
    match tokio::time::timeout(PATIENCE, provider.provide_credentials()).await {
        Ok(Ok(credentials)) => {
            let expires = credentials.expiry();
            Seen { expires, at, trouble: expires.filter(|e| is_near(*e)).map(ending) }
        }
        Ok(Err(error)) => Seen { expires: None, at, trouble: Some(fault::of_credentials(&error)) },
        Err(_) => {
            let error = Error::new(ErrorKind::Denied, "the AWS credentials cannot be had in time");
            Seen { expires: None, at, trouble: Some(error) }
        }
    }
}

fn is_near(expires: SystemTime) -> bool {
    expires.duration_since(SystemTime::now()).unwrap_or_default() < AHEAD
}

fn ending(expires: SystemTime) -> Error {
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    Error::new(
        ErrorKind::Denied,
        format!("the AWS credentials expire in {} s, and there are no newer ones", left.as_secs()),
    )
    .next("renew them (aws sso login), or configure credentials that renew themselves")
}
