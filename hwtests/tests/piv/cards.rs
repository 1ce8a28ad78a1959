//! Several cards, the wrong card, another card in the same reader.

use hwtests::{
    engines::{DEFAULT_PIN, Piv, private_file},
    eventually, programs,
};
use hwtests_piv_card::{CardOptions, VirtualCard};
use serde_json::json;
use signer_contract::PinSetup;
use signer_core::{Backend, ErrorKind, KeySelector, KeyType};
use signer_driver::DriverBackend;

use crate::support::{generate, open, serve, serve_with, sign};

const OTHER: u32 = 87_654_321;

/// "exactly one reader, please attach only one": two cards are two backends, each with its own keys.
#[tokio::test(flavor = "multi_thread")]
async fn two_cards_are_two_backends() {
    let card = Piv::start();
    let second =
        VirtualCard::start(card.pcscd().slot(1), CardOptions::new(OTHER, "5.4.3".parse().unwrap())).unwrap();
    card.pcscd().wait_for_cards(2).unwrap();
    let pin = card.folder().join("other-pin");
    private_file(&pin, DEFAULT_PIN);
    let options = json!({
        "serial": OTHER.to_string(),
        "management_key_file": card.management_key_file(),
        "allow_defaults": true,
    });
    let first_backend = serve(&card, PinSetup::Right).await;
    let second_backend = DriverBackend::start(card.driver(options, Some(pin))).await.unwrap();
    let one = generate(&*first_backend, "9a", KeyType::EcdsaP256).await;
    let two = generate(&*second_backend, "9a", KeyType::EcdsaP256).await;
    assert_ne!(one.public_key, two.public_key);
    assert_eq!(second_backend.describe().await.unwrap().device, format!("YubiKey 5.4.3 serial {OTHER}"));
    let address = two.address.unwrap();
    assert_eq!(address.to_string(), format!("piv:{OTHER}/9a"));
    let selector = KeySelector::Address(address);
    assert_eq!(second_backend.open(&selector).await.unwrap().info().public_key, two.public_key);
    assert_eq!(first_backend.open(&selector).await.err().unwrap().kind(), ErrorKind::NotFound);
    // One out, the other does not care.
    second.remove();
    sign(&*open(&*first_backend, "9a").await, "x").await.unwrap();
    let named = eventually(std::time::Duration::from_secs(2), || async {
        let error = second_backend.health().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        error.to_string().contains("there is YubiKey 5.7.1 serial 12345678")
    });
    assert!(named.await, "{:?}", second_backend.health().await);
    second.insert();
    assert!(
        eventually(std::time::Duration::from_secs(2), || async { second_backend.health().await.is_ok() })
            .await
    );

    // Without a serial number: which one?
    let error = serve_with(&card, json!({}), PinSetup::Right).await.describe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(
        error.to_string().contains("12345678") && error.to_string().contains(&OTHER.to_string()),
        "{error}"
    );
    second.remove();
    card.pcscd().wait_for_cards(1).unwrap();
    let only = serve_with(&card, json!({}), PinSetup::Right).await;
    assert_eq!(only.describe().await.unwrap().serial, "12345678");
}

/// "a key of the wrong card": another one in the same reader is not ours, whatever is in its slots, and gets no PIN.
#[tokio::test(flavor = "multi_thread")]
async fn another_card_in_the_same_reader_is_another_card() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    sign(&*signer, "ours").await.unwrap();
    card.card().swap(OTHER);
    card.pcscd().wait_for_cards(1).unwrap();
    for _ in 0..3 {
        let error = sign(&*signer, "not ours").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error:?}");
    }
    let settled = eventually(std::time::Duration::from_secs(2), || async {
        sign(&*signer, "x")
            .await
            .unwrap_err()
            .to_string()
            .contains(&format!("there is YubiKey 5.7.1 serial {OTHER}"))
    });
    assert!(settled.await, "{:?}", sign(&*signer, "x").await);
    assert_eq!(card.card().state().counters.verifies, 0, "the other card was given our PIN");
    card.card().swap(card.serial());
    assert!(card.card().wait_for_power(std::time::Duration::from_secs(5)));
    let back = eventually(std::time::Duration::from_secs(1), || async {
        sign(&*signer, "ours again").await.is_ok()
    });
    assert!(back.await);
}

/// A key that was replaced behind our back does not sign in the name of the one that was opened.
#[tokio::test(flavor = "multi_thread")]
async fn another_key_in_the_same_slot_is_another_key() {
    let card = Piv::with_firmware("5.4.3");
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    let signer = open(&*backend, "9a").await;
    sign(&*signer, "x").await.unwrap();
    programs::must(card.tool().args(["-s", "9a", "-A", "ECCP256", "-a", "generate"]));
    let error = sign(&*signer, "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("another key"), "{error}");
    sign(&*open(&*backend, "9a").await, "x").await.unwrap();
}

/// `signerd-piv list-cards` shows what to write into the configuration.
#[test]
fn cards_are_listed() {
    let card = Piv::start();
    let listed = programs::must(card.pcscd().command(programs::ours("signerd-piv")).arg("list-cards"));
    assert!(listed.contains("12345678") && listed.contains("5.7.1"), "{listed}");
    card.card().remove();
    card.pcscd().wait_for_cards(0).unwrap();
    let listed = programs::must(card.pcscd().command(programs::ours("signerd-piv")).arg("list-cards"));
    assert!(listed.contains("no PIV card"), "{listed}");
}
