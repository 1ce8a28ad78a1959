//! Azure Key Vault: Microsoft's own client.

use std::{net::SocketAddr, sync::Arc};

use azure_core::{
    cloud::CustomConfiguration,
    credentials::Secret,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_security_keyvault_keys::{
    KeyClient, KeyClientOptions,
    models::{KeyClientSignOptions, SignParameters, SignatureAlgorithm},
};
use hwtests_kms_engine::{AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT};

use super::Call;
use crate::Result;

/// `engine` is where the vault's name leads to, and the authority of tokens.
pub(super) fn call(
    vault: &str,
    engine: &str,
    ca: &str,
    key: String,
    version: Option<String>,
) -> Result<Call> {
    let address: SocketAddr = engine.trim_start_matches("https://").parse()?;
    let http = reqwest::Client::builder()
        .tls_certs_merge(reqwest::Certificate::from_pem_bundle(ca.as_bytes())?)
        .resolve("tests.vault.azure.net", (address.ip(), 0).into())
        .build()?;
    let transport = Some(Transport::new(Arc::new(http)));
    let mut custom = CustomConfiguration::default();
    engine.clone_into(&mut custom.authority_host);
    let options = ClientOptions {
        transport: transport.clone(),
        cloud: Some(Arc::new(custom.into())),
        ..ClientOptions::default()
    };
    let credential = ClientSecretCredential::new(
        AZURE_TENANT,
        AZURE_CLIENT_ID.into(),
        Secret::new(AZURE_CLIENT_SECRET),
        Some(ClientSecretCredentialOptions { client_options: options }),
    )?;
    let options = ClientOptions { transport, retry: RetryOptions::none(), ..ClientOptions::default() };
    let options = KeyClientOptions { client_options: options, ..KeyClientOptions::default() };
    let client = Arc::new(KeyClient::new(vault, credential, Some(options))?);
    Ok(Arc::new(move || {
        let (client, key, version) = (client.clone(), key.clone(), version.clone());
        Box::pin(async move {
            let parameters = SignParameters {
                algorithm: Some(SignatureAlgorithm::Es256),
                value: Some(crate::DIGEST.to_vec()),
            };
            let options = KeyClientSignOptions { key_version: version, ..KeyClientSignOptions::default() };
            client.sign(&key, parameters.try_into()?, Some(options)).await?.into_model()?;
            Ok(())
        })
    }))
}
