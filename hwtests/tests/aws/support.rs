//! What all tests of AWS KMS do.

use std::sync::Arc;

use aws_sdk_kms::config::{Credentials, Region};
use hwtests::engines::AwsFace;
use signer_aws_kms::{AwsBackend, AwsConfig};
use signer_core::{
    Backend, Error, GenerateRequest, KeyInfo, KeyName, KeySelector, KeyType, SignRequest, Signature, Signer,
};

pub(crate) struct Place {
    pub(crate) face: AwsFace,
    pub(crate) backend: AwsBackend,
    pub(crate) key: KeyInfo,
    pub(crate) signer: Arc<dyn Signer>,
}

/// An engine with one key, `release`, that has signed once.
pub(crate) async fn place() -> Place {
    let face = AwsFace::start();
    let backend = AwsBackend::new("aws", face.config()).unwrap();
    let key = make(&backend, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&backend, "release").await.unwrap();
    sign(&*signer).await.unwrap();
    Place { face, backend, key, signer }
}

pub(crate) async fn make(backend: &AwsBackend, name: &str, key_type: KeyType) -> Result<KeyInfo, Error> {
    let name = KeyName::label(name).unwrap();
    backend.generate().unwrap().generate(GenerateRequest::new(name, key_type)).await
}

pub(crate) async fn open(backend: &AwsBackend, key: &str) -> Result<Arc<dyn Signer>, Error> {
    backend.open(&key.parse::<KeySelector>().unwrap()).await
}

pub(crate) fn request(signer: &dyn Signer) -> SignRequest {
    SignRequest::message(signer.info().default_algorithm(), "a message")
}

pub(crate) async fn sign(signer: &dyn Signer) -> Result<Signature, Error> {
    signer.sign(request(signer)).await
}

/// The SDK itself, as an administrator has it.
pub(crate) fn sdk(config: &AwsConfig) -> aws_sdk_kms::Client {
    let credentials = Credentials::new(
        hwtests_kms_engine::AWS_ACCESS_KEY_ID,
        hwtests_kms_engine::AWS_SECRET_ACCESS_KEY,
        None,
        None,
        "test",
    );
    let config = aws_sdk_kms::Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .endpoint_url(config.endpoint.as_ref().unwrap())
        .build();
    aws_sdk_kms::Client::from_conf(config)
}
