//! The TPM as this process is connected to it: every piece of work goes through [`Device::with`].

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use signer_core::{Error, ErrorKind, Event, EventSink, PinSource, Result};

use crate::{
    codes::{self, Action},
    config::TpmConfig,
    connection::{Connection, Guarded},
    fault::Fault,
    login::PinMark,
    store::Store,
};

/// One configured TPM.
pub(crate) struct Device {
    /// The backend's configured name, for messages.
    pub(crate) backend: String,
    pub(crate) config: Arc<TpmConfig>,
    pub(crate) store: Arc<Store>,
    pub(crate) pins: Arc<dyn PinSource>,
    /// Whoever holds this uses the TPM. Nobody waits for a PIN with it.
    connection: Mutex<Option<Connection>>,
    /// The PIN that was right, to be known again.
    opened_with: Mutex<Option<PinMark>>,
    guarded: Guarded,
    down: AtomicBool,
    sinks: Mutex<Vec<EventSink>>,
}

impl Device {
    /// Opens the state folder. The TPM may be absent.
    pub(crate) fn new(config: TpmConfig, backend: String, pins: Arc<dyn PinSource>) -> Result<Self> {
        let store = Arc::new(Store::open(config.state.clone())?);
        Ok(Self {
            backend,
            config: Arc::new(config),
            store,
            pins,
            connection: Mutex::default(),
            opened_with: Mutex::default(),
            guarded: Guarded::default(),
            down: AtomicBool::new(false),
            sinks: Mutex::default(),
        })
    }

    /// Does a piece of work in the TPM, and whatever it takes that it succeeds: connects, and when it fails goes up the
    /// tiers of [`Action`]. `work` may so be called several times.
    pub(crate) fn with<T>(
        &self,
        mut work: impl FnMut(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut slot = lock(&self.connection);
        let mut taken: Option<Action> = None;
        loop {
            let done = match self.connected(&mut slot) {
                Ok(connection) => work(connection),
                Err(fault) => Err(fault),
            };
            let error = match done {
                Err(Fault::Tss(error)) => error,
                other => {
                    if slot.is_some() {
                        self.up();
                    }
                    return other;
                }
            };
            let action = match (taken, codes::classify(error)) {
                (_, Action::GiveUp(kind)) => Action::GiveUp(kind),
                (None, action) => action,
                (Some(Action::Reload), _) => Action::Reconnect,
                (Some(_), _) => {
                    *slot = None;
                    return Err(self.gone(error));
                }
            };
            tracing::debug!(backend = self.backend, ?action, %error, "work in the TPM failed");
            match action {
                Action::Reload => {
                    if let Some(connection) = slot.as_mut() {
                        connection.forget();
                    }
                }
                Action::Reconnect => *slot = None,
                Action::GiveUp(_) => return Err(codes::to_error(error).into()),
            }
            taken = Some(action);
        }
    }

    /// Does something with the connection, if there is one.
    pub(crate) fn if_connected(&self, work: impl FnOnce(&mut Connection)) {
        if let Some(connection) = lock(&self.connection).as_mut() {
            work(connection);
        }
    }

    /// The mark of the PIN that was right.
    pub(crate) fn opened_with(&self) -> MutexGuard<'_, Option<PinMark>> {
        lock(&self.opened_with)
    }

    /// Calls `sink` when the TPM goes away and when it is back.
    pub(crate) fn watch(&self, sink: EventSink) {
        lock(&self.sinks).push(sink);
    }

    /// Adds whose TPM it is about.
    pub(crate) fn about(&self, error: impl Into<Error>) -> Error {
        error.into().device(&self.backend)
    }

    fn connected<'a>(&self, slot: &'a mut Option<Connection>) -> Result<&'a mut Connection, Fault> {
        if slot.is_none() {
            *slot = Some(Connection::open(self.config.clone(), self.store.clone(), self.guarded.clone())?);
        }
        slot.as_mut().ok_or_else(|| Error::internal("there is no connection").into())
    }

    /// What is said when nothing helps.
    fn gone(&self, error: tss_esapi::Error) -> Fault {
        let mut gone = codes::to_error(error);
        if gone.kind() == ErrorKind::DeviceGone {
            gone = Error::new(ErrorKind::DeviceGone, format!("{} ({})", gone.what(), self.config.tcti))
                .vendor(gone.vendor_code().unwrap_or_default())
                .next(advice(&self.config.tcti));
        }
        if !self.down.swap(true, Ordering::Relaxed) {
            self.tell(&Event::Down(self.about(gone.clone())));
        }
        Fault::Answer(gone)
    }

    fn up(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            self.tell(&Event::Up);
        }
    }

    fn tell(&self, event: &Event) {
        let sinks = lock(&self.sinks).clone();
        for sink in sinks {
            sink(event.clone());
        }
    }
}

/// What the reader can do about a TPM that is not reached.
fn advice(tcti: &str) -> String {
    use rustix::fs::{Access, access};
    let Some(path) = tcti.strip_prefix("device:") else {
        return "signing resumes by itself when it is back".to_owned();
    };
    if access(path, Access::EXISTS).is_err() {
        return format!("there is no {path}: is there a TPM, and is it enabled in the firmware?");
    }
    if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        return format!("signerd's user may not use {path}: add it to the group tss");
    }
    format!("is another program using {path}? /dev/tpmrm0 can be used by several")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
