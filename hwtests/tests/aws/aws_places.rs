//! Credentials, addresses, configuration.

use std::time::{Duration, SystemTime};

use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use hwtests::engines::{AwsFace, private_file};
use signer_aws_kms::{AwsBackend, AwsConfig};
use signer_core::{Backend, ErrorKind, KeyType};

use crate::support::{make, open, place, sign};

#[tokio::test]
async fn credentials_that_end_are_told_before_a_request_fails() {
    let face = AwsFace::start();
    let expires = |seconds: i64| {
        let at = SystemTime::now() + Duration::from_secs(seconds as u64);
        DateTime::from(at).fmt(DateTimeFormat::DateTime).unwrap()
    };
    let program = |answer: String| {
        private_file(&face.folder().join("answer"), &answer);
        let line = format!(
            "[default]\nregion = us-east-1\ncredential_process = cat {}/answer\n",
            face.folder().display()
        );
        private_file(&face.folder().join("config"), &line);
    };
    let answer = |seconds| {
        format!(
            r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}","SessionToken":"t","Expiration":"{}"}}"#,
            hwtests_kms_engine::AWS_ACCESS_KEY_ID,
            hwtests_kms_engine::AWS_SECRET_ACCESS_KEY,
            expires(seconds)
        )
    };
    private_file(&face.folder().join("credentials"), "");
    program(answer(3600));
    let backend = AwsBackend::new("aws", face.config()).unwrap();
    make(&backend, "release", KeyType::EcdsaP256).await.unwrap();
    backend.health().await.unwrap();

    // They end soon, and the program has no others.
    program(answer(100));
    let backend = AwsBackend::new("aws", face.config()).unwrap();
    let signer = open(&backend, "release").await.unwrap();
    let error = backend.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("expire in"), "{error:?}");
    sign(&*signer).await.unwrap();

    // The program fails.
    std::fs::remove_file(face.folder().join("answer")).unwrap();
    let error = AwsBackend::new("aws", face.config()).unwrap().health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("credentials"), "{error:?}");
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let face = AwsFace::start();
    private_file(
        &face.folder().join("credentials"),
        "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = hunter2hunter2\n",
    );
    let backend = AwsBackend::new("aws", face.config()).unwrap();
    let error = backend.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("credentials") && !error.to_string().contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn addresses_of_other_places_are_not_found() {
    let place = place().await;
    let arn = place.key.address.clone().unwrap().to_string();
    open(&place.backend, &arn).await.unwrap();
    let host = place.face.engine().url().replace("http://", "");
    open(&place.backend, &format!("awskms://{host}/alias/release")).await.unwrap();
    open(&place.backend, "awskms:///alias/release").await.unwrap();
    for elsewhere in ["awskms://localhost:1/alias/release".to_owned(), arn.replace("us-east-1", "eu-west-1")]
    {
        let error = open(&place.backend, &elsewhere).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{elsewhere}: {error:?}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_at_once() {
    for config in [
        AwsConfig { deletion_window_days: Some(6), ..AwsConfig::default() },
        AwsConfig { deletion_window_days: Some(31), ..AwsConfig::default() },
        AwsConfig { lacks: vec!["ed448".into()], ..AwsConfig::default() },
    ] {
        assert!(AwsBackend::new("aws", config).is_err());
    }
}
