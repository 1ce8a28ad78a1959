//! What older firmware cannot do is said, and what it can is done.

use hwtests::engines::Piv;
use signer_contract::{Material, PinSetup, make_private_key, self_signed};
use signer_core::{
    Backend, ErrorKind, ImportRequest, KeyOrigin, KeyPolicy, KeySelector, KeyType, ListRequest, PinPolicy,
    TouchPolicy,
};

use crate::support::{generate, generate_with, open, serve, sign, slot};

/// Firmware without metadata: what was made in the card is known by its attestation, what was imported by its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_old_cards_are_found() {
    for firmware in ["4.3.5", "5.2.7"] {
        let card = Piv::with_firmware(firmware);
        let backend = serve(&card, PinSetup::Right).await;
        let described = backend.describe().await.unwrap();
        assert_eq!((described.firmware.as_str(), described.serial.as_str()), (firmware, "12345678"));
        assert_eq!(
            described.generates,
            [KeyType::EcdsaP256, KeyType::Rsa2048, KeyType::EcdsaP384],
            "{firmware}"
        );
        let policy = KeyPolicy {
            pin: Some(PinPolicy::Once),
            touch: Some(TouchPolicy::Cached),
            ..KeyPolicy::default()
        };
        let made = generate_with(&*backend, "9a", KeyType::EcdsaP256, policy.clone()).await.unwrap();
        assert_eq!((made.origin, made.policy), (KeyOrigin::Generated, policy), "{firmware}");
        let key = make_private_key(KeyType::EcdsaP384).unwrap().key(Material::Pkcs8Der).unwrap();
        let half = key.public_key().clone();
        let imported = backend.import().unwrap().import(ImportRequest::new(slot("9d"), key)).await.unwrap();
        assert_eq!(imported.public_key, half);
        // It has no certificate yet, and such a card does not show it.
        let names =
            |keys: Vec<signer_core::KeyInfo>| keys.iter().map(|k| k.name.to_string()).collect::<Vec<_>>();
        let listed = backend.list(ListRequest::default()).await.unwrap().keys;
        assert_eq!(names(listed), ["9a"], "{firmware}");
        card.card().touch_by_itself(Some(std::time::Duration::from_millis(10)));
        sign(&*open(&*backend, "9a").await, "made there").await.unwrap();

        let error = generate_with(&*backend, "9c", KeyType::Ed25519, KeyPolicy::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(firmware) && error.to_string().contains("ecdsa-p256"), "{error}");
        let error =
            generate_with(&*backend, "9a", KeyType::EcdsaP256, KeyPolicy::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{firmware}: {error}");
    }
}

/// A card that cannot destroy a key says so, after it has deleted the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_destroyed() {
    let card = Piv::with_firmware("5.4.3");
    let backend = serve(&card, PinSetup::Right).await;
    let made = generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    let certificate = self_signed(&*signer, "x").await.unwrap();
    let selector = KeySelector::Name(made.name);
    backend.store_certificate().unwrap().store_certificate(&selector, &certificate).await.unwrap();
    let error = backend.delete().unwrap().delete(&selector).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for word in ["5.4.3", "certificate is deleted", "overwrite", "reset"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    let opened = open(&*backend, "9a").await;
    assert_eq!(opened.info().certificate, None);
    sign(&*opened, "it is still there").await.unwrap();
}
