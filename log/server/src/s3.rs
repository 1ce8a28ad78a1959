//! The way to a bucket: region, endpoint and credentials as the AWS command line finds them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::{
    BehaviorVersion, Region, environment::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider,
};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, CredentialProvider, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AwsCredential},
};
use signer_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::location::S3Options;

/// How long a connection and a request may take.
const CONNECT: Duration = Duration::from_secs(3);
const REQUEST: Duration = Duration::from_secs(15);
/// How long a request is tried again that the service was too busy for.
const RETRY: Duration = Duration::from_secs(6);

/// A client of a bucket. Nothing is asked of it yet.
pub(crate) async fn connect(bucket: &str, options: &S3Options) -> Result<Arc<dyn ObjectStore>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let mut endpoint = options
        .s3_endpoint
        .clone()
        .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| variable("AWS_ENDPOINT_URL"));
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &options.s3_region {
        loader = loader.region(Region::new(region.clone()));
    } else if endpoint.is_some() {
        // A service of one's own: the machine's metadata know nothing of it.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else("us-east-1");
        loader = loader.region(region);
    }
    let sdk = loader.load().await;
    endpoint = endpoint.or_else(|| sdk.endpoint_url().map(ToOwned::to_owned));
    let region = sdk.region().map(ToString::to_string).ok_or_else(|| {
        Error::bad_request("no AWS region is configured").next("give --s3-region, or set AWS_REGION")
    })?;
    let credentials = sdk.credentials_provider().ok_or_else(no_credentials)?;

    let plain = endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let mut client =
        ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(plain);
    if let Some(path) = options.s3_ca_file.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from)) {
        client = client.with_no_system_certificates(true);
        for authority in authorities(&path)? {
            client = client.with_root_certificate(authority);
        }
    }
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: RETRY,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_credentials(Arc::new(Chain { provider: credentials, kept: Mutex::new(None) }))
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(plain);
    }
    let store = builder.build().map_err(|e| {
        Error::bad_request(format!("s3://{bucket} cannot be reached with these settings"))
            .vendor(e)
            .next("check --s3-endpoint and --s3-region")
    })?;
    Ok(Arc::new(store))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>> {
    let pem = std::fs::read(path)
        .map_err(|e| Error::bad_request(format!("{} cannot be read", path.display())).vendor(e))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(bundle) if !bundle.is_empty() => Ok(bundle),
        _ => Err(Error::bad_request(format!("{} holds no certificates", path.display()))),
    }
}

fn no_credentials() -> Error {
    Error::new(ErrorKind::Denied, "there are no AWS credentials")
        .next("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role")
}

/// The AWS SDK's chain of credentials, for the object store's client. What was found is kept until shortly before it expires.
struct Chain {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<(Arc<AwsCredential>, SystemTime)>>,
}

/// Credentials are asked for again so long before they expire, and without an end after so long.
const AHEAD: Duration = Duration::from_mins(5);
const ENDLESS: Duration = Duration::from_mins(5);

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        if let Some((credential, until)) = &*kept
            && now < *until
        {
            return Ok(credential.clone());
        }
        let found = match self.provider.provide_credentials().await {
            Ok(found) => found,
            Err(e) => {
                // Those that are about to expire are better than none.
                if let Some((credential, until)) = &*kept
                    && now < *until + AHEAD
                {
                    return Ok(credential.clone());
                }
                return Err(object_store::Error::Unauthenticated {
                    path: "credentials".to_owned(),
                    source: Box::new(e),
                });
            }
        };
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(ToOwned::to_owned),
        });
        let until = found.expiry().map_or(now + ENDLESS, |end| end.checked_sub(AHEAD).unwrap_or(now));
        *kept = Some((credential.clone(), until));
        Ok(credential)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain(..)")
    }
}
