//! One key of the TPM, as a signer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use signer_core::{BoxFuture, Error, ErrorKind, KeyInfo, Result, SignRequest, Signature, Signer};

use crate::{
    backend,
    device::Device,
    login,
    material::{Material, Place},
    signing,
};

/// A key that was opened.
pub(crate) struct Key {
    device: Arc<Device>,
    info: KeyInfo,
    material: Mutex<Arc<Material>>,
}

impl Key {
    pub(crate) fn new(device: Arc<Device>, info: KeyInfo, material: Material) -> Self {
        Self { device, info, material: Mutex::new(Arc::new(material)) }
    }

    async fn sign_now(&self, request: SignRequest) -> Result<Signature> {
        self.info.check(request.algorithm())?;
        let material = self.material()?;
        let (algorithm, until) = (request.algorithm(), request.until());
        let digest = request
            .to_digest()
            .ok_or_else(|| Error::unsupported(format_args!("sign with {algorithm}"), "a TPM"))?;
        login::run(&self.device, &material, |connection, attempt| {
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(
                    Error::new(ErrorKind::TimedOut, "the deadline passed before the TPM signed").into()
                );
            }
            signing::sign(connection, &material, algorithm, &digest, attempt)
        })
        .await
    }

    fn health_now(&self) -> Result<()> {
        let material = self.material()?;
        self.device.with(|c| c.prove(&material)).map_err(|e| self.device.about(e))
    }

    /// The key, as long as its file is what it was.
    fn material(&self) -> Result<Arc<Material>> {
        let mut material = self.material.lock().unwrap_or_else(PoisonError::into_inner);
        let Place::File { file, .. } = &material.place else { return Ok(material.clone()) };
        if self.device.store.key_id(&material.stem) == Some(*file) {
            return Ok(material.clone());
        }
        let stem = material.stem.clone();
        let again = backend::read_file(&self.device.store, &stem)?
            .ok_or_else(|| self.device.about(backend::not_found()))?;
        if again.public_key != self.info.public_key {
            return Err(self.device.about(
                Error::new(ErrorKind::NotFound, "another key has taken the place of this one")
                    .next("open it again to use the new one"),
            ));
        }
        *material = Arc::new(again);
        Ok(material.clone())
    }
}

impl Signer for Key {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move { self.sign_now(request).await.map_err(|e| e.key(&self.info.name)) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.health_now().map_err(|e| e.key(&self.info.name)) })
    }
}
