//! Load for Parsec: threads that sign a digest with a P-256 key again as soon as they are answered.
//!
//! `parsec-load --threads N --warm-up SECONDS --seconds SECONDS [--watch PID]`, with `PARSEC_SERVICE_ENDPOINT`; prints
//! what `signer-bench drive` prints. The client makes a connection for each request: that is how Parsec's protocol is.

use std::{error::Error, str::FromStr};

use parsec_client::{
    BasicClient,
    core::interface::operations::{
        psa_algorithm::{Algorithm, AsymmetricSignature, Hash, SignHash},
        psa_key_attributes::{Attributes, EccFamily, Lifetime, Policy, Type, UsageFlags},
    },
};

// The benchmark's own way of measuring; everything else in it would pull in the daemon's dependencies.
#[path = "../../../bench-tool/src/measure.rs"]
mod measure;
#[path = "../../../bench-tool/src/procfs.rs"]
mod procfs;

const KEY: &str = "signer-bench";
const DIGEST: [u8; 32] = [0x5a; 32];
const ALGORITHM: AsymmetricSignature =
    AsymmetricSignature::Ecdsa { hash_alg: SignHash::Specific(Hash::Sha256) };

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let threads = option("--threads")?.unwrap_or(1);
    let (warm_up, seconds) = (option("--warm-up")?.unwrap_or(0.3), option("--seconds")?.unwrap_or(2.0));
    make_key()?;
    let load = measure::threads(threads, warm_up, seconds, option("--watch")?, || {
        let client = BasicClient::new(None)?;
        Ok(move || Ok(client.psa_sign_hash(KEY, &DIGEST, ALGORITHM).map(drop)?))
    })?;
    println!("{}", serde_json::to_string(&load)?);
    Ok(())
}

fn option<T: FromStr<Err: Error + Send + Sync + 'static>>(
    name: &str,
) -> Result<Option<T>, Box<dyn Error + Send + Sync>> {
    let value = std::env::args().skip_while(|a| a != name).nth(1);
    Ok(value.map(|v| v.parse()).transpose()?)
}

fn make_key() -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = BasicClient::new(None)?;
    if client.list_keys()?.iter().any(|key| key.name == KEY) {
        return Ok(());
    }
    let mut usage_flags = UsageFlags::default();
    let _ = usage_flags.set_sign_hash().set_verify_hash();
    let policy = Policy { usage_flags, permitted_algorithms: Algorithm::AsymmetricSignature(ALGORITHM) };
    let key_type = Type::EccKeyPair { curve_family: EccFamily::SecpR1 };
    let attributes = Attributes { lifetime: Lifetime::Persistent, key_type, bits: 256, policy };
    Ok(client.psa_generate_key(KEY, attributes)?)
}
