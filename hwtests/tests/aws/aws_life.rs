//! The life of a key, and what other programs say of its signatures.

use std::time::{Duration, Instant};

use hwtests::{
    engines::{AwsFace, Engine, MiniStack},
    openssl::openssl_verifies,
};
use hwtests_kms_engine::{Fault, FaultKind};
use signer_aws_kms::{AwsBackend, AwsConfig};
use signer_core::{Backend, ErrorKind, KeySelector, KeyType, ListRequest, SignRequest};

use crate::support::{make, open, place, sdk, sign};

#[tokio::test]
async fn ministack_disabled_keys_and_keys_to_be_deleted_are_told_apart() {
    let stack = MiniStack::start();
    let face = AwsFace::start();
    for config in [stack.config(), face.config()] {
        let sdk = sdk(&config);
        let backend = AwsBackend::new("aws", config).unwrap();
        for name in ["off", "going"] {
            make(&backend, name, KeyType::EcdsaP256).await.unwrap();
        }
        let (off, going) = (open(&backend, "off").await.unwrap(), open(&backend, "going").await.unwrap());
        let id = |alias: &str| {
            let describing = sdk.describe_key().key_id(alias).send();
            async move { describing.await.unwrap().key_metadata().unwrap().key_id().to_owned() }
        };
        sdk.disable_key().key_id(id("alias/off").await).send().await.unwrap();
        sdk.schedule_key_deletion().key_id(id("alias/going").await).send().await.unwrap();
        for error in [sign(&*off).await.unwrap_err(), open(&backend, "off").await.map(drop).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            assert!(
                error.what().contains("disabled") && error.advice().unwrap().contains("enable-key"),
                "{error:?}"
            );
        }
        for error in [sign(&*going).await.unwrap_err(), open(&backend, "going").await.map(drop).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
            assert!(error.what().contains("scheduled for deletion"), "{error:?}");
            assert!(error.advice().unwrap().contains("cancel-key-deletion"), "{error:?}");
        }
        assert!(backend.list(ListRequest::default()).await.unwrap().keys.is_empty());
        // Its name is left, and goes when somebody deletes it by that.
        backend.delete().unwrap().delete(&"going".parse().unwrap()).await.unwrap();
        make(&backend, "going", KeyType::EcdsaP256).await.unwrap();
    }
}

#[tokio::test]
async fn a_moved_alias_is_noticed_without_a_failure() {
    let place = place().await;
    let new = make(&place.backend, "next", KeyType::EcdsaP256).await.unwrap();
    let sdk = sdk(&place.face.config());
    let target = sdk.describe_key().key_id("alias/next").send().await.unwrap();
    let target = target.key_metadata().unwrap().key_id().to_owned();
    sdk.update_alias().alias_name("alias/release").target_key_id(&target).send().await.unwrap();
    // Opened by its alias, it goes on with its key until somebody looks; whoever opens it gets the new one.
    sign(&*place.signer).await.unwrap();
    assert_eq!(open(&place.backend, "release").await.unwrap().info().public_key, new.public_key);
    // By its key id, the old key is still there.
    let address = place.key.address.clone().unwrap();
    let old = place.backend.open(&KeySelector::Address(address)).await.unwrap();
    assert_eq!(old.info().public_key, place.key.public_key);
    sign(&*old).await.unwrap();
    let id = old.info().name.to_string();
    assert_eq!(open(&place.backend, &id).await.unwrap().info().public_key, place.key.public_key);
}

#[tokio::test]
async fn a_key_is_made_once_whatever_happens_to_the_answer() {
    for kind in [FaultKind::Close, FaultKind::Truncate, FaultKind::Hang] {
        let face = AwsFace::start();
        let backend = AwsBackend::new("aws", face.config()).unwrap();
        face.engine().fault(Fault::new(kind).on("aws.CreateKey"));
        let made = make(&backend, "release", KeyType::EcdsaP256).await;
        assert_eq!(face.engine().seen("aws.CreateKey"), 1, "{kind:?}");
        let error = made.map(drop).expect_err(&format!("{kind:?}"));
        assert!(error.is_uncertain(), "{kind:?}: {error:?}");
    }
    // A key that gets no name is not left behind.
    let face = AwsFace::start();
    let backend = AwsBackend::new("aws", face.config()).unwrap();
    face.engine().fault(Fault::new(FaultKind::Denied).on("aws.CreateAlias"));
    let error = make(&backend, "release", KeyType::EcdsaP256).await.unwrap_err();
    assert!(error.what().contains("kms:CreateAlias") && !error.is_uncertain(), "{error:?}");
    assert!(backend.list(ListRequest::default()).await.unwrap().keys.is_empty());
}

#[tokio::test]
async fn public_keys_are_asked_for_once_and_one_connection_does() {
    let place = place().await;
    for _ in 0..20 {
        sign(&*open(&place.backend, "release").await.unwrap()).await.unwrap();
        place.backend.list(ListRequest::default()).await.unwrap();
        place.signer.health().await.unwrap();
        place.backend.health().await.unwrap();
    }
    assert_eq!(place.face.engine().seen("aws.GetPublicKey"), 1);
    assert!(place.face.engine().connections() <= 8, "{}", place.face.engine().connections());
    // After its lifetime it is asked for again, and a signer compares it.
    let config = AwsConfig { public_key_lifetime: Some(0), ..place.face.config() };
    let backend = AwsBackend::new("aws", config).unwrap();
    let signer = open(&backend, "release").await.unwrap();
    let before = place.face.engine().seen("aws.GetPublicKey");
    sign(&*signer).await.unwrap();
    sign(&*signer).await.unwrap();
    assert_eq!(place.face.engine().seen("aws.GetPublicKey"), before + 2);
}

#[tokio::test]
async fn a_dead_ministack_is_told_soon_and_served_again_when_it_is_back() {
    let mut stack = MiniStack::start();
    let backend = AwsBackend::new("aws", stack.config()).unwrap();
    make(&backend, "release", KeyType::EcdsaP256).await.unwrap();
    let signer = open(&backend, "release").await.unwrap();
    stack.stop();
    let start = Instant::now();
    let error = sign(&*signer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    let error = backend.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn openssl_verifies_every_signature_of_ministack_and_the_engine() {
    let (stack, face) = (MiniStack::start(), AwsFace::start());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("message"), "what openssl reads").unwrap();
    let mut verified = 0;
    for (config, profile) in [(stack.config(), stack.profile()), (face.config(), face.profile())] {
        let sdk = sdk(&config);
        let backend = AwsBackend::new("aws", config).unwrap();
        for key_type in profile.generates {
            let key = make(&backend, key_type.name(), key_type).await.unwrap();
            let signer = open(&backend, key_type.name()).await.unwrap();
            for algorithm in key.algorithms.iter().copied() {
                let request = SignRequest::message(algorithm, "what openssl reads");
                let signature = signer.sign(request).await.unwrap();
                let good = openssl_verifies(folder.path(), &key, algorithm, signature.as_bytes());
                let Some(good) = good else { continue };
                assert!(good, "openssl refuses {algorithm}");
                verified += 1;
            }
            // And the SDK says the same of the public key.
            let answer = sdk.get_public_key().key_id(format!("alias/{key_type}")).send().await.unwrap();
            assert_eq!(answer.public_key().unwrap().as_ref(), key.public_key.as_der());
        }
    }
    // Three curves, three sizes of RSA with six algorithms each, Ed25519: at both.
    assert_eq!(verified, 2 * (3 + 18 + 1));
}
