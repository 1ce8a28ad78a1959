//! What all keys of a backend share: the client, and what is kept of its answers.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use signer_core::{Error, ErrorKind, PublicKey, Result};
use signer_remote::Memory;

use crate::{
    client::Client,
    fault::{self, Asked},
    key::{KmsKey, Lacks},
    name,
};

pub(crate) struct Shared {
    /// The configured name of the backend.
    pub(crate) name: String,
    pub(crate) client: Client,
    /// After so long a public key is asked for again.
    pub(crate) lifetime: Duration,
    pub(crate) lacks: Lacks,
    /// By key id.
    public_keys: Memory<PublicKey>,
    /// Aliases that were just made: the service may not know them everywhere yet.
    young: Mutex<HashMap<String, Instant>>,
    /// Counts the deletions.
    deletions: AtomicU64,
}

/// For so long a new key may be unknown here and there.
const YOUTH: Duration = Duration::from_secs(30);
const YOUNG_PAUSE: Duration = Duration::from_millis(200);

impl Shared {
    pub(crate) fn new(name: String, client: Client, lifetime: Duration, lacks: Lacks) -> Self {
        Self {
            name,
            client,
            lifetime,
            lacks,
            public_keys: Memory::new(lifetime),
            young: Mutex::default(),
            deletions: AtomicU64::new(0),
        }
    }

    /// Describes a key by its id, alias or ARN; `NotFound` for one that is not there or does not sign.
    pub(crate) async fn describe(&self, key_id: &str) -> Result<KmsKey> {
        let asked = Asked { action: "DescribeKey", on: key_id, repeatable: true };
        let answer = self.client.call(asked, None, |c| c.describe_key().key_id(key_id).send());
        let mut answer = answer.await;
        while let Err(error) = &answer
            && error.kind() == ErrorKind::NotFound
            && self.is_young(key_id)
        {
            tokio::time::sleep(YOUNG_PAUSE).await;
            answer = self.client.call(asked, None, |c| c.describe_key().key_id(key_id).send()).await;
        }
        let answer = answer?;
        let data = answer.key_metadata().ok_or_else(|| fault::of_lie("AWS KMS describes no key"))?;
        if name::is_key_id(key_id) && data.key_id() != key_id {
            return Err(fault::of_lie("AWS KMS describes another key than it was asked for"));
        }
        KmsKey::read(data, &self.lacks)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the key of that name does not sign")
                .next("keys with the usage SIGN_VERIFY sign, of the specs ECC_NIST_*, RSA_* and ML_DSA_*")
        })
    }

    /// The public key, from the service or from not too long ago.
    pub(crate) async fn public_key(&self, key: &KmsKey) -> Result<PublicKey> {
        match self.public_keys.recall(&key.id) {
            Some(public_key) => Ok(public_key),
            None => self.fetch_public_key(key).await,
        }
    }

    /// The public key, from the service.
    pub(crate) async fn fetch_public_key(&self, key: &KmsKey) -> Result<PublicKey> {
        let asked = Asked { action: "GetPublicKey", on: &key.arn, repeatable: true };
        let answer = self.client.call(asked, None, |c| c.get_public_key().key_id(&key.arn).send()).await?;
        if answer.key_id() != Some(&key.arn) {
            return Err(fault::of_lie("AWS KMS gave the public key of another key than it was asked for"));
        }
        let der = answer.public_key().map(AsRef::as_ref).unwrap_or_default();
        let public_key = PublicKey::from_der(der)
            .map_err(|e| fault::of_lie("AWS KMS gave a public key that cannot be read").vendor(e.what()))?;
        if public_key.key_type() != key.key_type {
            return Err(fault::of_lie(format!(
                "AWS KMS calls a {} key {}",
                public_key.key_type(),
                key.key_type
            )));
        }
        self.public_keys.remember(&key.id, public_key.clone());
        Ok(public_key)
    }

    /// A key was made under this alias.
    pub(crate) fn made(&self, alias: &str) {
        let mut young = self.young();
        young.retain(|_, at| at.elapsed() < YOUTH);
        young.insert(alias.to_owned(), Instant::now());
    }

    /// A key was deleted, with its aliases.
    pub(crate) fn deleted<'a>(&self, key_id: &str, aliases: impl IntoIterator<Item = &'a String>) {
        self.deletions.fetch_add(1, Ordering::SeqCst);
        self.public_keys.forget(key_id);
        let mut young = self.young();
        for alias in aliases {
            young.remove(alias);
        }
    }

    /// Changes when a key is deleted.
    pub(crate) fn deletions(&self) -> u64 {
        self.deletions.load(Ordering::SeqCst)
    }

    /// Host and port of the endpoint, where it is not the region's own: what `awskms://` addresses name.
    pub(crate) async fn endpoint(&self) -> Result<Option<String>> {
        let endpoint = self.client.connection().await?.endpoint.as_deref();
        Ok(endpoint.map(|url| host_of(url).to_owned()))
    }

    fn is_young(&self, alias: &str) -> bool {
        self.young().get(alias).is_some_and(|at| at.elapsed() < YOUTH)
    }

    fn young(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.young.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `localhost:4566` of `http://localhost:4566/`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
