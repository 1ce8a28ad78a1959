//! The PIN and the management key stay where they belong.

use hwtests::{
    engines::{DEFAULT_MANAGEMENT_KEY, Engine, Piv, private_file},
    process,
};
use signer_contract::PinSetup;
use signer_core::{ErrorKind, KeyPolicy, KeyType};

use crate::support::{generate, generate_with, open, serve, sign};

/// Neither is in the driver's arguments or environment, nor in an error about it.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown() {
    let card = Piv::start();
    let backend = serve(&card, PinSetup::Right).await;
    generate(&*backend, "9a", KeyType::EcdsaP256).await;
    sign(&*open(&*backend, "9a").await, "x").await.unwrap();
    for pid in backend.processes() {
        for file in ["cmdline", "environ"] {
            let bytes = process::read(pid, file);
            for secret in [card.pin(), DEFAULT_MANAGEMENT_KEY.to_owned()] {
                assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{file}");
            }
        }
    }
    let wrong = "ff".repeat(24);
    private_file(&card.management_key_file(), &wrong);
    let error = generate_with(&*backend, "9c", KeyType::EcdsaP256, KeyPolicy::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("management_key_file") && !error.to_string().contains(&wrong),
        "{error}"
    );
    private_file(&card.management_key_file(), &"ff".repeat(16));
    let error = generate_with(&*backend, "9c", KeyType::EcdsaP256, KeyPolicy::default()).await.unwrap_err();
    assert!(error.to_string().contains("another kind"), "{error}");
}
