//! What the stories share.

use std::sync::Arc;

use hwtests::engines::{Engine, Piv};
use signer_contract::PinSetup;
use signer_core::{
    Backend, Digest, Error, GenerateRequest, Input, KeyInfo, KeyName, KeyPolicy, KeySelector, KeyType,
    SignRequest, Signature, Signer,
};
use signer_driver::DriverBackend;

pub(crate) fn slot(name: &str) -> KeyName {
    KeyName::label(name).unwrap()
}

pub(crate) async fn serve(card: &Piv, pin: PinSetup) -> Arc<DriverBackend> {
    serve_with(card, card.options(), pin).await
}

pub(crate) async fn serve_with(card: &Piv, options: serde_json::Value, pin: PinSetup) -> Arc<DriverBackend> {
    DriverBackend::start(card.driver(options, card.pin_file(pin))).await.unwrap()
}

pub(crate) async fn generate(backend: &dyn Backend, name: &str, key_type: KeyType) -> KeyInfo {
    generate_with(backend, name, key_type, KeyPolicy::default()).await.unwrap()
}

pub(crate) async fn generate_with(
    backend: &dyn Backend,
    name: &str,
    key_type: KeyType,
    policy: KeyPolicy,
) -> Result<KeyInfo, Error> {
    let request = GenerateRequest { policy, ..GenerateRequest::new(slot(name), key_type) };
    backend.generate().unwrap().generate(request).await
}

pub(crate) async fn open(backend: &dyn Backend, name: &str) -> Arc<dyn Signer> {
    backend.open(&KeySelector::Name(slot(name))).await.unwrap()
}

/// Signs, and verifies what comes.
pub(crate) async fn sign(signer: &dyn Signer, message: &str) -> Result<Signature, Error> {
    let algorithm = signer.info().default_algorithm();
    let input = match algorithm.prehash() {
        Some(hash) => Input::Digest(Digest::of(hash, message.as_bytes())),
        None => Input::Message(message.as_bytes().to_vec().into()),
    };
    let signature = signer.sign(SignRequest::new(algorithm, input.clone()).unwrap()).await?;
    signer.info().public_key.verify(algorithm, &input, signature.as_bytes()).unwrap();
    Ok(signature)
}

/// Signs, within a second of a card that has just come back.
pub(crate) async fn sign_soon(signer: &dyn Signer, message: &str) -> Signature {
    let start = std::time::Instant::now();
    loop {
        match sign(signer, message).await {
            Ok(signature) => return signature,
            Err(error) if error.is_retryable() && start.elapsed().as_millis() < 1000 => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
