//! A card: the PIV library without driver and daemon, on one thread.

use std::{path::Path, sync::Arc};

use signer_core::{
    Backend, BoxFuture, Digest, HashAlgorithm, KeyName, KeySelector, Pin, PinLease, PinOutcome, PinPrompt,
    PinSource, SignRequest,
};
use signer_piv::{PivBackend, PivConfig};

use crate::{
    Result, Timing,
    measure::{self, Load},
};

pub(super) fn load(slot: &str, pin_file: &str, timing: Timing) -> Result<Load> {
    let pin = Pin::new(std::fs::read_to_string(Path::new(pin_file))?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let backend = PivBackend::new(&PivConfig::default(), "card", Arc::new(Known(pin)))?;
    let signer = runtime.block_on(backend.open(&KeySelector::Name(KeyName::label(slot)?)))?;
    let handle = runtime.handle();
    measure::threads(1, timing.warm_up, timing.seconds, None, || {
        let signer = signer.clone();
        Ok(move || {
            let digest = Digest::new(HashAlgorithm::Sha256, &crate::DIGEST)?;
            let request = SignRequest::digest(signer.info().default_algorithm(), digest)?;
            handle.block_on(signer.sign(request))?;
            Ok(())
        })
    })
}

/// The PIN of a card that a test made.
struct Known(Pin);
struct Lease(Pin);

impl PinSource for Known {
    fn lease<'a>(&'a self, _: &'a PinPrompt) -> BoxFuture<'a, signer_core::Result<Box<dyn PinLease>>> {
        Box::pin(async { Ok(Box::new(Lease(self.0.clone())) as Box<dyn PinLease>) })
    }
}

impl PinLease for Lease {
    fn pin(&self) -> &Pin {
        &self.0
    }
    fn may_use_last_try(&self) -> bool {
        false
    }
    fn report(self: Box<Self>, _: PinOutcome) {}
}
