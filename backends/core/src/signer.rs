//! One key, and what it signs.

use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::{
    Address, BoxFuture, Digest, Error, ErrorKind, KeyName, KeyPolicy, PublicKey, Result, Signature,
    SignatureAlgorithm, TouchListener,
};

/// One key that signs. Wrappers (policy, audit, metrics, retry, failover) are `Signer`s around another one.
pub trait Signer: Send + Sync {
    /// What is known of the key. It does not change while the signer lives.
    fn info(&self) -> &KeyInfo;

    /// Signs. The answer is in the one encoding that [`SignatureAlgorithm`] fixes.
    ///
    /// A blocking backend may do its work inside the first poll. Dropping the future gives up waiting; a device may
    /// still finish.
    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>>;

    /// Proves that the key is still where it was: asks the device for this very key.
    fn health(&self) -> BoxFuture<'_, Result<()>>;
}

/// Where a key came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The device does not say.
    #[default]
    Unknown,
    /// Made inside the device.
    Generated,
    /// Brought in from outside.
    Imported,
}

impl KeyOrigin {
    /// `unknown`, `generated` or `imported`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Generated => "generated",
            Self::Imported => "imported",
        }
    }
}

/// What is known of a key without using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name in its backend, version included where the backend has versions: opens this very key.
    pub name: KeyName,
    /// Its public half.
    pub public_key: PublicKey,
    /// What it can sign with on this device, the default first. Never empty.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// Whether it was made in the device.
    pub origin: KeyOrigin,
    /// Whether the device would give the private key away; `None` where it does not say.
    pub extractable: Option<bool>,
    /// What the device demands before it signs, as far as it says so.
    pub policy: KeyPolicy,
    /// When it was made, where the backend knows.
    pub created: Option<SystemTime>,
    /// The device's own identifier (`CKA_ID`), where it has one.
    pub id: Option<Vec<u8>>,
    /// The address that other programs know it by.
    pub address: Option<Address>,
    /// The certificate stored beside it, DER.
    pub certificate: Option<Vec<u8>>,
}

impl KeyInfo {
    /// What this key signs with when nobody says.
    pub fn default_algorithm(&self) -> SignatureAlgorithm {
        self.algorithms.first().copied().unwrap_or_else(|| self.public_key.key_type().default_algorithm())
    }

    /// Refuses an algorithm that this key does not offer.
    pub fn check(&self, algorithm: SignatureAlgorithm) -> Result<()> {
        if self.algorithms.contains(&algorithm) {
            return Ok(());
        }
        let offered: Vec<_> = self.algorithms.iter().map(|a| a.name()).collect();
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("a {} key here does not sign with {algorithm}", self.public_key.key_type()),
        )
        .key(&self.name)
        .next(format!("use {}", offered.join(", "))))
    }
}

/// What is signed: a message, or the digest that somebody made of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    /// The message itself. Cheap to clone.
    Message(Bytes),
    /// Its digest.
    Digest(Digest),
}

impl std::fmt::Debug for Input {
    /// Lengths only: what is signed may be confidential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(m) => write!(f, "a message of {} bytes", m.len()),
            Self::Digest(d) => write!(f, "a {} digest", d.algorithm()),
        }
    }
}

/// One request for a signature. It can only be made with an input that fits its algorithm.
#[derive(Clone, Debug)]
pub struct SignRequest {
    algorithm: SignatureAlgorithm,
    input: Input,
    deadline: Option<Instant>,
    touch: Option<TouchListener>,
}

impl SignRequest {
    /// Puts a request together. A digest by another hash function than the algorithm's is refused, and any digest is
    /// where the algorithm signs the message itself.
    pub fn new(algorithm: SignatureAlgorithm, input: Input) -> Result<Self> {
        if let Input::Digest(digest) = &input {
            match algorithm.prehash() {
                Some(hash) if hash == digest.algorithm() => {}
                Some(hash) => {
                    return Err(Error::bad_request(format!(
                        "{algorithm} signs a {hash} digest of {} bytes, not a {} digest of {}",
                        hash.len(),
                        digest.algorithm(),
                        digest.as_bytes().len()
                    )));
                }
                None => {
                    return Err(Error::bad_request(format!(
                        "{algorithm} signs the message itself, not a digest of it"
                    )));
                }
            }
        }
        Ok(Self { algorithm, input, deadline: None, touch: None })
    }

    /// A request that signs `digest` as `algorithm` hashes it.
    pub fn digest(algorithm: SignatureAlgorithm, digest: Digest) -> Result<Self> {
        Self::new(algorithm, Input::Digest(digest))
    }

    /// A request that signs `message`.
    pub fn message(algorithm: SignatureAlgorithm, message: impl Into<Bytes>) -> Self {
        Self { algorithm, input: Input::Message(message.into()), deadline: None, touch: None }
    }

    /// Says until when an answer is of use.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Says whom to tell when the device waits for a touch.
    #[must_use]
    pub fn on_touch(mut self, listener: TouchListener) -> Self {
        self.touch = Some(listener);
        self
    }

    /// Whom to tell when the device waits for a touch.
    pub fn touch_listener(&self) -> Option<&TouchListener> {
        self.touch.as_ref()
    }

    /// How to sign.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// What to sign.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Until when an answer is of use.
    pub fn until(&self) -> Option<Instant> {
        self.deadline
    }

    /// The digest to sign: hashed here if a message was given. `None` where the message itself is signed.
    pub fn to_digest(&self) -> Option<Digest> {
        let hash = self.algorithm.prehash()?;
        Some(match &self.input {
            Input::Digest(digest) => *digest,
            Input::Message(message) => Digest::of(hash, message),
        })
    }

    /// The same request with the message hashed where the algorithm hashes: what is sent to another process.
    #[must_use]
    pub fn hashed(self) -> Self {
        match self.to_digest() {
            Some(digest) => Self { input: Input::Digest(digest), ..self },
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlgorithm;

    #[test]
    fn a_digest_must_fit_its_algorithm() {
        for algorithm in SignatureAlgorithm::ALL {
            for hash in HashAlgorithm::ALL {
                let request = SignRequest::digest(algorithm, Digest::of(hash, b"x"));
                assert_eq!(request.is_ok(), algorithm.prehash() == Some(hash), "{algorithm} {hash}");
            }
            let hashed = SignRequest::message(algorithm, "x").hashed();
            assert_eq!(matches!(hashed.input(), Input::Digest(_)), algorithm.prehash().is_some());
        }
    }

    #[test]
    fn what_is_signed_is_never_printed() {
        let request = SignRequest::message(SignatureAlgorithm::Ed25519, "very secret");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
