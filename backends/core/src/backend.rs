//! One configured place for keys, and what it may be able to do.

use std::{sync::Arc, time::Duration};

use crate::{
    BoxFuture, Error, Evidence, KeyInfo, KeyName, KeyPolicy, KeySelector, KeyType, Pin, PrivateKey, Result,
    Signer, TouchPrompt,
};

/// One configured place for keys: a folder of key files, a token, a card, a TPM, a cloud service.
///
/// The required methods are what every place can do. The others say which abilities it has: they return the ability,
/// or `None`, which callers turn into an `Unsupported` error with [`Ability::require`].
pub trait Backend: Send + Sync {
    /// What it is. Fails with `DeviceGone` when the device isn't there to ask.
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>>;

    /// Lists keys, a page at a time, in an order that stays the same while nothing changes.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>>;

    /// Finds one key. `NotFound` if there is none, `BadRequest` if the selector fits several.
    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>>;

    /// Proves that the device works: talks to it, logged in where keys need that.
    fn health(&self) -> BoxFuture<'_, Result<()>>;

    /// Makes keys inside the device.
    fn generate(&self) -> Option<&dyn Generate> {
        None
    }
    /// Takes keys in.
    fn import(&self) -> Option<&dyn Import> {
        None
    }
    /// Destroys keys.
    fn delete(&self) -> Option<&dyn Delete> {
        None
    }
    /// Makes a new version of a key.
    fn rotate(&self) -> Option<&dyn Rotate> {
        None
    }
    /// Keeps a certificate beside its key.
    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        None
    }
    /// Proves where its keys are.
    fn attest(&self) -> Option<&dyn Attest> {
        None
    }
    /// Takes a PIN.
    fn unlock(&self) -> Option<&dyn Unlock> {
        None
    }
    /// Tells when something happens to it.
    fn watch(&self) -> Option<&dyn Watch> {
        None
    }

    /// The abilities that it has.
    fn abilities(&self) -> Vec<Ability> {
        let has = |ability| match ability {
            Ability::Generate => self.generate().is_some(),
            Ability::Import => self.import().is_some(),
            Ability::Delete => self.delete().is_some(),
            Ability::Rotate => self.rotate().is_some(),
            Ability::StoreCertificate => self.store_certificate().is_some(),
            Ability::Attest => self.attest().is_some(),
            Ability::Unlock => self.unlock().is_some(),
            Ability::Watch => self.watch().is_some(),
        };
        Ability::ALL.into_iter().filter(|a| has(*a)).collect()
    }
}

/// What a backend may be able to do beyond listing and signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ability {
    /// [`Generate`]
    Generate,
    /// [`Import`]
    Import,
    /// [`Delete`]
    Delete,
    /// [`Rotate`]
    Rotate,
    /// [`StoreCertificate`]
    StoreCertificate,
    /// [`Attest`]
    Attest,
    /// [`Unlock`]
    Unlock,
    /// [`Watch`]
    Watch,
}

impl Ability {
    /// Every ability.
    pub const ALL: [Self; 8] = [
        Self::Generate,
        Self::Import,
        Self::Delete,
        Self::Rotate,
        Self::StoreCertificate,
        Self::Attest,
        Self::Unlock,
        Self::Watch,
    ];

    /// The name that travels and is shown: `generate`, `store-certificate`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Import => "import",
            Self::Delete => "delete",
            Self::Rotate => "rotate",
            Self::StoreCertificate => "store-certificate",
            Self::Attest => "attest",
            Self::Unlock => "unlock",
            Self::Watch => "watch",
        }
    }

    /// The ability of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Turns a missing ability into an error: `Ability::Generate.require(backend.generate(), "hsm")?`.
    pub fn require<T>(self, ability: Option<T>, backend: &str) -> Result<T> {
        ability.ok_or_else(|| {
            let verb = match self {
                Self::Generate => "generate keys",
                Self::Import => "import keys",
                Self::Delete => "delete keys",
                Self::Rotate => "rotate keys",
                Self::StoreCertificate => "store certificates",
                Self::Attest => "attest keys",
                Self::Unlock => "be unlocked with a PIN",
                Self::Watch => "be watched",
            };
            Error::unsupported(verb, format_args!("backend {backend}")).device(backend)
        })
    }
}

/// What a backend says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// The kind as configured: `software`, `pkcs11`, …
    pub kind: String,
    /// The device or service as its owner knows it: a token's label, a folder, a URL.
    pub device: String,
    /// Maker, model and so on as the device says them, for people.
    pub model: String,
    /// Firmware or library version, for people.
    pub firmware: String,
    /// Serial number, where there is one.
    pub serial: String,
    /// Kinds of keys that it can generate.
    pub generates: Vec<KeyType>,
    /// Kinds of keys that it can import.
    pub imports: Vec<KeyType>,
    /// Bytes of the longest message that it signs where the message itself is signed; `None` for no limit of its own.
    pub max_message: Option<u64>,
}

/// Which page of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// At most so many keys; 0 leaves it to the backend.
    pub page_size: usize,
    /// Where to go on: [`KeyPage::next`] of the page before.
    pub page_token: Option<String>,
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyInfo>,
    /// How to ask for the next page; `None` when this was the last.
    pub next: Option<String>,
}

impl KeyPage {
    /// Cuts one page out of all keys of a backend; page tokens are the name of the last key given, so a key that is
    /// added or deleted between two pages neither repeats nor hides another. Sorts by name.
    pub fn cut(mut keys: Vec<KeyInfo>, request: &ListRequest) -> Self {
        keys.sort_by_cached_key(|k| k.name.to_string());
        if let Some(after) = &request.page_token {
            let start = keys.partition_point(|k| k.name.to_string() <= *after);
            keys.drain(..start);
        }
        let size = if request.page_size == 0 { 1000 } else { request.page_size };
        let next = (keys.len() > size).then(|| keys[size - 1].name.to_string());
        keys.truncate(size);
        Self { keys, next }
    }
}

/// Makes keys inside the device.
pub trait Generate: Send + Sync {
    /// Makes a key and returns what is known of it. `AlreadyExists` if the name is taken.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>>;
}

/// What key to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateRequest {
    /// Its name. It has no version: backends with versions begin with their first.
    pub name: KeyName,
    /// Its kind.
    pub key_type: KeyType,
    /// The device's identifier for it (`CKA_ID`), where the caller wants a certain one.
    pub id: Option<Vec<u8>>,
    /// What the device shall demand before it signs. `Unsupported` where the device cannot.
    pub policy: KeyPolicy,
}

impl GenerateRequest {
    /// A request without wishes beyond name and kind.
    pub fn new(name: KeyName, key_type: KeyType) -> Self {
        Self { name, key_type, id: None, policy: KeyPolicy::default() }
    }
}

/// Takes keys in.
pub trait Import: Send + Sync {
    /// Stores a key and returns what is known of it. `AlreadyExists` if the name is taken.
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>>;
}

/// What key to store.
#[derive(Debug)]
pub struct ImportRequest {
    /// Its name, without a version.
    pub name: KeyName,
    /// The key.
    pub key: PrivateKey,
    /// The device's identifier for it, where the caller wants a certain one.
    pub id: Option<Vec<u8>>,
    /// What the device shall demand before it signs. `Unsupported` where the device cannot.
    pub policy: KeyPolicy,
}

impl ImportRequest {
    /// A request without wishes beyond the name.
    pub fn new(name: KeyName, key: PrivateKey) -> Self {
        Self { name, key, id: None, policy: KeyPolicy::default() }
    }
}

/// Destroys keys.
pub trait Delete: Send + Sync {
    /// Destroys a key, with the public key and certificate beside it. A name without a version means all versions.
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>>;
}

/// Makes a new version of a key.
pub trait Rotate: Send + Sync {
    /// Makes a new key of the same kind under the same name. Earlier versions go on signing when asked for by version.
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>>;
}

/// Keeps a certificate beside its key.
pub trait StoreCertificate: Send + Sync {
    /// Stores a DER certificate, replacing the one before. `BadRequest` if its public key is another one.
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>>;
}

/// Proves where its keys are.
pub trait Attest: Send + Sync {
    /// The device's own statement on a key, under its maker's signature. `Unsupported` for a key that the device does
    /// not vouch for (an imported one).
    fn attest<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Evidence>>;
}

/// Takes a PIN.
pub trait Unlock: Send + Sync {
    /// Gives a PIN and logs in with it at once, once. The PIN is kept for later logins, replacing the configured one.
    fn unlock(&self, request: UnlockRequest) -> BoxFuture<'_, Result<()>>;

    /// Gives up the login that a PIN has opened: the next piece of work that needs one asks for it. What is under way ends
    /// as it would have. `Unsupported` where only a new process does that.
    fn lock(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Err(Error::unsupported("give up a login", "this backend"))))
    }
}

/// A PIN that somebody gave.
#[derive(Clone, Debug)]
pub struct UnlockRequest {
    /// The PIN.
    pub pin: Pin,
    /// Whether to go ahead when only one try is left.
    pub use_last_try: bool,
}

/// Tells when something happens.
pub trait Watch: Send + Sync {
    /// Calls `sink` for each event from now on. The sink must not block.
    fn watch(&self, sink: EventSink);
}

/// Where events go.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that happened to a backend by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device can be used again.
    Up,
    /// The device cannot be used.
    Down(Error),
    /// The device wants a PIN.
    PinRequired(crate::PinPrompt),
    /// A request waits until somebody touches the device.
    TouchRequired {
        /// Which device and key, and for how long.
        prompt: TouchPrompt,
        /// Who asks, as the daemon knows the caller.
        caller: String,
        /// What is to be signed, in words.
        purpose: String,
        /// What the caller says it is: a file's name. Nobody has checked it.
        label: Option<String>,
    },
    /// Nobody need touch the device for this key any more.
    TouchEnded {
        /// The key, by its name in its backend.
        key: String,
    },
    /// A driver process ended and is started again after so long.
    DriverRestarting {
        /// Why it ended.
        reason: String,
        /// How long until the next start.
        backoff: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_are_named() {
        for ability in Ability::ALL {
            assert_eq!(Ability::from_name(ability.name()), Some(ability));
        }
        let error = Ability::Rotate.require(None::<()>, "hsm").unwrap_err();
        assert_eq!(error.what(), "backend hsm cannot rotate keys");
    }
}
