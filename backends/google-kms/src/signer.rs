//! One version of a key that signs.

use std::sync::Arc;

use google_cloud_kms_v1::model::{AsymmetricSignRequest, AsymmetricSignResponse, Digest as GoogleDigest};
use signer_core::{
    BoxFuture, Error, ErrorKind, HashAlgorithm, Input, KeyInfo, Result, SignRequest, Signature, Signer,
};
use signer_remote::Failure;

use crate::{
    fault::{self, damaged},
    keys::{Service, crc32c},
    name::Version,
};

/// Bytes of the longest message where the message itself is signed.
pub(crate) const LONGEST: usize = 64 * 1024;

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

    /// 1. The request must fit the key. 2. It goes out with a checksum. 3. The answer must be this version's, with right
    ///    checksums both ways. 4. The signature must verify.
    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        let (ask, input) = self.to_google(&request)?;
        let signed = self
            .service
            .patience
            .persist(request.until(), || async {
                let call = |client: google_cloud_kms_v1::client::KeyManagementService| {
                    client.asymmetric_sign().with_request(ask.clone()).send()
                };
                let answer = self.service.clients.ask(fault::SIGN, call).await?;
                check(&answer, &ask)?;
                let verified = signer_remote::verify(
                    &self.info.public_key,
                    request.algorithm(),
                    &input,
                    &answer.signature,
                );
                verified.await.map_err(|_| damaged("the signature does not verify"))?;
                Ok(Signature::new(answer.signature.to_vec()))
            })
            .await;
        if let Err(error) = &signed {
            self.look_again_after(error).await;
        }
        signed
    }

    /// The request in Google's form, and what its signature is to be verified against.
    fn to_google(&self, request: &SignRequest) -> Result<(AsymmetricSignRequest, Input)> {
        let ask = AsymmetricSignRequest::new().set_name(self.version.to_string());
        if let Some(digest) = request.to_digest() {
            let bytes = bytes::Bytes::copy_from_slice(digest.as_bytes());
            let checksum = crc32c(&bytes);
            let google = match digest.algorithm() {
                HashAlgorithm::Sha256 => GoogleDigest::new().set_sha256(bytes),
                HashAlgorithm::Sha384 => GoogleDigest::new().set_sha384(bytes),
                HashAlgorithm::Sha512 => GoogleDigest::new().set_sha512(bytes),
            };
            return Ok((ask.set_digest(google).set_digest_crc32c(checksum), Input::Digest(digest)));
        }
        let Input::Message(message) = request.input() else {
            return Err(Error::internal("a digest for an algorithm that signs messages"));
        };
        if message.is_empty() || message.len() > LONGEST {
            return Err(Error::bad_request(format!(
                "Google Cloud KMS signs messages of 1 to {LONGEST} bytes with {}, not of {}",
                request.algorithm(),
                message.len()
            ))
            .next("sign a digest with an ECDSA or RSA key instead"));
        }
        let checksum = crc32c(message);
        Ok((ask.set_data(message.clone()).set_data_crc32c(checksum), request.input().clone()))
    }

    /// A key that is gone or disabled is not remembered, so that the next one to open it is told.
    async fn look_again_after(&self, error: &Error) {
        if [ErrorKind::NotFound, ErrorKind::Denied].contains(&error.kind()) {
            self.service.forget(&self.version);
        } else if error.what().contains("does not verify") {
            // Says in the log whether the public key was replaced.
            if let Err(why) = self.service.fresh_info(&self.version).await {
                tracing::error!(backend = self.service.name, key = %self.info.name, error = %why, "the key is not what it was");
            }
        }
    }

    /// The service is asked for this version's public key, which it has for enabled versions only.
    async fn health_now(&self) -> Result<()> {
        let name = self.version.to_string();
        let (public_key, _) = self.service.public_key(&name, None).await?;
        if public_key == self.info.public_key {
            return Ok(());
        }
        Err(Error::internal("the service answers with another public key than before")
            .next("a version's public key never changes: look for something between here and the service"))
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

/// Both checksums, and whose answer it is.
fn check(answer: &AsymmetricSignResponse, ask: &AsymmetricSignRequest) -> Result<(), Failure> {
    if answer.name != ask.name {
        return Err(damaged("another version of the key has signed"));
    }
    if answer.signature_crc32c != Some(crc32c(&answer.signature)) {
        return Err(damaged("the checksum of a signature is wrong"));
    }
    let verified =
        if ask.digest.is_some() { answer.verified_digest_crc32c } else { answer.verified_data_crc32c };
    if !verified {
        return Err(damaged("the service did not verify the checksum of what it signed"));
    }
    Ok(())
}
