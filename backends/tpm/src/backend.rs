//! One TPM and one folder of key files as a backend.

use std::sync::Arc;

use signer_core::{
    Attest, Backend, BackendInfo, BoxFuture, Delete, Error, ErrorKind, EventSink, Generate, Import, KeyInfo,
    KeyName, KeyPage, KeySelector, ListRequest, PinPolicy, PinSource, Result, Signer, StoreCertificate,
    Unlock, UnlockRequest, Watch,
};

use crate::{
    capabilities, certificate,
    config::TpmConfig,
    connection::Connection,
    device::Device,
    fault::Fault,
    file_name,
    key::Key,
    key_file::KeyFile,
    login::{self, Attempt},
    material::{Material, handle_of},
    parent, signing,
    store::{self, Store},
};

/// Persistent handles, of the owner and of the platform.
const PERSISTENT: u32 = 0x8100_0000;
/// So many keys are tried until one is found that proves the TPM's health.
const HEALTH_TRIES: usize = 8;

/// A TPM 2.0 and the keys that are sealed by it.
///
/// Everything in it blocks: poll its futures on a thread that may. They are ready at the first poll unless a PIN is
/// waited for.
pub struct TpmBackend {
    pub(crate) device: Arc<Device>,
}

impl TpmBackend {
    /// Opens the state folder; `backend` is the configured name, for messages. The TPM may be absent: it is looked for
    /// when it is needed. `BadRequest` when the configuration cannot be used.
    pub fn new(config: TpmConfig, backend: impl Into<String>, pins: Arc<dyn PinSource>) -> Result<Self> {
        let backend = backend.into();
        let device = Device::new(config, backend.clone(), pins).map_err(|e| e.device(backend))?;
        Ok(Self { device: Arc::new(device) })
    }

    /// Finds one key.
    pub(crate) fn find(&self, selector: &KeySelector) -> Result<Material> {
        let label = match selector {
            KeySelector::Name(name) if name.version().is_none() => name.as_label(),
            _ => None,
        };
        let label = label.ok_or_else(not_found)?;
        if let Some(handle) = handle_of(label) {
            return self.persistent(handle);
        }
        read_file(&self.device.store, &store::stem(label))?.filter(|m| m.label == label).ok_or_else(not_found)
    }

    /// What is known of a key.
    pub(crate) fn info(&self, key: &Material) -> Result<KeyInfo> {
        let certificate = certificate::stored(&self.device.store, key);
        self.with(|c| {
            key.info(&c.capabilities, certificate.clone()).ok_or_else(|| {
                Error::unsupported(
                    "sign with this key: it is restricted, or of a kind that the TPM lacks",
                    "the TPM",
                )
                .into()
            })
        })
    }

    /// Every key that a file holds. Files that are none are left out.
    pub(crate) fn files(&self) -> Result<Vec<Material>> {
        let mut keys = Vec::new();
        for stem in self.device.store.stems()? {
            match read_file(&self.device.store, &stem) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(e) => {
                    let path = self.device.store.key_path(&stem);
                    tracing::warn!(path = %path.display(), error = %e, "a key file is left out");
                }
            }
        }
        Ok(keys)
    }

    /// Work in the TPM, with this backend's name in its errors.
    pub(crate) fn with<T>(&self, work: impl FnMut(&mut Connection) -> Result<T, Fault>) -> Result<T> {
        self.device.with(work).map_err(|e| self.device.about(e))
    }

    /// A key with a PIN that a PIN can be tried with.
    pub(crate) fn key_with_pin(&self) -> Result<Option<Material>> {
        Ok(self.files()?.into_iter().find(signing::can_try_pin))
    }

    fn describe_now(&self) -> Result<BackendInfo> {
        self.with(|c| {
            let known = &c.capabilities;
            Ok(BackendInfo {
                kind: "tpm".to_owned(),
                device: self.device.config.tcti.clone(),
                model: format!("{} {}", known.manufacturer, known.vendor).trim().to_owned(),
                firmware: format!(
                    "firmware {}, TPM 2.0 revision {}.{:02}",
                    known.firmware,
                    known.revision / 100,
                    known.revision % 100
                ),
                serial: String::new(),
                generates: known.key_types.clone(),
                imports: known.key_types.clone(),
                max_message: None,
            })
        })
    }

    fn list_now(&self, request: &ListRequest) -> Result<KeyPage> {
        let files = self.files()?;
        let mut keys = self.with(|c| {
            let mut keys = files.clone();
            keys.extend(self.all_persistent(c)?);
            let store = &self.device.store;
            Ok(keys
                .into_iter()
                .filter_map(|k| k.info(&c.capabilities, certificate::stored(store, &k)))
                .collect::<Vec<_>>())
        })?;
        keys.sort_by_cached_key(|k| k.name.to_string());
        Ok(KeyPage::cut(keys, request))
    }

    fn open_now(&self, selector: &KeySelector) -> Result<Key> {
        let material = self.find(selector)?;
        let info = self.info(&material)?;
        Ok(Key::new(self.device.clone(), info, material))
    }

    async fn health_now(&self) -> Result<()> {
        self.with(|c| {
            c.context.execute_without_session(|c| c.get_random(16))?;
            c.check_parent()
        })?;
        let needs_pin = self.device.opened_with().is_none();
        if needs_pin
            && let Some(key) =
                self.files()?.into_iter().find(|k| signing::can_try_pin(k) && k.pin == PinPolicy::Once)
        {
            return login::run(&self.device, &key, |c, attempt| signing::trial(c, &key, attempt)).await;
        }
        // Any key proves that the TPM can open what it sealed; a single file may be a stranger's.
        let mut last = Ok(());
        for stem in self.device.store.stems()?.into_iter().take(HEALTH_TRIES) {
            let Ok(Some(key)) = read_file(&self.device.store, &stem) else { continue };
            last = self.with(|c| c.prove(&key)).map_err(|e| e.key(&key.label));
            if last.is_ok() {
                return last;
            }
        }
        last
    }

    fn unlock_now(&self, request: &UnlockRequest) -> Result<()> {
        if let Some(known) = login::known(&self.device, &request.pin) {
            return known.map_err(|e| self.device.about(e));
        }
        let Some(key) = self.key_with_pin()? else { return Ok(()) };
        let attempt = Attempt::new(&request.pin, request.use_last_try);
        let result = self.with(|c| signing::trial(c, &key, Some(&attempt)));
        let _ = attempt.outcome(&self.device, &result);
        result
    }

    fn persistent(&self, handle: u32) -> Result<Material> {
        self.with(|c| {
            if capabilities::handles(&mut c.context, handle)?.first() != Some(&handle) {
                return Err(not_found().into());
            }
            self.read_persistent(c, handle)
        })
    }

    fn all_persistent(&self, connection: &mut Connection) -> Result<Vec<Material>, Fault> {
        let mut keys = Vec::new();
        for handle in capabilities::handles(&mut connection.context, PERSISTENT)? {
            if handle == self.device.config.parent.0 {
                continue;
            }
            match self.read_persistent(connection, handle) {
                Ok(key) => keys.push(key),
                Err(Fault::Answer(_)) => {} // a kind of key that is not known
                Err(other) => return Err(other),
            }
        }
        Ok(keys)
    }

    fn read_persistent(&self, connection: &mut Connection, handle: u32) -> Result<Material, Fault> {
        let (object, public) = parent::open(&mut connection.context, handle)?;
        connection.close_unless_loaded(object);
        let pin = self.device.config.handles_with_pin.iter().any(|h| h.0 == handle);
        Ok(Material::persistent(handle, public, pin)?)
    }
}

/// The key of a file; `None` if there is no such file.
pub(crate) fn read_file(store: &Store, stem: &str) -> Result<Option<Material>> {
    let Some((text, id)) = store.key(stem)? else { return Ok(None) };
    let key = KeyFile::from_text(&text)?;
    let label = match (file_name::decode(stem), &key.label) {
        (Some(label), _) => label,
        (None, Some(label)) if store::stem(label) == stem => label.clone(),
        _ => return Err(Error::bad_request("the file's name is not the label of a key")),
    };
    Material::of_file(label, stem.to_owned(), key, id).map(Some)
}

/// There is no such key.
pub(crate) fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key")
        .next("`signer keys list` shows the keys that there are")
}

/// A label for a new key.
pub(crate) fn new_label(name: &KeyName, id: Option<&[u8]>) -> Result<String> {
    if id.is_some() || name.as_id().is_some() {
        return Err(Error::unsupported("give keys identifiers", "a TPM").next("name the key by a label"));
    }
    if name.version().is_some() {
        return Err(Error::unsupported("make versions of keys", "the tpm backend"));
    }
    let label = name.as_label().unwrap_or_default();
    if label.starts_with("0x81") && label.len() == 10 {
        return Err(Error::bad_request(format!("{label} is the name of a persistent handle")).next(
            "use another name: keys are made in files, and persistent ones can be used, but not made",
        ));
    }
    Ok(label.to_owned())
}

impl Backend for TpmBackend {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        Box::pin(async move { self.describe_now() })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { self.list_now(&request) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            let key = self.open_now(key).map_err(|e| self.device.about(e).key(key))?;
            Ok(Arc::new(key) as Arc<dyn Signer>)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.health_now())
    }

    fn generate(&self) -> Option<&dyn Generate> {
        Some(self)
    }
    fn import(&self) -> Option<&dyn Import> {
        Some(self)
    }
    fn delete(&self) -> Option<&dyn Delete> {
        Some(self)
    }
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        Some(self)
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

impl Unlock for TpmBackend {
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.unlock_now(&request) })
    }

    /// Keys are open as long as they are loaded.
    fn lock(&self) -> BoxFuture<'_, Result<()>> {
        self.device.if_connected(Connection::forget);
        *self.device.opened_with() = None;
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Watch for TpmBackend {
    fn watch(&self, sink: EventSink) {
        self.device.watch(sink);
    }
}
