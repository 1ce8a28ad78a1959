//! One version of a key that signs.

use std::sync::Arc;

use azure_security_keyvault_keys::{
    KeyClient,
    models::{KeyClientSignOptions, KeyOperationResult, SignParameters},
};
use signer_core::{
    BoxFuture, Error, ErrorKind, Input, KeyInfo, Result, SignRequest, Signature, SignatureAlgorithm, Signer,
};
use signer_remote::Failure;

use crate::{
    algorithm,
    fault::{self, damaged},
    keys::Service,
    name::Version,
};

/// A version that was opened.
pub(crate) struct VersionSigner {
    service: Arc<Service>,
    version: Version,
    info: Arc<KeyInfo>,
}

impl VersionSigner {
    pub(crate) fn new(service: Arc<Service>, version: Version, info: Arc<KeyInfo>) -> Self {
        Self { service, version, info }
    }

    /// 1. The request must fit the key. 2. The answer must be this version's. 3. The signature must verify.
    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        let algorithm = request.algorithm();
        self.info.check(algorithm)?;
        let (Some(azure), Some(digest)) = (algorithm::to_azure(algorithm), request.to_digest()) else {
            return Err(Error::unsupported(format_args!("sign with {algorithm}"), "Azure Key Vault"));
        };
        let input = Input::Digest(digest);
        let signed = self
            .service
            .patience
            .persist(request.until(), || async {
                let parameters = SignParameters {
                    algorithm: Some(azure.clone()),
                    value: Some(digest.as_bytes().to_vec()),
                };
                let options =
                    KeyClientSignOptions { key_version: Some(self.version.id.clone()), ..Default::default() };
                let call = |client: Arc<KeyClient>| async move {
                    client.sign(&self.version.key, parameters.try_into()?, Some(options)).await?.into_model()
                };
                let answer = self.service.clients.ask(fault::SIGN, call).await?;
                let signature = self.read(answer, algorithm)?;
                let verified =
                    signer_remote::verify(&self.info.public_key, algorithm, &input, signature.as_bytes());
                verified.await.map_err(|_| damaged("the signature does not verify"))?;
                Ok(signature)
            })
            .await;
        if let Err(error) = &signed {
            self.look_again_after(error).await;
        }
        signed
    }

    /// The vault gives `r ‖ s` for ECDSA.
    fn read(&self, answer: KeyOperationResult, algorithm: SignatureAlgorithm) -> Result<Signature, Failure> {
        let version = answer.kid.as_deref().and_then(|kid| self.service.vault.read_kid(kid));
        if !version.is_some_and(|v| v.is(&self.version)) {
            return Err(damaged("another key has signed"));
        }
        let bytes =
            answer.result.filter(|b| !b.is_empty()).ok_or_else(|| damaged("the signature is missing"))?;
        match algorithm {
            SignatureAlgorithm::Ecdsa(_) => {
                Signature::from_ecdsa_raw(&bytes).map_err(|_| damaged("the signature is not one"))
            }
            _ => Ok(Signature::new(bytes)),
        }
    }

    /// A key that is gone or disabled is not remembered, so that the next one to open it is told.
    async fn look_again_after(&self, error: &Error) {
        if [ErrorKind::NotFound, ErrorKind::Denied].contains(&error.kind()) {
            self.service.forget(&self.version);
        } else if error.what().contains("does not verify") {
            // Says in the log whether the public key was replaced.
            if let Err(why) = self.service.fetch(&self.version.key, Some(&self.version.id)).await {
                tracing::error!(backend = self.service.name, key = %self.info.name, error = %why, "the key is not what it was");
            }
        }
    }

    /// The vault is asked for this version; a disabled one, or another public key, is an error.
    async fn health_now(&self) -> Result<()> {
        let (_, now) = self.service.fetch(&self.version.key, Some(&self.version.id)).await?;
        if now.public_key == self.info.public_key {
            return Ok(());
        }
        Err(Error::internal("the vault answers with another public key than before"))
    }

    fn about_this<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| e.key(&self.info.name).device(&self.service.name))
    }
}

impl Signer for VersionSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.about_this(self.sign_now(request).await) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.about_this(self.health_now().await) })
    }
}
