//! How fast a TPM signs through the driver process, beside the TSS called directly in one process.
//!
//! `cargo run --release -p signer-tpm --example rates` starts a swtpm and prints a table. Baseline and driver take turns on
//! the same TPM; the ratio of each pair of rounds is what counts.
#![allow(clippy::unwrap_used)] // a program for developers

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hwtests::engines::{Engine, SwTpm};
use signer_contract::PinSetup;
use signer_core::{
    GenerateRequest, HashAlgorithm, KeyName, KeySelector, KeyType, SignRequest, SignatureAlgorithm, Signer,
};
use tss_esapi::{
    Context,
    attributes::ObjectAttributesBuilder,
    constants::{StructureTag, tss::TPM2_RH_NULL},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::Hierarchy,
        session_handles::AuthSession,
    },
    structures::{
        Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, KeyDerivationFunctionScheme, Public,
        PublicEccParameters, PublicKeyRsa, PublicRsaParameters, RsaExponent, RsaScheme, SignatureScheme,
        SymmetricDefinitionObject,
    },
    tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK},
};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const CLIENTS: usize = 16;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{:<28} {:>10} {:>10} {:>10} {:>7} {:>11}",
        "key", "raw 1/s", "driver 1/s", "16 clients", "ratio", "p50 added"
    );
    for (label, key_type, hash, encryption) in [
        ("P-256", KeyType::EcdsaP256, HashAlgorithm::Sha256, false),
        ("P-384", KeyType::EcdsaP384, HashAlgorithm::Sha384, false),
        ("RSA-2048 PKCS#1", KeyType::Rsa2048, HashAlgorithm::Sha256, false),
        ("P-256, parameter_encryption", KeyType::EcdsaP256, HashAlgorithm::Sha256, true),
    ] {
        let tpm = SwTpm::with_options(&[("parameter_encryption", encryption.into())]);
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let raw = raw(&tpm, key_type, hash);
                let driver = runtime.block_on(through_driver(&tpm, key_type, hash, round == 0));
                (raw, driver.0, driver.1)
            })
            .collect();
        let median = |of: &dyn Fn(&(Rate, Rate, Rate)) -> f64| {
            let mut all: Vec<_> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        println!(
            "{label:<28} {:>10.0} {:>10.0} {:>10.0} {:>7.2} {:>8.0} µs",
            median(&|r| r.0.each_second),
            median(&|r| r.1.each_second),
            median(&|r| r.2.each_second),
            median(&|r| r.2.each_second / r.0.each_second),
            median(&|r| (r.1.p50 - r.0.p50) * 1e6),
        );
    }
}

/// What one round showed.
#[derive(Clone, Copy)]
struct Rate {
    each_second: f64,
    /// Seconds.
    p50: f64,
}

impl Rate {
    fn of(mut times: Vec<f64>, took: Duration) -> Self {
        times.sort_by(f64::total_cmp);
        Self { each_second: times.len() as f64 / took.as_secs_f64(), p50: times[times.len() / 2] }
    }
}

/// The TSS alone: a loaded key, a password session, one thread.
fn raw(tpm: &SwTpm, key_type: KeyType, hash: HashAlgorithm) -> Rate {
    let mut context = Context::new(tpm.tcti().parse().unwrap()).unwrap();
    let template = template(key_type);
    let key = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(Hierarchy::Owner, template, None, None, None, None)
        })
        .unwrap()
        .key_handle;
    let hash_scheme = HashScheme::new(match hash {
        HashAlgorithm::Sha256 => HashingAlgorithm::Sha256,
        HashAlgorithm::Sha384 => HashingAlgorithm::Sha384,
        HashAlgorithm::Sha512 => HashingAlgorithm::Sha512,
    });
    let scheme = match key_type.rsa_bits() {
        Some(_) => SignatureScheme::RsaSsa { hash_scheme },
        None => SignatureScheme::EcDsa { hash_scheme },
    };
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < ROUND {
        let one = Instant::now();
        let digest = Digest::try_from(vec![times.len() as u8; hash.len()]).unwrap();
        let none = TPMT_TK_HASHCHECK {
            tag: StructureTag::Hashcheck.into(),
            hierarchy: TPM2_RH_NULL,
            digest: TPM2B_DIGEST::default(),
        };
        let ticket = HashcheckTicket::try_from(none).unwrap();
        context
            .execute_with_session(Some(AuthSession::Password), |c| c.sign(key, digest, scheme, ticket))
            .unwrap();
        times.push(one.elapsed().as_secs_f64());
    }
    let rate = Rate::of(times, start.elapsed());
    context.flush_context(key.into()).unwrap();
    rate
}

fn template(key_type: KeyType) -> Public {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()
        .unwrap();
    let builder = Public::builder()
        .with_object_attributes(attributes)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256);
    let none = SymmetricDefinitionObject::Null;
    let builder = if key_type.rsa_bits().is_some() {
        let parameters =
            PublicRsaParameters::new(none, RsaScheme::Null, RsaKeyBits::Rsa2048, RsaExponent::default());
        builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(parameters)
            .with_rsa_unique_identifier(PublicKeyRsa::default())
    } else {
        let curve = if key_type == KeyType::EcdsaP384 { EccCurve::NistP384 } else { EccCurve::NistP256 };
        let parameters =
            PublicEccParameters::new(none, EccScheme::Null, curve, KeyDerivationFunctionScheme::Null);
        builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(parameters)
            .with_ecc_unique_identifier(EccPoint::default())
    };
    builder.build().unwrap()
}

/// One client that waits for each answer, then sixteen.
async fn through_driver(tpm: &SwTpm, key_type: KeyType, hash: HashAlgorithm, first: bool) -> (Rate, Rate) {
    let backend = tpm.direct(PinSetup::Right).await.unwrap();
    let name = KeyName::label("rate").unwrap();
    if first {
        backend.generate().unwrap().generate(GenerateRequest::new(name.clone(), key_type)).await.unwrap();
    }
    let signer = backend.open(&KeySelector::Name(name)).await.unwrap();
    let algorithm = match key_type.rsa_bits() {
        Some(_) => SignatureAlgorithm::RsaPkcs1(hash),
        None => SignatureAlgorithm::Ecdsa(hash),
    };
    sign(&*signer, algorithm, 0).await;
    let one = load(&signer, algorithm, 1).await;
    let many = load(&signer, algorithm, CLIENTS).await;
    tpm.end_driver().await;
    (one, many)
}

async fn load(signer: &Arc<dyn Signer>, algorithm: SignatureAlgorithm, clients: usize) -> Rate {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let signer = signer.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < ROUND {
                    let one = Instant::now();
                    sign(&*signer, algorithm, times.len()).await;
                    times.push(one.elapsed().as_secs_f64());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    Rate::of(times, start.elapsed())
}

async fn sign(signer: &dyn Signer, algorithm: SignatureAlgorithm, number: usize) {
    let digest = signer_core::Digest::of(algorithm.prehash().unwrap(), &number.to_be_bytes());
    signer.sign(SignRequest::digest(algorithm, digest).unwrap()).await.unwrap();
}
