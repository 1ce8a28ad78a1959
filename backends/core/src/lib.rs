//! The trait that the whole house is built on, and the types that cross it.
//!
//! A [`Signer`] is one key. A [`Backend`] is one configured place for keys. What else a place can do
//! (generate, import, delete, …) are abilities that it may offer. There is no I/O in this crate and no
//! async runtime: a backend brings what it needs, a caller polls with whatever it has.
//!
//! A private key never crosses the trait: there is no export.

mod address;
mod algorithm;
mod backend;
mod digest;
mod error;
mod evidence;
mod key_ref;
mod percent;
mod pin;
mod policy;
mod private_key;
mod public_key;
mod signature;
mod signer;
mod touch;
mod utc;

pub use address::{
    Address, AwsKmsAddress, AzureKmsAddress, GcpKmsAddress, HashiVaultAddress, PivAddress, Pkcs11Uri,
};
pub use algorithm::{HashAlgorithm, KeyType, SignatureAlgorithm};
pub use backend::{
    Ability, Attest, Backend, BackendInfo, Delete, Event, EventSink, Generate, GenerateRequest, Import,
    ImportRequest, KeyPage, ListRequest, Rotate, StoreCertificate, Unlock, UnlockRequest, Watch,
};
pub use digest::{Digest, Hasher};
pub use error::{Error, ErrorKind, Result};
pub use evidence::{Evidence, EvidenceFormat};
pub use key_ref::{BackendName, KeyName, KeyRef, KeySelector};
pub use pin::{Pin, PinLease, PinOutcome, PinPrompt, PinSource};
pub use policy::{KeyPolicy, PcrSelection, PinPolicy, TouchPolicy};
pub use private_key::PrivateKey;
pub use public_key::PublicKey;
pub use signature::Signature;
pub use signer::{Input, KeyInfo, KeyOrigin, SignRequest, Signer};
pub use touch::{TouchListener, TouchPrompt};
pub use utc::utc;

/// What every asynchronous method of the traits returns: no runtime is assumed.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
