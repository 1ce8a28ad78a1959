//! AWS KMS: the SDK's own call.

use std::sync::Arc;

use aws_sdk_kms::{
    config::{Credentials, Region},
    primitives::Blob,
    types::{MessageType, SigningAlgorithmSpec},
};

use super::Call;

pub(super) fn call(endpoint: String, key: String) -> Call {
    let credentials = Credentials::new(
        hwtests_kms_engine::AWS_ACCESS_KEY_ID,
        hwtests_kms_engine::AWS_SECRET_ACCESS_KEY,
        None,
        None,
        "bench",
    );
    let config = aws_sdk_kms::Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
        .build();
    let sdk = aws_sdk_kms::Client::from_conf(config);
    Arc::new(move || {
        let request = sdk
            .sign()
            .key_id(&key)
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .message(Blob::new(crate::DIGEST));
        Box::pin(async move {
            request.send().await?;
            Ok(())
        })
    })
}
