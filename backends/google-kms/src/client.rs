//! The client of the service, built once, and its credentials.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use google_cloud_auth::credentials::{
    Builder, Credentials, external_account, external_account_authorized_user, impersonated, service_account,
    user_account,
};
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_kms_v1::client::KeyManagementService;
use signer_core::{Error, ErrorKind, Result};
use signer_remote::Failure;

use crate::{
    GoogleConfig,
    fault::{Doing, classify},
};

/// Makes clients: one, until the service says that its credentials are no good.
pub(crate) struct Clients {
    endpoint: Option<String>,
    credentials: Option<PathBuf>,
    /// How long new credentials are waited for.
    patience: Duration,
    current: tokio::sync::Mutex<Option<Client>>,
    /// When it was last found out whether credentials can be had anew, and what came of it.
    renewal: Mutex<Option<(Instant, Result<()>)>>,
}

#[derive(Clone)]
struct Client {
    service: KeyManagementService,
    since: Instant,
}

/// Credentials are not built anew more often than this.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Whether credentials can be renewed is tried this often: each time costs a token.
const PROBE_PAUSE: Duration = Duration::from_mins(1);

impl Clients {
    pub(crate) fn new(config: &GoogleConfig) -> Self {
        Self {
            endpoint: config.endpoint.clone(),
            credentials: config.credentials.clone(),
            patience: config.patience().attempt,
            current: tokio::sync::Mutex::default(),
            renewal: Mutex::default(),
        }
    }

    /// One attempt at a call.
    pub(crate) async fn ask<T, F: Future<Output = google_cloud_kms_v1::Result<T>>>(
        &self,
        doing: Doing,
        call: impl FnOnce(KeyManagementService) -> F,
    ) -> Result<T, Failure> {
        let client = self.client().await?;
        let error = match call(client.service).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // The file may hold better ones by now, and a client's own background renewal gives up after some errors.
        if error.http_status_code() == Some(401) || error.is_authentication() {
            self.drop_older_than(client.since).await;
        }
        Err(classify(&error, doing))
    }

    /// Whether credentials can be had anew: before those in use run out.
    pub(crate) async fn can_renew(&self) -> Result<()> {
        let known = self.renewal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((when, result)) = known
            && (result.is_ok() && when.elapsed() < PROBE_PAUSE || when.elapsed() < RENEWAL_PAUSE)
        {
            return result;
        }
        let result = self.renew_once().await;
        *self.renewal.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), result.clone()));
        result
    }

    #[allow(clippy::default_trait_access)] // the type's name is in a crate that is used for nothing else
    async fn renew_once(&self) -> Result<()> {
        let credentials = self.credentials()?;
        let headers = tokio::time::timeout(self.patience, credentials.headers(Default::default())).await;
        let headers = headers.map_err(|_| {
            Error::new(ErrorKind::DeviceGone, "Google's token service does not answer").next(ADVICE)
        })?;
        headers.map(drop).map_err(|e| {
            let kind = if e.is_transient() { ErrorKind::DeviceGone } else { ErrorKind::Denied };
            Error::new(kind, "the credentials for Google cannot be renewed").vendor(e).next(ADVICE)
        })
    }

    async fn client(&self) -> Result<Client, Failure> {
        let mut current = self.current.lock().await;
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let builder = KeyManagementService::builder()
            .with_credentials(self.credentials()?)
            // Retries are ours: the client's own know neither quotas nor the caller's deadline.
            .with_retry_policy(NeverRetry);
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        let service = builder.build().await.map_err(|e| {
            Error::bad_request("Google's client cannot be set up")
                .vendor(e)
                .next("check `endpoint` and `credentials`")
        })?;
        let client = Client { service, since: Instant::now() };
        *current = Some(client.clone());
        Ok(client)
    }

    async fn drop_older_than(&self, since: Instant) {
        if since.elapsed() < RENEWAL_PAUSE {
            return;
        }
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|c| c.since <= since) {
            *current = None;
        }
    }

    /// The configured file's credentials, or those that Google's clients find by themselves.
    fn credentials(&self) -> Result<Credentials> {
        let denied = |what: String| Error::new(ErrorKind::Denied, what).next(ADVICE);
        let Some(path) = &self.credentials else {
            return Builder::default()
                .build()
                .map_err(|e| denied("no credentials for Google can be found".into()).vendor(e));
        };
        let unreadable = || format!("the credentials in {} cannot be used", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| denied(unreadable()).vendor(e))?;
        // What the parser says may repeat parts of the file.
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|_| denied(unreadable()).vendor("it is not JSON"))?;
        let kind = json["type"].as_str().unwrap_or_default().to_owned();
        let built = match kind.as_str() {
            "service_account" => service_account::Builder::new(json).build(),
            "authorized_user" => user_account::Builder::new(json).build(),
            "impersonated_service_account" => impersonated::Builder::new(json).build(),
            "external_account" => external_account::Builder::new(json).build(),
            "external_account_authorized_user" => {
                external_account_authorized_user::Builder::new(json).build()
            }
            other => return Err(denied(unreadable()).vendor(format!("credentials of type {other:?}"))),
        };
        built.map_err(|_| denied(unreadable()).vendor(format!("a field of {kind:?} is missing or wrong")))
    }
}

const ADVICE: &str =
    "check `credentials`, GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`";
