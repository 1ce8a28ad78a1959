//! A KMS key as the service describes it.

use std::time::SystemTime;

use aws_sdk_kms::types::{
    KeyMetadata, KeySpec, KeyState, KeyUsageType, MessageType, OriginType, SigningAlgorithmSpec,
};
use signer_core::{
    Address, AwsKmsAddress, Error, HashAlgorithm, KeyInfo, KeyName, KeyOrigin, KeyPolicy, KeyType, PublicKey,
    Result, SignatureAlgorithm,
};

use crate::{fault, name};

/// A key that signs.
#[derive(Clone, Debug)]
pub(crate) struct KmsKey {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) key_type: KeyType,
    pub(crate) description: String,
    algorithms: Vec<SignatureAlgorithm>,
    state: Option<KeyState>,
    deleted_on: Option<String>,
    origin: KeyOrigin,
    created: Option<SystemTime>,
}

/// What this region or endpoint lacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lacks {
    types: Vec<KeyType>,
    algorithms: Vec<SignatureAlgorithm>,
}

impl Lacks {
    pub(crate) fn read(names: &[String]) -> Result<Self> {
        let mut this = Self::default();
        for name in names {
            let key_type: Option<KeyType> = name.parse().ok();
            let algorithm: Option<SignatureAlgorithm> = name.parse().ok();
            if key_type.is_none() && algorithm.is_none() {
                return Err(Error::bad_request(format!(
                    "lacks has {name:?}, which is no kind of key and no algorithm"
                ))
                .next("write names such as ml-dsa-65 or ed25519ph"));
            }
            this.types.extend(key_type);
            this.algorithms.extend(algorithm);
        }
        Ok(this)
    }

    /// What can be made here.
    pub(crate) fn rest(&self) -> Vec<KeyType> {
        KeyType::ALL.into_iter().filter(|t| !self.types.contains(t)).collect()
    }
}

impl KmsKey {
    /// Reads the service's description; `None` for a key that does not sign with anything that the house knows.
    pub(crate) fn read(data: &KeyMetadata, lacks: &Lacks) -> Result<Option<Self>> {
        let key_type = data.key_spec().and_then(key_type);
        let (Some(key_type), Some(KeyUsageType::SignVerify)) = (key_type, data.key_usage()) else {
            return Ok(None);
        };
        let offered = |a: &SignatureAlgorithm| {
            !lacks.algorithms.contains(a) && data.signing_algorithms().contains(&spec(*a))
        };
        let algorithms: Vec<_> = key_type.algorithms().iter().copied().filter(offered).collect();
        if algorithms.is_empty() {
            return Ok(None);
        }
        let arn = data.arn().ok_or_else(|| fault::of_lie("AWS KMS describes a key without its ARN"))?;
        Ok(Some(Self {
            id: data.key_id().to_owned(),
            arn: arn.to_owned(),
            key_type,
            description: data.description().unwrap_or_default().to_owned(),
            algorithms,
            state: data.key_state().cloned(),
            deleted_on: data.deletion_date().map(ToString::to_string),
            origin: match data.origin() {
                Some(OriginType::AwsKms | OriginType::AwsCloudhsm) => KeyOrigin::Generated,
                Some(OriginType::External) => KeyOrigin::Imported,
                _ => KeyOrigin::Unknown,
            },
            created: data.creation_date().and_then(|d| SystemTime::try_from(*d).ok()),
        }))
    }

    /// Why it does not sign now, if it does not.
    pub(crate) fn usable(&self) -> Result<()> {
        match &self.state {
            None | Some(KeyState::Enabled) => Ok(()),
            Some(KeyState::Disabled) => Err(fault::disabled(&self.id)),
            Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => {
                Err(fault::pending_deletion(&self.id, self.deleted_on.clone()))
            }
            Some(KeyState::PendingImport) => Err(Error::new(
                signer_core::ErrorKind::NotFound,
                "the key has no key material yet (pending import)",
            )
            .next("import its material: aws kms import-key-material")),
            Some(other) => Err(Error::new(
                signer_core::ErrorKind::DeviceGone,
                format!("the key cannot be used now: its state is {other}"),
            )),
        }
    }

    /// What is known of it, under an alias if it has one.
    pub(crate) fn info(
        &self,
        alias: Option<&str>,
        public_key: PublicKey,
        endpoint: Option<String>,
    ) -> Result<KeyInfo> {
        let label = alias.and_then(|alias| name::label_of(alias, &self.description));
        Ok(KeyInfo {
            name: KeyName::label(label.unwrap_or_else(|| self.id.clone()))?,
            public_key,
            algorithms: self.algorithms.clone(),
            origin: self.origin,
            // KMS gives no private key away, wherever it came from.
            extractable: Some(false),
            policy: KeyPolicy::default(),
            created: self.created,
            id: None,
            address: Some(Address::AwsKms(AwsKmsAddress { endpoint, key_id: self.arn.clone() })),
            certificate: None,
        })
    }
}

fn key_type(spec: &KeySpec) -> Option<KeyType> {
    KeyType::ALL.into_iter().find(|t| key_spec(*t) == *spec)
}

/// How the service calls a kind of key.
pub(crate) fn key_spec(key_type: KeyType) -> KeySpec {
    match key_type {
        KeyType::EcdsaP256 => KeySpec::EccNistP256,
        KeyType::EcdsaP384 => KeySpec::EccNistP384,
        KeyType::EcdsaP521 => KeySpec::EccNistP521,
        KeyType::Rsa2048 => KeySpec::Rsa2048,
        KeyType::Rsa3072 => KeySpec::Rsa3072,
        KeyType::Rsa4096 => KeySpec::Rsa4096,
        KeyType::Ed25519 => KeySpec::EccNistEdwards25519,
        KeyType::MlDsa44 => KeySpec::MlDsa44,
        KeyType::MlDsa65 => KeySpec::MlDsa65,
        KeyType::MlDsa87 => KeySpec::MlDsa87,
    }
}

/// How the service calls an algorithm.
pub(crate) fn spec(algorithm: SignatureAlgorithm) -> SigningAlgorithmSpec {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    use SignatureAlgorithm::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};
    match algorithm {
        Ecdsa(Sha256) => SigningAlgorithmSpec::EcdsaSha256,
        Ecdsa(Sha384) => SigningAlgorithmSpec::EcdsaSha384,
        Ecdsa(Sha512) => SigningAlgorithmSpec::EcdsaSha512,
        RsaPkcs1(Sha256) => SigningAlgorithmSpec::RsassaPkcs1V15Sha256,
        RsaPkcs1(Sha384) => SigningAlgorithmSpec::RsassaPkcs1V15Sha384,
        RsaPkcs1(Sha512) => SigningAlgorithmSpec::RsassaPkcs1V15Sha512,
        RsaPss(Sha256) => SigningAlgorithmSpec::RsassaPssSha256,
        RsaPss(Sha384) => SigningAlgorithmSpec::RsassaPssSha384,
        RsaPss(Sha512) => SigningAlgorithmSpec::RsassaPssSha512,
        Ed25519 => SigningAlgorithmSpec::Ed25519Sha512,
        Ed25519ph => SigningAlgorithmSpec::Ed25519PhSha512,
        MlDsa => SigningAlgorithmSpec::MlDsaShake256,
    }
}

/// Whether the service gets a digest or the message.
pub(crate) fn message_type(algorithm: SignatureAlgorithm) -> MessageType {
    if algorithm.prehash().is_some() { MessageType::Digest } else { MessageType::Raw }
}
