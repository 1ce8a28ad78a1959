//! A connection to the TPM: which keys are loaded in it, and the sessions that they are used with.
//!
//! A TPM holds three loaded keys and three sessions, and the kernel's resource manager gives each process no more than
//! that. So keys are loaded when they are needed and the longest unused one goes; whatever else is opened for a piece of
//! work is flushed at its end.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use signer_core::{Error, ErrorKind, PcrSelection, Pin};
use tss_esapi::{
    Context,
    attributes::SessionAttributesBuilder,
    constants::{SessionType, StartupType},
    handles::{KeyHandle, ObjectHandle, SessionHandle, TpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{Auth, Digest, DigestList, Nonce, SymmetricDefinition},
};

use crate::{
    approvals,
    capabilities::{self, Capabilities},
    codes,
    config::TpmConfig,
    fault::Fault,
    material::{Material, Place},
    parent::{self, Parent},
    policy::{self, Pcrs, Sha256},
    public_area,
    store::Store,
};

/// A PIN is a key's authorisation, which is no longer than the digests of its Name (SHA-256).
const LONGEST_PIN: usize = 32;
/// TPM_RH_OWNER as a parent: the storage root key, made anew whenever it is needed.
const OWNER: u32 = 0x4000_0001;
/// Where handles of loaded sessions and of loaded keys begin.
const SESSIONS: u32 = 0x0200_0000;
const TRANSIENT: u32 = 0x8000_0000;

/// A connection.
pub(crate) struct Connection {
    pub(crate) context: Context,
    pub(crate) capabilities: Capabilities,
    /// The TPM's own PSS has the longest salt that fits.
    pub(crate) longest_salt: bool,
    config: Arc<TpmConfig>,
    store: Arc<Store>,
    parent: Option<Parent>,
    loaded: Vec<Loaded>,
    clock: u64,
    encryption: Option<AuthSession>,
    /// Names of keys that were taken to have no PIN, and have one.
    guarded: Guarded,
}

/// Names of keys that were taken to have no PIN, and have one. It outlives the connection: they are not tried again.
pub(crate) type Guarded = Arc<Mutex<HashSet<Vec<u8>>>>;

struct Loaded {
    name: Vec<u8>,
    handle: KeyHandle,
    /// It is not ours to flush.
    persistent: bool,
    /// Its PIN was set, and was right.
    open: bool,
    used: u64,
}

impl Connection {
    /// Connects, starts the TPM if nobody did, and clears up behind a process that died.
    pub(crate) fn open(config: Arc<TpmConfig>, store: Arc<Store>, guarded: Guarded) -> Result<Self, Fault> {
        let mut context = Context::new(config.tcti()?)?;
        if config.is_bare() {
            if let Err(Fault::Tss(e)) = capabilities::read(&mut context, capabilities::property::PERMANENT)
                && codes::is(e, &[codes::INITIALIZE])
            {
                context.startup(StartupType::Clear)?;
            }
            clear_up(&mut context)?;
        }
        let capabilities = Capabilities::read(&mut context)?;
        Ok(Self {
            context,
            capabilities,
            longest_salt: false,
            config,
            store,
            parent: None,
            loaded: Vec::new(),
            clock: 0,
            encryption: None,
            guarded,
        })
    }

    /// The storage parent; made if `make` says so. Whoever makes it holds the lock of the state folder.
    pub(crate) fn parent(&mut self, make: bool) -> Result<Parent, Fault> {
        if let Some(parent) = &self.parent {
            return Ok(parent.clone());
        }
        let handle = self.config.parent.0;
        let parent = match parent::find(&mut self.context, handle)? {
            Some(parent) => parent,
            None if make => {
                let config = self.config.clone();
                while self.evict_one(None) {}
                parent::make(&mut self.context, &config)?
            }
            None => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("the TPM has no storage parent at {handle:#x}"),
                )
                .next("keys that were sealed under it are lost if the TPM was cleared; a new key makes a new one")
                .into());
            }
        };
        self.parent = Some(parent.clone());
        Ok(parent)
    }

    /// Looks whether the storage parent is still what it was; nothing if there was none yet.
    pub(crate) fn check_parent(&mut self) -> Result<(), Fault> {
        if let Some(parent) = parent::find(&mut self.context, self.config.parent.0)? {
            self.close_unless_loaded(parent.handle);
        }
        Ok(())
    }

    /// The session that carries a plain authorisation: a password, or an HMAC session that encrypts.
    pub(crate) fn session(&mut self) -> Result<AuthSession, Fault> {
        if !self.config.parameter_encryption {
            return Ok(AuthSession::Password);
        }
        if let Some(session) = self.encryption {
            return Ok(session);
        }
        // Salted with the parent, so that whoever listens on the bus cannot know the session's key.
        let parent = self.parent(false)?;
        let session = self
            .context
            .execute_without_session(|c| {
                c.start_auth_session(
                    Some(parent.handle),
                    None,
                    None,
                    SessionType::Hmac,
                    SymmetricDefinition::AES_128_CFB,
                    HashingAlgorithm::Sha256,
                )
            })?
            .ok_or_else(|| Error::internal("the TPM gave no session"))?;
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(true)
            .with_decrypt(true)
            .with_encrypt(true)
            .build();
        self.context.tr_sess_set_attributes(session, attributes, mask)?;
        self.encryption = Some(session);
        Ok(session)
    }

    /// Loads a key, unless it is loaded.
    pub(crate) fn load(&mut self, key: &Material) -> Result<KeyHandle, Fault> {
        self.clock += 1;
        let clock = self.clock;
        if let Some(loaded) = self.find(key) {
            loaded.used = clock;
            return Ok(loaded.handle);
        }
        let (handle, persistent) = match &key.place {
            Place::Persistent(handle) => (self.open_persistent(*handle, key)?, true),
            Place::File { parent, private, .. } => {
                // One slot stays free for what is loaded in passing.
                let most = self.capabilities.slots.clamp(2, 3) - 1;
                while self.loaded.iter().filter(|l| !l.persistent).count() >= most && self.evict_one(None) {}
                let (parent, in_passing) = self.parent_of(*parent)?;
                let (private, public) = (private.clone(), key.public.clone());
                let loaded = self.with_room(None, |c| {
                    c.execute_with_session(Some(AuthSession::Password), |c| {
                        c.load(parent, private.clone(), public.clone())
                    })
                });
                if in_passing {
                    let _ = self.context.flush_context(parent.into());
                }
                (loaded?, false)
            }
        };
        self.loaded.push(Loaded { name: key.name.clone(), handle, persistent, open: false, used: clock });
        Ok(handle)
    }

    /// Proves that the key is in the TPM, or that the TPM takes it in.
    pub(crate) fn prove(&mut self, key: &Material) -> Result<(), Fault> {
        let handle = self.load(key)?;
        let (public, _, _) = self.context.execute_without_session(|c| c.read_public(handle))?;
        if public_area::name(&public)? != key.name {
            return Err(another_key().into());
        }
        Ok(())
    }

    /// Closes a persistent key's handle, unless the key is in use.
    pub(crate) fn close_unless_loaded(&mut self, handle: KeyHandle) {
        let shared = self.loaded.iter().any(|l| l.handle == handle)
            || self.parent.as_ref().is_some_and(|p| p.handle == handle);
        if !shared {
            let _ = self.context.tr_close(&mut handle.into());
        }
    }

    /// Takes a key out of the TPM, and its PIN out of the memory.
    pub(crate) fn evict(&mut self, key: &Material) {
        if let Some(at) = self.loaded.iter().position(|l| l.name == key.name) {
            let loaded = self.loaded.swap_remove(at);
            self.flush(&loaded);
        }
    }

    /// Forgets all that was opened: it is loaded again when it is needed.
    pub(crate) fn forget(&mut self) {
        for loaded in std::mem::take(&mut self.loaded) {
            self.flush(&loaded);
        }
        if let Some(session) = self.encryption.take() {
            let _ = self.context.flush_context(SessionHandle::from(session).into());
        }
        if let Some(parent) = self.parent.take() {
            let _ = self.context.tr_close(&mut parent.handle.into());
        }
        self.context.clear_sessions();
    }

    /// Whether the key's PIN was given, and was right.
    pub(crate) fn is_open(&mut self, key: &Material) -> bool {
        self.find(key).is_some_and(|l| l.open)
    }

    /// Notes that the PIN that was set was right.
    pub(crate) fn opened(&mut self, key: &Material) {
        if let Some(loaded) = self.find(key) {
            loaded.open = true;
        }
    }

    /// Gives the key's PIN for what is done next with it.
    pub(crate) fn set_pin(&mut self, handle: KeyHandle, pin: &Pin) -> Result<(), Fault> {
        Ok(self.context.tr_set_auth(handle.into(), auth_of(pin)?)?)
    }

    /// Takes the PIN away again.
    pub(crate) fn evict_pin(&mut self, handle: KeyHandle) {
        let _ = self.context.tr_set_auth(handle.into(), Auth::default());
    }

    /// Keys that were taken to have no PIN, and have one.
    pub(crate) fn guarded(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing with a loaded key, under the authorisation that it wants.
    pub(crate) fn authorised<T>(
        &mut self,
        key: &Material,
        operation: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        let encrypting = self.session()?;
        let Some(policy) = &key.policy else {
            return Ok(self.context.execute_with_session(Some(encrypting), operation)?);
        };
        let session = self
            .context
            .execute_without_session(|c| {
                c.start_auth_session(
                    None,
                    None,
                    None,
                    SessionType::Policy,
                    SymmetricDefinition::AES_128_CFB,
                    HashingAlgorithm::Sha256,
                )
            })?
            .ok_or_else(|| Error::internal("the TPM gave no session"))?;
        let pin = policy.pin;
        let done = self.fulfil(key, session, pin).and_then(|()| {
            let second = matches!(encrypting, AuthSession::HmacSession(_)).then_some(encrypting);
            Ok(self.context.execute_with_sessions((Some(session), second, None), operation)?)
        });
        let _ = self.context.flush_context(SessionHandle::from(session).into());
        done
    }

    /// The hash of the registers' values, one after the other (SHA-256 bank).
    pub(crate) fn pcr_values(&mut self, selection: PcrSelection) -> Result<Sha256, Fault> {
        let mut values = Vec::new();
        let mut left = policy::tss_selection(selection)?;
        while !left.is_empty() {
            let (_, read, digests) = self.context.execute_without_session(|c| c.pcr_read(left.clone()))?;
            if digests.is_empty() {
                return Err(Error::unsupported("read these PCRs in the SHA-256 bank", "the TPM").into());
            }
            for digest in digests.value() {
                values.extend(digest.value());
            }
            left.subtract(&read)?;
        }
        Ok(policy::sha256(&values))
    }

    /// Does something that needs a slot for a key, and makes room for it; `keep` stays loaded.
    pub(crate) fn with_room<T>(
        &mut self,
        keep: Option<&Material>,
        mut operation: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        loop {
            match operation(&mut self.context) {
                Err(e) if codes::is(e, &[codes::OBJECT_MEMORY, codes::OBJECT_MEMORY + 4]) => {
                    if !self.evict_one(keep) {
                        return Err(e.into());
                    }
                }
                done => return Ok(done?),
            }
        }
    }

    fn fulfil(&mut self, key: &Material, session: AuthSession, pin: bool) -> Result<(), Fault> {
        let session = PolicySession::try_from(session)?;
        if let Some(pcrs) = key.policy.as_ref().and_then(|p| p.pcrs()) {
            self.fulfil_pcrs(key, pcrs, session)?;
        }
        if pin {
            self.context.policy_auth_value(session)?;
        }
        Ok(())
    }

    fn fulfil_pcrs(&mut self, key: &Material, pcrs: &Pcrs, session: PolicySession) -> Result<(), Fault> {
        let values = self.pcr_values(pcrs.selection)?;
        let now = policy::pcr_digest(pcrs.selection, &values);
        let folder = self.store.approvals(&key.stem);
        let approval = match &pcrs.authority {
            _ if values == pcrs.values => None,
            Some(authority) => match approvals::find(&folder, &now, authority) {
                Some(signature) => Some((authority, signature)),
                None => {
                    return Err(changed(pcrs)
                        .next(format!(
                            "if that is right, let its authority sign the policy {} and put the approval into {}",
                            hex::encode(now),
                            folder.display()
                        ))
                        .into());
                }
            },
            None => {
                return Err(changed(pcrs)
                    .next("boot what it was made with; a key with a PCR authority can be approved for other values")
                    .into());
            }
        };
        let selection = policy::tss_selection(pcrs.selection)?;
        self.context.policy_pcr(session, Digest::try_from(&values[..])?, selection)?;
        if let Some((authority, signature)) = approval {
            let public = public_area::external(authority)?;
            let verifier = self.with_room(Some(key), |c| {
                c.execute_without_session(|c| c.load_external_public(public.clone(), Hierarchy::Owner))
            })?;
            let signed = Digest::try_from(&policy::sha256(&now)[..])?;
            let checked = self.context.tr_get_name(verifier.into()).and_then(|name| {
                let ticket = self
                    .context
                    .execute_without_session(|c| c.verify_signature(verifier, signed, signature))?;
                Ok((name, ticket))
            });
            let _ = self.context.flush_context(verifier.into());
            let (name, ticket) = checked?;
            self.context.policy_authorize(
                session,
                Digest::try_from(&now[..])?,
                Nonce::default(),
                &name,
                ticket,
            )?;
        }
        if let Some(branches) = pcrs.branches()? {
            let mut list = DigestList::new();
            for branch in branches {
                list.add(Digest::try_from(&branch[..])?)?;
            }
            self.context.policy_or(session, list)?;
        }
        Ok(())
    }

    /// The parent that a key file names; true if it must be flushed.
    fn parent_of(&mut self, handle: u32) -> Result<(KeyHandle, bool), Fault> {
        if handle == self.config.parent.0 {
            return Ok((self.parent(false)?.handle, false));
        }
        if handle == OWNER {
            let config = self.config.clone();
            while self.evict_one(None) {}
            return Ok((parent::primary(&mut self.context, &config)?, true));
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("the key is sealed under {handle:#x}, which is another parent"),
        )
        .next(format!("this backend's parent is {:#x}", self.config.parent.0))
        .into())
    }

    fn open_persistent(&mut self, handle: u32, key: &Material) -> Result<KeyHandle, Fault> {
        if capabilities::handles(&mut self.context, handle)?.first() != Some(&handle) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the TPM has no key at {handle:#x} any more"),
            )
            .into());
        }
        let (object, public) = parent::open(&mut self.context, handle)?;
        if public_area::name(&public)? != key.name {
            let _ = self.context.tr_close(&mut object.into());
            return Err(another_key().into());
        }
        Ok(object)
    }

    fn find(&mut self, key: &Material) -> Option<&mut Loaded> {
        self.loaded.iter_mut().find(|l| l.name == key.name)
    }

    /// Flushes the key that was not used for longest. False if there is none.
    fn evict_one(&mut self, keep: Option<&Material>) -> bool {
        let oldest = (0..self.loaded.len())
            .filter(|at| !self.loaded[*at].persistent && keep.is_none_or(|k| k.name != self.loaded[*at].name))
            .min_by_key(|at| self.loaded[*at].used);
        let Some(at) = oldest else { return false };
        let loaded = self.loaded.swap_remove(at);
        self.flush(&loaded);
        true
    }

    fn flush(&mut self, loaded: &Loaded) {
        // The TSS keeps a PIN with its handle; an empty one takes its place before the handle goes.
        let mut object = ObjectHandle::from(loaded.handle);
        let _ = self.context.tr_set_auth(object, Auth::default());
        let _ = if loaded.persistent {
            self.context.tr_close(&mut object)
        } else {
            self.context.flush_context(object)
        };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A PIN as a key's authorisation.
pub(crate) fn auth_of(pin: &Pin) -> Result<Auth, Error> {
    let bytes = pin.expose().as_bytes();
    if bytes.len() > LONGEST_PIN {
        return Err(Error::bad_request(format!("a PIN for a TPM's key has at most {LONGEST_PIN} bytes")));
    }
    Auth::try_from(bytes).map_err(|e| Error::internal("the PIN cannot be given to the TPM").vendor(e))
}

/// Flushes what a process left behind that died. Without a resource manager it would stay until the TPM is reset, and
/// nobody else can be using it: a bare TPM serves one process at a time.
fn clear_up(context: &mut Context) -> Result<(), Fault> {
    for first in [TRANSIENT, SESSIONS] {
        for handle in capabilities::handles(context, first)? {
            let object = TpmHandle::try_from(handle).and_then(|h| context.tr_from_tpm_public(h));
            match object.and_then(|o| context.flush_context(o)) {
                // The crate wonders about flushed policy sessions: they are gone all the same.
                Ok(()) | Err(tss_esapi::Error::WrapperError(_)) => {}
                Err(e) => {
                    let error = codes::to_error(e);
                    tracing::warn!(handle = format!("{handle:#x}"), %error, "what was left behind cannot be flushed");
                }
            }
        }
    }
    Ok(())
}

fn changed(pcrs: &Pcrs) -> Error {
    let what = if pcrs.authority.is_some() {
        "have other values than when the key was made, and no approval of these is there"
    } else {
        "have other values than when the key was made"
    };
    Error::new(ErrorKind::Denied, format!("the PCRs {} {what}", pcrs.selection))
}

fn another_key() -> Error {
    Error::new(ErrorKind::NotFound, "another key has taken the place of this one in the TPM")
        .next("open it again to use the new one")
}
