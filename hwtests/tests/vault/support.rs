//! What all tests of Vault do.

use std::sync::Arc;

use hwtests::{
    engines::{secret, token},
    scripted::Scripted,
};
use signer_core::{
    Backend, Error, GenerateRequest, KeyInfo, KeyName, KeySelector, KeyType, SignRequest, Signature, Signer,
};
use signer_vault_transit::{SecretLoader, VaultBackend, VaultConfig};

pub(crate) type Config = VaultConfig<SecretLoader>;

pub(crate) fn backend(config: Config) -> VaultBackend {
    VaultBackend::new("vault", config).unwrap()
}

pub(crate) async fn make(backend: &VaultBackend, name: &str, key_type: KeyType) -> Result<KeyInfo, Error> {
    let name = KeyName::label(name).unwrap();
    backend.generate().unwrap().generate(GenerateRequest::new(name, key_type)).await
}

pub(crate) async fn open(backend: &VaultBackend, key: &str) -> Result<Arc<dyn Signer>, Error> {
    backend.open(&key.parse::<KeySelector>().unwrap()).await
}

pub(crate) fn request(signer: &dyn Signer) -> SignRequest {
    SignRequest::message(signer.info().default_algorithm(), "a message")
}

pub(crate) async fn sign(signer: &dyn Signer) -> Result<Signature, Error> {
    signer.sign(request(signer)).await
}

pub(crate) async fn delete(backend: &VaultBackend, key: &str) -> Result<(), Error> {
    backend.delete().unwrap().delete(&key.parse().unwrap()).await
}

/// A configuration for a scripted server.
pub(crate) fn to(server: &Scripted) -> Config {
    Config {
        address: Some(format!("http://{}", server.address())),
        login: token(secret("t")),
        ..Config::default()
    }
}
