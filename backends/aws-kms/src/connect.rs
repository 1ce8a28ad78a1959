//! The SDK's client: made once, when it is first needed.

use std::{path::PathBuf, time::Duration};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_kms::{Client, config::SharedHttpClient};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use signer_core::{Error, Result};

use crate::AwsConfig;

/// The way to the service.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) region: String,
    /// Where credentials come from, without the SDK's cache.
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    /// Another endpoint than the region's own.
    pub(crate) endpoint: Option<String>,
}

/// A connection that takes longer cannot be made.
const CONNECT: Duration = Duration::from_secs(3);
/// An answer that takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

impl Connection {
    /// Reads the SDK's files and variables. Nothing is connected to yet, unless the region is to be asked of the machine.
    pub(crate) async fn make(config: &AwsConfig) -> Result<Self> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(PATIENCE)
            .operation_timeout(PATIENCE)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            // Repeated here, until the deadline of the request.
            .retry_config(RetryConfig::disabled());
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(files) = profile_files(config) {
            loader = loader.profile_files(files);
        }
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(fips) = config.fips {
            loader = loader.use_fips(fips);
        }
        if let Some(path) = ca_file(config) {
            loader = loader.http_client(trusting(path).await?);
        }
        let sdk = loader.load().await;
        let region = sdk.region().map(ToString::to_string).ok_or_else(|| {
            Error::bad_request("no AWS region is configured")
                .next("set region in the [[backend]] table, or AWS_REGION for the daemon")
        })?;
        let client = Client::new(&sdk);
        let endpoint = config
            .endpoint
            .clone()
            .or_else(|| std::env::var("AWS_ENDPOINT_URL_KMS").ok().filter(|e| !e.is_empty()))
            .or_else(|| sdk.endpoint_url().map(str::to_owned));
        Ok(Self { endpoint, region, credentials: sdk.credentials_provider(), client })
    }
}

/// What is configured, or what the other SDKs of AWS know by this variable.
fn ca_file(config: &AwsConfig) -> Option<PathBuf> {
    let variable = || std::env::var_os("AWS_CA_BUNDLE").filter(|v| !v.is_empty()).map(PathBuf::from);
    config.ca_file.clone().or_else(variable)
}

/// A client that trusts these certificate authorities alone.
async fn trusting(path: PathBuf) -> Result<SharedHttpClient> {
    let make = move || {
        let unusable = |what: &str, e: &dyn std::fmt::Display| {
            Error::bad_request(format!("{} {what}", path.display())).vendor(e)
        };
        let pem = std::fs::read(&path).map_err(|e| unusable("cannot be read", &e))?;
        // The SDK panics on what is no certificate.
        if !pem.windows(BEGIN.len()).any(|w| w == BEGIN) {
            return Err(Error::bad_request(format!("{} holds no certificates", path.display())));
        }
        let context = TlsContext::builder()
            .with_trust_store(TrustStore::empty().with_pem_certificate(pem))
            .build()
            .map_err(|e| unusable("holds no certificates", &e))?;
        let provider = Provider::Rustls(CryptoMode::AwsLc);
        Ok(Builder::new().tls_provider(provider).tls_context(context).build_https())
    };
    tokio::task::spawn_blocking(make)
        .await
        .map_err(|e| Error::internal("the certificate authorities could not be read").vendor(e))?
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn profile_files(config: &AwsConfig) -> Option<EnvConfigFiles> {
    let (settings, secrets) = (&config.config_file, &config.credentials_file);
    if settings.is_none() && secrets.is_none() {
        return None;
    }
    let mut files = EnvConfigFiles::builder()
        .include_default_config_file(settings.is_none())
        .include_default_credentials_file(secrets.is_none());
    if let Some(path) = settings {
        files = files.with_file(EnvConfigFileKind::Config, path);
    }
    if let Some(path) = secrets {
        files = files.with_file(EnvConfigFileKind::Credentials, path);
    }
    Some(files.build())
}
