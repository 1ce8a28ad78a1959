//! One token as a backend.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cryptoki_sys as sys;
use signer_core::{
    Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, EventSink, Generate, Import, KeyInfo, KeyPage,
    KeySelector, ListRequest, PinSource, Result, Signer, StoreCertificate, Unlock, UnlockRequest, Watch,
};

use crate::{
    config::Pkcs11Config,
    fault::Fault,
    generate, inventory,
    key::Key,
    raw::Template,
    select,
    token::{Need, Token},
    token_info::{text, version},
};

/// For so long, further pages of a list are cut from what was read for the first one.
const LIST_LIFE: Duration = Duration::from_secs(10);

/// A token behind a PKCS#11 module.
///
/// Everything in it blocks: poll its futures on a thread that may. They are ready at the first poll unless a PIN is
/// waited for.
pub struct Pkcs11Backend {
    pub(crate) token: Arc<Token>,
    /// Held by whoever changes something, so that two do not take the same name.
    changing: Mutex<()>,
    listed: Mutex<Option<(Instant, Vec<KeyInfo>)>>,
}

impl Pkcs11Backend {
    /// Loads the module; `backend` is the configured name, for messages. The token may be absent: it is looked for when
    /// it is needed. `BadRequest` when the configuration cannot be used.
    ///
    /// A module can be used once in a process, so there must be no other backend with the same one.
    pub fn new(config: &Pkcs11Config, backend: impl Into<String>, pins: Arc<dyn PinSource>) -> Result<Self> {
        let backend = backend.into();
        let token = Token::new(config, backend.clone(), pins).map_err(|e| e.device(backend))?;
        Ok(Self { token: Arc::new(token), changing: Mutex::default(), listed: Mutex::default() })
    }

    /// Says what to do when nothing but another process can bring the token back: end this one. It is called on a
    /// thread that serves a request, at most every 30 seconds, and should let that request be answered first.
    #[must_use]
    pub fn last_resort(mut self, end: impl Fn() + Send + Sync + 'static) -> Self {
        if let Some(token) = Arc::get_mut(&mut self.token) {
            token.last_resort = Some(Arc::new(end));
        }
        self
    }

    /// Makes sure that this is the only change that is under way here.
    pub(crate) fn changes(&self) -> MutexGuard<'_, ()> {
        let alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        *self.listed() = None;
        alone
    }

    fn describe_now(&self) -> Result<BackendInfo> {
        self.token.with(Need::Token, |inside| {
            let info = self.token.info(inside.live.info.slot)?;
            let library = self.token.module.info()?;
            let mut described = BackendInfo {
                kind: "pkcs11".to_owned(),
                device: info.label,
                model: format!("{} {}", info.manufacturer, info.model),
                firmware: format!(
                    "firmware {}, library {} {}",
                    info.firmware,
                    text(&library.libraryDescription),
                    version(library.libraryVersion)
                ),
                serial: info.serial,
                ..BackendInfo::default()
            };
            generate::abilities(inside, &mut described);
            Ok(described)
        })
    }

    fn list_now(&self, request: &ListRequest) -> Result<KeyPage> {
        let known = match &*self.listed() {
            Some((when, keys)) if request.page_token.is_some() && when.elapsed() < LIST_LIFE => {
                Some(keys.clone())
            }
            _ => None,
        };
        let keys = match known {
            Some(keys) => keys,
            None => self.token.with(Need::Login, |inside| {
                let keys = inventory::all(inside)?;
                if keys.is_empty() {
                    // Whether it is the token that is missing.
                    let gone = Error::new(ErrorKind::NotFound, "the token shows no keys");
                    if let Fault::Absent(error) = select::missing(inside, gone)? {
                        return Err(Fault::Absent(error));
                    }
                }
                Ok(keys)
            })?,
        };
        let page = KeyPage::cut(keys.clone(), request);
        *self.listed() = page.next.is_some().then(|| (Instant::now(), keys));
        Ok(page)
    }

    fn open_now(&self, selector: &KeySelector) -> Result<Key> {
        self.token
            .with(Need::Login, |inside| {
                let object = select::signing(inside, selector)?;
                let info = inventory::one(inside, &object)?;
                Ok(Key::new(self.token.clone(), info, inside.live.epoch, object))
            })
            .map_err(|e| e.key(selector))
    }

    fn health_now(&self) -> Result<()> {
        self.token.with(Need::Login, |inside| {
            self.token.info(inside.live.info.slot)?;
            let keys = Template::of(sys::CKO_PRIVATE_KEY);
            if self.token.module.find(inside.session, &keys, 1)?.is_empty() {
                let gone = Error::new(
                    ErrorKind::DeviceGone,
                    "the keys that were in the token are not there any more",
                );
                if let Fault::Absent(error) = select::missing(inside, gone)? {
                    return Err(Fault::Absent(error));
                }
            }
            Ok(())
        })
    }

    fn listed(&self) -> MutexGuard<'_, Option<(Instant, Vec<KeyInfo>)>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Pkcs11Backend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move { self.describe_now() })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.list_now(&request) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move { Ok(Arc::new(self.open_now(key)?) as Arc<dyn Signer>) })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.health_now() })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        (!self.token.read_only).then_some(self as _)
    }
    fn import(&self) -> Option<&dyn Import> {
        (!self.token.read_only).then_some(self as _)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        (!self.token.read_only).then_some(self as _)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        (!self.token.read_only).then_some(self as _)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        Some(self)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

impl Unlock for Pkcs11Backend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.token.unlock(&request.pin, request.use_last_try) })
    }

    fn lock(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.token.lock();
            Ok(())
        })
    }
}

impl Watch for Pkcs11Backend {
    fn watch(&self, sink: EventSink) {
        self.token.watch(sink);
    }
}
