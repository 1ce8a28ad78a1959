//! The contract's fixtures: each engine, directly and through a whole daemon.

use std::sync::{Arc, Mutex, PoisonError};

use signer_contract::{Fixture, PinSetup, Profile};
use signer_core::{Ability, Backend, BoxFuture, Pin, Result};

use crate::{
    daemon::{Daemon, GRANT_ALL},
    engines::Engine,
};

/// An engine without a daemon: the backend itself, or its driver processes.
pub struct Direct<E> {
    engine: E,
    backend: Mutex<Arc<dyn Backend>>,
}

impl<E: Engine> Direct<E> {
    /// Starts the backend.
    pub async fn new(engine: E) -> Self {
        let backend = engine
            .direct(PinSetup::Right)
            .await
            .unwrap_or_else(|e| panic!("the backend does not start: {e:?}"));
        Self { engine, backend: Mutex::new(backend) }
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }
}

impl<E: Engine> Fixture for Direct<E> {
    fn profile(&self) -> Profile {
        self.engine.profile()
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn restart(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            let backend = self.engine.direct(pin).await?;
            *self.backend.lock().unwrap_or_else(PoisonError::into_inner) = backend.clone();
            Ok(backend)
        })
    }

    fn pin(&self) -> Option<Pin> {
        self.engine.profile().pins.then(|| Pin::new(self.engine.pin()).expect("engines have good PINs"))
    }

    fn logins(&self) -> Option<u64> {
        self.engine.logins()
    }
}

/// An engine behind a whole daemon, seen through its client.
pub struct ThroughDaemon<E> {
    engine: E,
    daemon: Daemon,
    backend: Mutex<Arc<dyn Backend>>,
}

/// The backend's name in the daemon's configuration.
const NAME: &str = "place";

impl<E: Engine> ThroughDaemon<E> {
    /// Starts a daemon.
    pub async fn new(engine: E) -> Self {
        let daemon = Daemon::start(&[engine.toml(NAME, PinSetup::Right)]).await;
        let backend = Mutex::new(Arc::new(daemon.backend(NAME).await) as Arc<dyn Backend>);
        Self { engine, daemon, backend }
    }
}

impl<E: Engine> Fixture for ThroughDaemon<E> {
    fn profile(&self) -> Profile {
        Profile { denies_unknown_addresses: true, ..self.engine.profile() }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn restart(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            self.daemon.kill();
            self.daemon.configure(&format!("{}\n{GRANT_ALL}", self.engine.toml(NAME, pin)));
            self.daemon.start_again().await;
            let backend: Arc<dyn Backend> = Arc::new(self.daemon.backend(NAME).await);
            *self.backend.lock().unwrap_or_else(PoisonError::into_inner) = backend.clone();
            Ok(backend)
        })
    }

    fn pin(&self) -> Option<Pin> {
        let pins = self.profile().pins && self.profile().abilities.contains(&Ability::Unlock);
        pins.then(|| Pin::new(self.engine.pin()).expect("engines have good PINs"))
    }

    fn logins(&self) -> Option<u64> {
        self.engine.logins()
    }
}
