//! The classification table, one test a row: what the service says, and what it means.

use std::time::{Duration, Instant};

use hwtests::engines::{AwsFace, private_file};
use hwtests_kms_engine::{Fault, FaultKind};
use signer_aws_kms::{AwsBackend, AwsConfig};
use signer_core::{Backend, Error, ErrorKind, KeyType, SignRequest};

use crate::support::{Place, make, open, place, request, sign};

impl Place {
    /// Signs while this goes wrong for ever, and gives the error and how often the service was asked. Afterwards all is well.
    async fn fails(&self, kind: FaultKind) -> (Error, u64) {
        self.fails_with(Fault::new(kind)).await
    }

    async fn fails_with(&self, fault: Fault) -> (Error, u64) {
        let before = self.face.engine().seen("aws.Sign");
        self.face.engine().fault(fault.for_ever().on("aws.Sign"));
        let error = sign(&*self.signer).await.unwrap_err();
        assert_eq!(error.key_name(), Some("release"), "{error:?}");
        let asked = self.face.engine().seen("aws.Sign") - before;
        self.face.engine().heal();
        sign(&*self.signer)
            .await
            .unwrap_or_else(|e| panic!("{kind:?} is healed: {e:?}", kind = error.kind()));
        (error, asked)
    }
}

#[tokio::test]
async fn a_bad_request_is_not_repeated() {
    let (error, asked) = place().await.fails(FaultKind::BadRequest).await;
    assert_eq!((error.kind(), asked), (ErrorKind::BadRequest, 1), "{error:?}");
    assert!(error.vendor_code().unwrap().contains("ValidationException"), "{error:?}");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let (error, asked) = place().await.fails(FaultKind::Denied).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Denied, 1), "{error:?}");
    assert!(error.what().contains("kms:Sign"), "{error:?}");
    assert!(error.advice().unwrap().contains("kms:Sign"), "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_gone_is_not_found() {
    let (error, asked) = place().await.fails(FaultKind::NotFound).await;
    assert_eq!((error.kind(), asked), (ErrorKind::NotFound, 1), "{error:?}");
}

#[tokio::test]
async fn a_conflict_is_busy() {
    let (error, asked) = place().await.fails(FaultKind::Conflict).await;
    assert!(matches!(error.kind(), ErrorKind::Busy { .. }), "{error:?}");
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn throttling_is_waited_out_within_the_deadline() {
    let place = place().await;
    place.face.engine().fault(Fault::new(FaultKind::Throttle).times(4).on("aws.Sign"));
    let before = place.face.engine().seen("aws.Sign");
    sign(&*place.signer).await.unwrap();
    assert_eq!(place.face.engine().seen("aws.Sign") - before, 5);
    // Where it does not end in time, the caller is told when to come back, before the deadline.
    place.face.engine().fault(Fault::new(FaultKind::Throttle).for_ever().retry_after(3).on("aws.Sign"));
    let start = Instant::now();
    let late = request(&*place.signer).deadline(Some(start + Duration::from_secs(2)));
    let error = place.signer.sign(late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled { retry_after: Duration::from_secs(3) }, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "it waits although it is of no use");
}

#[tokio::test]
async fn sixteen_callers_share_a_throttled_service() {
    let place = place().await;
    place.face.engine().fault(Fault::new(FaultKind::Throttle).times(40).on("aws.Sign"));
    let tasks = (0..16).map(|_| {
        let signer = place.signer.clone();
        tokio::spawn(async move { sign(&*signer).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_defect_of_the_service_is_internal() {
    let (error, asked) = place().await.fails(FaultKind::Internal).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Internal, 3), "{error:?}");
}

#[tokio::test]
async fn a_service_that_is_not_available_is_gone() {
    for kind in [FaultKind::Unavailable, FaultKind::Gateway] {
        let (error, asked) = place().await.fails(kind).await;
        assert_eq!((error.kind(), asked), (ErrorKind::DeviceGone, 3), "{kind:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_moment_of_trouble_is_not_seen() {
    let place = place().await;
    for kind in [
        FaultKind::Unavailable,
        FaultKind::Internal,
        FaultKind::Gateway,
        FaultKind::Close,
        FaultKind::Truncate,
    ] {
        place.face.engine().fault(Fault::new(kind).on("aws.Sign"));
        sign(&*place.signer).await.unwrap_or_else(|e| panic!("{kind:?}: {e:?}"));
    }
}

#[tokio::test]
async fn a_cut_connection_is_gone() {
    for kind in [FaultKind::Close, FaultKind::Truncate] {
        let (error, _) = place().await.fails(kind).await;
        assert_eq!(error.kind(), ErrorKind::DeviceGone, "{kind:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_soon() {
    for fault in [Fault::new(FaultKind::Hang), Fault::new(FaultKind::SlowBytes).ms(200)] {
        let start = Instant::now();
        let place = place().await;
        let (error, asked) = place.fails_with(fault).await;
        assert_eq!((error.kind(), asked), (ErrorKind::DeviceGone, 1), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let place = place().await;
    place.face.engine().fault(Fault::new(FaultKind::Hang).for_ever().on("aws.Sign"));
    let start = Instant::now();
    let soon = request(&*place.signer).deadline(Some(start + Duration::from_millis(500)));
    let error = place.signer.sign(soon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_that_is_no_json_is_internal() {
    for kind in [FaultKind::Garbage, FaultKind::NotJson] {
        let (error, _) = place().await.fails(kind).await;
        assert_eq!(error.kind(), ErrorKind::Internal, "{kind:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_signature_that_does_not_verify_never_gets_out() {
    let place = place().await;
    let kinds = [KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Ed25519, KeyType::MlDsa44];
    for key_type in kinds {
        make(&place.backend, key_type.name(), key_type).await.unwrap();
        let signer = open(&place.backend, key_type.name()).await.unwrap();
        for algorithm in signer.info().algorithms.clone() {
            place.face.engine().fault(Fault::new(FaultKind::WrongSignature).on("aws.Sign"));
            let error = signer.sign(SignRequest::message(algorithm, "x")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{algorithm}: {error:?}");
            assert_eq!(error.key_name(), Some(key_type.name()));
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_key_is_refused() {
    let (error, _) = place().await.fails(FaultKind::WrongVersion).await;
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
}

#[tokio::test]
async fn a_changed_public_key_is_noticed() {
    let place = place().await;
    place.face.engine().fault(Fault::new(FaultKind::ChangedKey).for_ever());
    let error = sign(&*place.signer).await.unwrap_err();
    // So the daemon opens the key anew.
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.what().contains("another public key"), "{error:?}");
}

#[tokio::test]
async fn expired_credentials_are_told_from_missing_permissions() {
    let (error, _) = place().await.fails(FaultKind::Expired).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.what().contains("expired"), "{error:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_named() {
    let face = AwsFace::start();
    let backend = AwsBackend::new("aws", face.tls_config()).unwrap();
    make(&backend, "release", KeyType::EcdsaP256).await.unwrap();
    face.engine().expire_certificate();
    let fresh = AwsBackend::new("aws", face.tls_config()).unwrap();
    let error = open(&fresh, "release").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(error.advice().unwrap().contains("expired"), "{error:?}");
    // One of an authority that nobody knows is another thing.
    face.engine().heal();
    let strangers = face.folder().join("strangers.pem");
    private_file(&strangers, AwsFace::start().engine().ca_pem());
    let config = AwsConfig { ca_file: Some(strangers), ..face.tls_config() };
    let error = AwsBackend::new("aws", config).unwrap().health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(error.what().contains("certificate"), "{error:?}");
}
