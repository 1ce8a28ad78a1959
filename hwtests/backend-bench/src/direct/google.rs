//! Google Cloud KMS: Google's own client, with the checksum that it is asked to check.

use std::sync::Arc;

use google_cloud_kms_v1::{client::KeyManagementService, model::Digest};

use super::Call;
use crate::Result;

/// `version` is the full name of a key version.
pub(super) async fn call(endpoint: String, service_account: &str, version: String) -> Result<Call> {
    let credentials = serde_json::from_str(service_account)?;
    let credentials = google_cloud_auth::credentials::service_account::Builder::new(credentials).build()?;
    let client =
        KeyManagementService::builder().with_endpoint(endpoint).with_credentials(credentials).build().await?;
    Ok(Arc::new(move || {
        let (client, version) = (client.clone(), version.clone());
        Box::pin(async move {
            let bytes = bytes::Bytes::from_static(&crate::DIGEST);
            let checksum = i64::from(crc32c::crc32c(&bytes));
            let digest = Digest::new().set_sha256(bytes);
            client
                .asymmetric_sign()
                .set_name(version)
                .set_digest(digest)
                .set_digest_crc32c(checksum)
                .send()
                .await?;
            Ok(())
        })
    }))
}
