//! The contract that every backend fulfils.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use signer_contract::{Fixture, PinSetup, Profile, contract_tests};
use signer_core::{Ability, Backend, BoxFuture, Result};

mod support;

struct Files {
    folder: tempfile::TempDir,
    backend: Mutex<Arc<dyn Backend>>,
}

fn start(directory: &Path) -> Result<Arc<dyn Backend>> {
    let config = support::config(directory, support::PASSPHRASE);
    Ok(Arc::new(signer_software::SoftwareBackend::open(config)?))
}

async fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let backend = Mutex::new(start(&folder.path().join("keys")).unwrap());
    Files { folder, backend }
}

impl Fixture for Files {
    fn profile(&self) -> Profile {
        Profile {
            identifiers: false,
            addresses: false,
            pins: false,
            ..Profile::full().without(Ability::Unlock)
        }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.lock().unwrap().clone()
    }

    fn restart(&self, _: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let backend = start(&self.folder.path().join("keys"))?;
            *self.backend.lock().unwrap() = backend.clone();
            Ok(backend)
        })
    }
}

contract_tests!(software, files);
