//! A whole driver: P-256 keys that live as long as the process's parent wants them to, derived from a seed so that
//! every process of the backend has the same ones. It shows what a driver is made of, and the tests of this crate
//! drive it; options `crash_every` (signatures) and `hang_once` (a file that does not
//! exist yet: the process that makes it hangs) let it misbehave.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use signer_core::{
    Backend, BackendInfo, BoxFuture, Digest, Error, ErrorKind, HashAlgorithm, KeyInfo, KeyName, KeyOrigin,
    KeyPage, KeyPolicy, KeySelector, KeyType, ListRequest, PinOutcome, PinPrompt, PinSource, PublicKey,
    Result, SignRequest, Signature, SignatureAlgorithm, Signer,
};
use signer_driver::Setup;

fn main() -> std::process::ExitCode {
    signer_driver::run(|setup| Ok(Arc::new(Memory::new(setup))))
}

struct Memory {
    pins: Arc<dyn PinSource>,
    pin: String,
    signed: Arc<AtomicU64>,
    crash_every: u64,
    hang_once: String,
}

impl Memory {
    fn new(setup: Setup) -> Self {
        let number = |name: &str| setup.options[name].as_u64().unwrap_or(0);
        let text = |name: &str| setup.options[name].as_str().unwrap_or_default().to_owned();
        Self {
            pin: text("expected_pin"),
            signed: Arc::default(),
            crash_every: number("crash_every"),
            hang_once: text("hang_once"),
            pins: setup.pins,
        }
    }

    /// A device with a PIN wants it before it opens a key.
    async fn log_in(&self) -> Result<()> {
        if self.pin.is_empty() {
            return Ok(());
        }
        let prompt = PinPrompt { device: "memory".into(), ..PinPrompt::default() };
        let lease = self.pins.lease(&prompt).await?;
        if lease.pin().expose() == self.pin {
            lease.report(PinOutcome::Accepted);
            return Ok(());
        }
        let error = Error::new(ErrorKind::WrongPin { tries_left: Some(2) }, "the device refused the PIN");
        lease.report(PinOutcome::Refused(error.clone()));
        Err(error)
    }
}

impl Backend for Memory {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        let info =
            BackendInfo { kind: "memory".into(), device: "this process".into(), ..BackendInfo::default() };
        Box::pin(async move { Ok(info) })
    }

    fn list(&self, _: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move { Ok(KeyPage { keys: vec![MemoryKey::new(self, "one")?.info], next: None }) })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            self.log_in().await?;
            let KeySelector::Name(name) = key else {
                return Err(not_found(key));
            };
            let label =
                name.as_label().filter(|l| *l == "one" || *l == "two").ok_or_else(|| not_found(key))?;
            let signer: Arc<dyn Signer> = Arc::new(MemoryKey::new(self, label)?);
            Ok(signer)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(()) })
    }
}

fn not_found(key: &KeySelector) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such key").key(key)
}

struct MemoryKey {
    pair: EcdsaKeyPair,
    info: KeyInfo,
    signed: Arc<AtomicU64>,
    crash_every: u64,
    hang_once: String,
}

impl MemoryKey {
    fn new(backend: &Memory, label: &str) -> Result<Self> {
        // RFC 5915 ECPrivateKey with the hash of the label as its number: the same key in every process.
        let seed = Digest::of(HashAlgorithm::Sha256, label.as_bytes());
        let mut sec1 = vec![0x30, 49, 2, 1, 1, 4, 32];
        sec1.extend(seed.as_bytes());
        sec1.extend([0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &sec1)
            .map_err(|e| Error::internal("the key cannot be made").vendor(e))?;
        let info = KeyInfo {
            name: KeyName::label(label)?,
            public_key: PublicKey::from_ec_point(KeyType::EcdsaP256, pair.public_key().as_ref())?,
            algorithms: vec![SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)],
            origin: KeyOrigin::Generated,
            extractable: Some(false),
            created: None,
            id: None,
            address: None,
            certificate: None,
            policy: KeyPolicy::default(),
        };
        let Memory { signed, crash_every, hang_once, .. } = backend;
        Ok(Self {
            pair,
            info,
            signed: signed.clone(),
            crash_every: *crash_every,
            hang_once: hang_once.clone(),
        })
    }
}

impl Signer for MemoryKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        Box::pin(async move {
            self.info.check(request.algorithm())?;
            let count = self.signed.fetch_add(1, Ordering::Relaxed) + 1;
            if self.crash_every > 0 && count.is_multiple_of(self.crash_every) {
                std::process::abort();
            }
            if !self.hang_once.is_empty() && std::fs::File::create_new(&self.hang_once).is_ok() {
                std::thread::sleep(std::time::Duration::from_hours(1));
            }
            let digest = request.to_digest().ok_or_else(|| Error::internal("no digest"))?;
            let digest =
                aws_lc_rs::digest::Digest::import_less_safe(digest.as_bytes(), &aws_lc_rs::digest::SHA256)
                    .map_err(|e| Error::internal("the digest is not one").vendor(e))?;
            let signed = self.pair.sign_digest(&digest);
            let signature = signed.map_err(|e| Error::internal("signing failed").vendor(e))?;
            Ok(Signature::new(signature.as_ref().to_vec()))
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
