//! AWS, Google and Azure: our own engine with their faces, at once and 10 ms away, as a service in the same region is.

use hwtests::engines::{AwsFace, Azure, Engine, Google};
use hwtests_kms_engine::{Engine as KmsEngine, Fault, FaultKind};
use signer_contract::PinSetup;
use signer_core::KeyInfo;

use super::{Bench, row, this};
use crate::{Result, direct::With, report::Row};

pub(super) fn aws(bench: &Bench) -> Result<Vec<Row>> {
    let engine = AwsFace::start();
    let endpoint = engine.config().endpoint.ok_or("the engine has no endpoint")?;
    let titles = ["AWS KMS, 10 ms away", "AWS KMS on this machine, at once"];
    let with = |_: &KeyInfo| Ok(With::Aws { endpoint, key: "alias/bench".into() });
    both(bench, "aws", titles, "AWS SDK", &engine, engine.engine(), with)
}

pub(super) fn google(bench: &Bench) -> Result<Vec<Row>> {
    let engine = Google::start();
    let titles = ["Google Cloud KMS, 10 ms away", "Google Cloud KMS on this machine, at once"];
    let with = |key: &KeyInfo| {
        let address = key.address.as_ref().ok_or("the key has no address")?.to_string();
        Ok(With::Google {
            endpoint: engine.kms().url(),
            service_account: engine.kms().google_service_account(),
            version: address.trim_start_matches("gcpkms://").replace("/versions/", "/cryptoKeyVersions/"),
        })
    };
    both(bench, "google", titles, "Google's client", &engine, engine.kms(), with)
}

pub(super) fn azure(bench: &Bench) -> Result<Vec<Row>> {
    let engine = Azure::start();
    let titles = ["Azure Key Vault, 10 ms away", "Azure Key Vault on this machine, at once"];
    let with = |key: &KeyInfo| {
        Ok(With::Azure {
            vault: engine.config().vault,
            engine: engine.kms().tls_url(),
            ca: engine.kms().ca_pem().to_owned(),
            key: "bench".into(),
            version: key.name.version().map(str::to_owned),
        })
    };
    both(bench, "azure", titles, "Microsoft's client", &engine, engine.kms(), with)
}

/// One service, far and near.
fn both(
    bench: &Bench,
    name: &'static str,
    titles: [&'static str; 2],
    library: &str,
    engine: &dyn Engine,
    kms: &KmsEngine,
    with: impl FnOnce(&KeyInfo) -> Result<With>,
) -> Result<Vec<Row>> {
    let (daemon, key) = bench.daemon_with_a_key(&engine.toml("place", PinSetup::Right));
    let with = with(&key)?;
    let mut rows = Vec::new();
    for (title, away) in titles.into_iter().zip([10, 0]) {
        kms.heal();
        if away > 0 {
            kms.fault(Fault::new(FaultKind::Slow).ms(away).for_ever());
        }
        let rounds = bench.compare(
            |callers| bench.direct(this()?, &with, callers, 2.0),
            |clients| bench.drive(&daemon, "place/bench", clients, 2.0),
        )?;
        rows.push(row(name, title, library, &rounds, away > 0));
    }
    Ok(rows)
}
