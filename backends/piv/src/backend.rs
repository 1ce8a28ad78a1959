//! One card as a backend.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use signer_core::{
    Address, Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, EventSink, Generate, Import,
    KeyInfo, KeyPage, KeySelector, ListRequest, PinPolicy, PinSource, Result, Signer, StoreCertificate,
    Unlock, UnlockRequest, Watch,
};

use crate::{
    config::PivConfig,
    device::Device,
    inventory,
    key::Key,
    login::{self, PinUse},
    padding::MAX_MESSAGE,
    pins::Pins,
    slot::Slot,
    watch,
};

/// For so long, further pages of a list are cut from what was read for the first one.
const LIST_LIFE: Duration = Duration::from_secs(10);

/// A PIV card.
///
/// Everything in it blocks: poll its futures on a thread that may.
pub struct PivBackend {
    pub(crate) device: Device,
    pub(crate) pins: Arc<Pins>,
    pub(crate) management_key_file: Option<PathBuf>,
    read_only: bool,
    listed: Mutex<Option<(Instant, Vec<KeyInfo>)>>,
}

impl PivBackend {
    /// Starts to serve a card; `backend` is the configured name, for messages. The card may be absent: it is looked for
    /// when it is needed. `BadRequest` when the configuration cannot be used.
    pub fn new(config: &PivConfig, backend: &str, pins: Arc<dyn PinSource>) -> Result<Self> {
        Ok(Self {
            device: Device::start(backend, config.wanted()?)?,
            pins: Arc::new(Pins { source: pins, allow_default: config.allow_defaults }),
            management_key_file: config.management_key_file.clone(),
            read_only: config.read_only,
            listed: Mutex::default(),
        })
    }

    /// The slot that a selector means; `NotFound` when it means none of this card.
    pub(crate) fn slot_of(&self, selector: &KeySelector) -> Result<Slot> {
        match selector {
            KeySelector::Name(name) => Slot::of_a_key(name),
            KeySelector::Address(Address::Piv(address)) => {
                let serial = self.device.run(None, |applet| Ok(applet.identity.serial()))?;
                if serial == Some(address.serial()) {
                    return Ok(Slot::of_address(*address));
                }
                Err(Error::new(ErrorKind::NotFound, "the address names another card"))
            }
            KeySelector::Address(_) => {
                Err(Error::new(ErrorKind::NotFound, "the address does not point into a PIV card"))
            }
        }
    }

    fn describe_now(&self) -> Result<BackendInfo> {
        let read_only = self.read_only;
        self.device.run(None, move |applet| {
            let card = applet.identity;
            let types = |of: fn(crate::firmware::Firmware) -> Vec<_>| {
                card.firmware.filter(|_| !read_only).map(of).unwrap_or_default()
            };
            Ok(BackendInfo {
                kind: "piv".to_owned(),
                device: card.to_string(),
                model: format!("{} in {}", card.model(), card.reader),
                firmware: card.firmware.map(|f| f.to_string()).unwrap_or_default(),
                serial: card.number.to_string(),
                generates: types(crate::firmware::Firmware::generated_types),
                imports: types(crate::firmware::Firmware::key_types),
                max_message: Some(MAX_MESSAGE as u64),
            })
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
            None => self.read_all()?,
        };
        let page = KeyPage::cut(keys.clone(), request);
        *self.listed() = page.next.is_some().then(|| (Instant::now(), keys));
        Ok(page)
    }

    fn read_all(&self) -> Result<Vec<KeyInfo>> {
        self.device.run(None, |applet| inventory::all(applet))
    }

    fn open_now(&self, selector: &KeySelector) -> Result<Key> {
        let slot = self.slot_of(selector)?;
        let info = self.device.run(None, move |applet| {
            let key = inventory::key(applet, slot)?;
            inventory::info(applet, slot, key)
        })?;
        Ok(Key::new(self.device.clone(), self.pins.clone(), slot, info))
    }

    /// The card answers, and the PIN opens it. A PIN that it took before is not tried again for this.
    async fn health_now(&self) -> Result<()> {
        self.device.run(None, |_| Ok(()))?;
        if self.device.pin_was_accepted() {
            return Ok(());
        }
        match self.pins.lease(&self.device, None).await {
            Ok(mut pin) => self.device.run(None, move |applet| login::verify(applet, &mut pin)),
            // Keys that never want it are served all the same.
            Err(error) if self.needs_no_pin()? => {
                tracing::debug!("the card has no PIN, and no key that wants one: {error}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn needs_no_pin(&self) -> Result<bool> {
        let keys = self.read_all()?;
        Ok(!keys.is_empty() && keys.iter().all(|key| key.policy.pin == Some(PinPolicy::Never)))
    }

    fn unlock_now(&self, request: UnlockRequest) -> Result<()> {
        let mut pin = PinUse::given(request.pin, request.use_last_try, self.pins.allow_default);
        self.device.run(None, move |applet| login::verify(applet, &mut pin))
    }

    pub(crate) fn listed(&self) -> MutexGuard<'_, Option<(Instant, Vec<KeyInfo>)>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for PivBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move { self.describe_now() })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.list_now(&request) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            let opened = self.open_now(key).map_err(|e| self.device.about(e.key(key)))?;
            Ok(Arc::new(opened) as Arc<dyn Signer>)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.health_now().await.map_err(|e| self.device.about(e)) })
    }

    fn generate(&self) -> Option<&dyn Generate> {
        (!self.read_only).then_some(self as _)
    }
    fn import(&self) -> Option<&dyn Import> {
        (!self.read_only).then_some(self as _)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        (!self.read_only).then_some(self as _)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        (!self.read_only).then_some(self as _)
    }
    fn attest(&self) -> Option<&dyn Attest> {
        Some(self)
    }
    fn unlock(&self) -> Option<&dyn Unlock> {
        Some(self)
    }
    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

impl Unlock for PivBackend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.unlock_now(request) })
    }

    /// The card itself is locked after each piece of work.
    fn lock(&self) -> BoxFuture<'_, Result<()>> {
        self.device.lock();
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Watch for PivBackend {
    fn watch(&self, sink: EventSink) {
        self.device.add_sink(sink);
        if let Err(error) = watch::start(&self.device) {
            tracing::warn!("cards that come and go are not noticed: {error}");
        }
    }
}
